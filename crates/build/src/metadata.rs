//! Instructions that change the image's configuration and no file.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value, json};
use wharf_dockerfile::{CommandLine, Healthcheck, Instruction, Scope};
use wharf_image::{ContainerConfig, ImageConfig};

use crate::error::{BuildError, Result};
use crate::{go_format, ports};

/// What the shell form uses when no SHELL says otherwise.
const DEFAULT_SHELL: &[&str] = &["/bin/sh", "-c"];

/// Where commands are looked for in an image that does not say (moby's default).
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// `SIGTERM`, `TERM` or a number (signal(7)).
const SIGNALS: &[&str] = &[
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "IO", "POLL", "PWR", "SYS", "UNUSED", "RTMIN", "RTMAX",
];

/// Applies an instruction whose variables are expanded; the value is its line in the image's history, if it has one.
/// Instructions that make files are not for here.
///
/// # Errors
/// For ports and signals that are none.
pub(crate) fn apply(
    instruction: &Instruction,
    image: &mut ImageConfig,
    scope: &mut Scope,
    cmd_set: &mut bool,
) -> Result<Option<String>> {
    let config = &mut image.config;
    Ok(Some(match instruction {
        Instruction::Env(pairs) => {
            let mut line = String::from("ENV");
            for pair in pairs {
                set_env(config.env.get_or_insert_default(), &pair.name, &pair.value);
                scope.set(&pair.name, &pair.value);
                line.push_str(&format!(" {}={}", pair.name, pair.value));
            }
            line
        }
        Instruction::Label(pairs) => {
            let mut line = String::from("LABEL");
            for pair in pairs {
                config.labels.get_or_insert_default().insert(pair.name.clone(), pair.value.clone());
                line.push_str(&format!(" {}={}", pair.name, pair.value));
            }
            line
        }
        Instruction::Cmd(command) => {
            let args = with_shell(config, command);
            *cmd_set = true;
            config.args_escaped = true;
            let line = format!("CMD {}", go_format::quoted_list(&args));
            config.cmd = Some(args);
            line
        }
        Instruction::Entrypoint(command) => {
            let args = with_shell(config, command);
            let line = format!("ENTRYPOINT {}", go_format::quoted_list(&args));
            config.entrypoint = if args.is_empty() { None } else { Some(args) };
            // The base's command was for the base's entrypoint.
            if !*cmd_set {
                config.cmd = None;
            }
            line
        }
        Instruction::Expose(list) => {
            let exposed = config.exposed_ports.get_or_insert_default();
            let mut all = BTreeSet::new();
            for text in list {
                for port in ports::parse(text)? {
                    exposed.insert(port.clone(), Default::default());
                    all.insert(port);
                }
            }
            format!("EXPOSE {}", go_format::list(&all.into_iter().collect::<Vec<_>>()))
        }
        Instruction::Healthcheck(check) => {
            config.healthcheck = Some(healthcheck(check));
            let time = |nanoseconds| go_format::quoted(&go_format::duration(nanoseconds));
            format!(
                "HEALTHCHECK &{{{} {} {} {} {} {}}}",
                go_format::quoted_list(&check.test),
                time(check.interval),
                time(check.timeout),
                time(check.start_period),
                time(check.start_interval),
                go_format::quoted_character(check.retries)
            )
        }
        Instruction::User(user) => {
            config.user.clone_from(user);
            format!("USER {user}")
        }
        Instruction::Volume(list) if list.iter().any(String::is_empty) => {
            // It was a variable.
            return Err(BuildError::invalid("VOLUME specified can not be an empty string"));
        }
        Instruction::Volume(list) => {
            for path in list {
                config.volumes.get_or_insert_default().insert(path.clone(), Default::default());
            }
            format!("VOLUME {}", go_format::list(list))
        }
        Instruction::StopSignal(signal) => {
            check_signal(signal)?;
            config.stop_signal = Some(signal.clone());
            format!("STOPSIGNAL {signal}")
        }
        Instruction::Shell(words) => {
            config.shell = Some(words.clone());
            format!("SHELL {}", go_format::list(words))
        }
        Instruction::Maintainer(name) => {
            image.author = Some(name.clone());
            format!("MAINTAINER {name}")
        }
        Instruction::Onbuild(trigger) => {
            config.on_build.get_or_insert_default().push(trigger.clone());
            return Ok(None);
        }
        Instruction::Arg(_)
        | Instruction::Add(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Workdir(_) => return Ok(None),
    }))
}

/// The command as it is run: the shell form gets the shell before it.
pub(crate) fn with_shell(config: &ContainerConfig, command: &CommandLine) -> Vec<String> {
    if !command.shell || command.args.is_empty() {
        return command.args.clone();
    }
    let mut args = match &config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => DEFAULT_SHELL.iter().map(|word| (*word).to_owned()).collect(),
    };
    args.push(command.args.join(" "));
    args
}

/// Sets a variable where it stands, or at the end.
pub(crate) fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = pair,
        None => env.push(pair),
    }
}

/// The variables of a configuration.
pub(crate) fn env_pairs(config: &ContainerConfig) -> Vec<(String, String)> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    config.env.iter().flatten().map(pair).collect()
}

/// The working directory that `WORKDIR text` makes of `current`.
pub(crate) fn workdir(current: &str, text: &str) -> String {
    let path = Path::new("/").join(current).join(text);
    // `..` does not go above the root.
    let mut clean = std::path::PathBuf::from("/");
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean.to_string_lossy().into_owned()
}

fn healthcheck(check: &Healthcheck) -> Value {
    let mut object = Map::new();
    object.insert("Test".into(), json!(check.test));
    for (name, value) in [
        ("Interval", check.interval),
        ("Timeout", check.timeout),
        ("StartPeriod", check.start_period),
        ("StartInterval", check.start_interval),
        ("Retries", check.retries),
    ] {
        if value != 0 {
            object.insert(name.into(), json!(value));
        }
    }
    Value::Object(object)
}

fn check_signal(text: &str) -> Result<()> {
    let bad = || BuildError::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=64).contains(&number) { Ok(()) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = name.strip_prefix("RTMIN+").or_else(|| name.strip_prefix("RTMAX-"));
    let known = SIGNALS.contains(&name) || real_time.is_some_and(|n| n.parse::<u32>().is_ok_and(|n| n <= 30));
    if known { Ok(()) } else { Err(bad()) }
}

/// A configuration to begin with when there is no base image.
pub(crate) fn scratch(platform: &wharf_dockerfile::Platform) -> ImageConfig {
    ImageConfig {
        architecture: platform.architecture.clone(),
        variant: Some(platform.variant.clone()).filter(|variant| !variant.is_empty()),
        os: platform.os.clone(),
        config: ContainerConfig { working_dir: "/".into(), ..ContainerConfig::default() },
        ..ImageConfig::default()
    }
}

/// What is left of a base image's configuration for an image that is built on it.
pub(crate) fn inherited(base: &ImageConfig) -> ImageConfig {
    let mut image = base.clone();
    image.created = None;
    // Of the container that the base was committed from, and of its own identity.
    for key in ["container", "container_config", "docker_version", "id", "parent", "parent_id", "Size"] {
        image.more.remove(key);
    }
    image
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wharf_dockerfile::Dockerfile;

    use super::*;

    /// Applies the instructions of a stage; the configuration and the lines of the history.
    fn build(text: &str, image: ImageConfig) -> (ImageConfig, Vec<String>) {
        let dockerfile = Dockerfile::parse("f", &format!("FROM x\n{text}")).unwrap();
        let (mut image, mut lines, mut cmd_set) = (image, Vec::new(), false);
        let mut scope = Scope::new(Arc::default(), env_pairs(&image.config));
        for statement in &dockerfile.stages[0].statements {
            let instruction = statement.instruction.expand('\\', &scope).unwrap();
            lines.extend(apply(&instruction, &mut image, &mut scope, &mut cmd_set).unwrap());
        }
        (image, lines)
    }

    #[test]
    fn the_configuration_is_changed_and_the_history_says_how() {
        let (image, lines) = build(
            "ENV A=1 B=\"x y\"\nENV A=2\nLABEL k=v\nEXPOSE 80 1-2/udp\nUSER web\nVOLUME /a /b\nSTOPSIGNAL SIGINT\n\
             SHELL [\"/bin/bash\", \"-c\"]\nCMD echo $A\nMAINTAINER me\nONBUILD RUN x\n\
             HEALTHCHECK --interval=30s CMD true",
            ImageConfig::default(),
        );
        let config = &image.config;
        assert_eq!(config.env.as_deref().unwrap(), ["A=2", "B=x y"]);
        assert_eq!(config.cmd.as_deref().unwrap(), ["/bin/bash", "-c", "echo $A"]);
        assert_eq!(config.exposed_ports.as_ref().unwrap().len(), 3);
        assert_eq!(config.healthcheck, Some(json!({"Test": ["CMD-SHELL", "true"], "Interval": 30_000_000_000i64})));
        assert_eq!((image.author.as_deref(), config.on_build.as_ref().unwrap().len()), (Some("me"), 1));
        assert_eq!(
            lines,
            [
                "ENV A=1 B=x y",
                "ENV A=2",
                "LABEL k=v",
                "EXPOSE [1/udp 2/udp 80/tcp]",
                "USER web",
                "VOLUME [/a /b]",
                "STOPSIGNAL SIGINT",
                "SHELL [/bin/bash -c]",
                "CMD [\"/bin/bash\" \"-c\" \"echo $A\"]",
                "MAINTAINER me",
                "HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"30s\" \"0s\" \"0s\" \"0s\" '\\x00'}",
            ]
        );
    }

    #[test]
    fn an_entrypoint_drops_the_command_of_the_base_and_not_ones_own() {
        let config = ContainerConfig { cmd: Some(vec!["sh".into()]), ..ContainerConfig::default() };
        let base = ImageConfig { config, ..ImageConfig::default() };
        assert_eq!(build("ENTRYPOINT [\"a\"]", base.clone()).0.config.cmd, None);
        let (image, _) = build("CMD [\"b\"]\nENTRYPOINT [\"a\"]", base.clone());
        assert_eq!(image.config.cmd, Some(vec!["b".into()]));
        assert_eq!(build("ENTRYPOINT []", base).0.config.entrypoint, None);
    }

    #[test]
    fn working_directories_are_joined() {
        for (current, text, expected) in [
            ("", "/a", "/a"),
            ("", "a", "/a"),
            ("/a", "b/../c/", "/a/c"),
            ("/a", "/b", "/b"),
            ("/a", "../../..", "/"),
            ("/", ".", "/"),
        ] {
            assert_eq!(workdir(current, text), expected);
        }
    }

    #[test]
    fn signals() {
        for good in ["SIGTERM", "term", "9", "SIGRTMIN+3", "RTMAX-1"] {
            assert!(check_signal(good).is_ok(), "{good}");
        }
        for bad in ["", "SIGNOPE", "0", "65", "-1", "RTMIN+x"] {
            assert!(check_signal(bad).is_err(), "{bad}");
        }
    }
}
