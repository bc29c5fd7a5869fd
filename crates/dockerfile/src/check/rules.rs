//! What the rules are about, in Docker's words.

/// What each rule is about, in Docker's words.
pub fn description(rule: &str) -> &'static str {
    match rule {
        "ConsistentInstructionCasing" => {
            "All commands within the Dockerfile should use the same casing (either upper or lower)"
        }
        "CopyIgnoredFile" => "Attempting to Copy file that is excluded by .dockerignore",
        "DuplicateStageName" => "Stage names should be unique",
        "ExposeInvalidFormat" => {
            "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release"
        }
        "ExposeProtoCasing" => "Protocol in EXPOSE instruction should be lowercase",
        "FromAsCasing" => "The 'as' keyword should match the case of the 'from' keyword",
        "FromPlatformFlagConstDisallowed" => "FROM --platform flag should not use a constant value",
        "InvalidDefaultArgInFrom" => "Default value for global ARG results in an empty or invalid base image name",
        "InvalidDefinitionDescription" => {
            "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment."
        }
        "JSONArgsRecommended" => {
            "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"
        }
        "LegacyKeyValueFormat" => "Legacy key/value format with whitespace separator should not be used",
        "MaintainerDeprecated" => {
            "The MAINTAINER instruction is deprecated, use a label instead to define an image author"
        }
        "MultipleInstructionsDisallowed" => {
            "Multiple instructions of the same type should not be used in the same stage"
        }
        "NoEmptyContinuation" => "Empty continuation lines will become errors in a future release",
        "RedundantTargetPlatform" => {
            "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
        }
        "ReservedStageName" => "Reserved words should not be used as stage names",
        "SecretsUsedInArgOrEnv" => "Sensitive data should not be used in the ARG or ENV commands",
        "StageNameCasing" => "Stage names should be lowercase",
        "UndefinedArgInFrom" => "FROM command must use declared ARGs",
        "UndefinedVar" => "Variables should be defined before their use",
        "WorkdirRelativePath" => {
            "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes"
        }
        _ => "",
    }
}

/// Where Docker explains a rule.
pub fn address(rule: &str) -> String {
    let characters: Vec<char> = rule.chars().collect();
    let mut name = String::new();
    for (at, letter) in characters.iter().enumerate() {
        let before_lower = characters.get(at + 1).is_some_and(char::is_ascii_lowercase);
        let after_lower = at > 0 && characters[at - 1].is_ascii_lowercase();
        if at > 0 && letter.is_ascii_uppercase() && (after_lower || before_lower) {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    format!("https://docs.docker.com/go/dockerfile/rule/{name}/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_have_addresses() {
        let of = |rule: &str| address(rule).rsplit('/').nth(1).unwrap().to_owned();
        assert_eq!(of("JSONArgsRecommended"), "json-args-recommended");
        assert_eq!(of("StageNameCasing"), "stage-name-casing");
    }
}
