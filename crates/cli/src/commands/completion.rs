//! `docker completion`, and the words that its script asks for.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::{GROUPS, TREE};
use crate::dispatch::find;
use crate::failure::Outcome;
use crate::json::{array, text, texts};
use crate::parse::Matches;
use crate::{app, help};

pub(crate) static COMPLETION: Command = Command::new(
    "[bash|zsh|fish]",
    "Generate the autocompletion script for the specified shell",
    Arity::Exactly(1),
    |app, matches| Box::pin(script(app, matches)),
);

/// Asked by the scripts: the words of the line, the one to complete at the end.
pub(crate) static COMPLETE: Command =
    Command::new("[WORD...]", "Words that may come next", Arity::AtLeast(0), |app, matches| {
        Box::pin(complete(app, matches))
    })
    .stops_at_argument();

const BASH: &str = r#"# bash completion for PROGRAM
_PROGRAM() {
    local IFS=$'\n'
    COMPREPLY=($(PROGRAM __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
    if [ ${#COMPREPLY[@]} -eq 0 ]; then
        COMPREPLY=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}"))
    elif [ "${COMPREPLY[0]: -1}" = "=" ]; then
        compopt -o nospace
    fi
}
complete -o bashdefault -F _PROGRAM PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
_PROGRAM() {
    local -a found
    found=(${(f)"$(PROGRAM __complete -- ${words[2,CURRENT]} 2>/dev/null)"})
    if (( ${#found} )); then
        compadd -a found
    else
        _files
    fi
}
compdef _PROGRAM PROGRAM
"#;

const FISH: &str = r"# fish completion for PROGRAM
function __PROGRAM_complete
    set -l words (commandline -opc) (commandline -ct)
    PROGRAM __complete -- $words[2..-1] 2>/dev/null
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
";

async fn script(app: &App, matches: &Matches) -> Outcome<u8> {
    let script = match matches.argument(0) {
        "bash" => BASH,
        "zsh" => ZSH,
        "fish" => FISH,
        shell => return Err(format!("no completion for {shell:?}; there is one for bash, zsh and fish").into()),
    };
    app.print(&script.replace("PROGRAM", &app.program))?;
    Ok(0)
}

async fn complete(app: &App, matches: &Matches) -> Outcome<u8> {
    let mut words = matches.arguments.as_slice();
    if words.first().is_some_and(|word| word == "--") {
        words = &words[1..];
    }
    let (current, before) = match words.split_last() {
        Some((current, before)) => (current.as_str(), before),
        None => ("", words),
    };
    let mut found: Vec<String> =
        candidates(app, before, current).await.into_iter().filter(|word| word.starts_with(current)).collect();
    found.sort();
    found.dedup();
    app.print(&found.iter().map(|word| format!("{word}\n")).collect::<String>())?;
    Ok(0)
}

async fn candidates(app: &App, before: &[String], current: &str) -> Vec<String> {
    let words = without_globals(before);
    let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (group, rest) = match words.split_first() {
        None if current.starts_with('-') => {
            return app::GLOBALS.iter().map(|flag| format!("--{}", flag.long)).collect();
        }
        None => {
            let commands = TREE.iter().filter(|entry| entry.group.is_empty() && !entry.hidden);
            let groups = GROUPS.iter().filter(|group| !group.hidden).map(|group| group.name);
            return owned(commands.map(|entry| entry.name).chain(groups).collect());
        }
        Some((first, rest)) if find("", first).is_none() => (first.as_str(), rest),
        Some(_) => ("", words),
    };
    let Some((name, arguments)) = rest.split_first() else {
        return owned(TREE.iter().filter(|e| e.group == group && !e.hidden).map(|entry| entry.name).collect());
    };
    let Some(entry) = find(group, name) else { return Vec::new() };
    let flags = entry.command.all_flags();
    if current.starts_with('-') {
        return flags.iter().filter(|flag| !flag.hidden).map(|flag| format!("--{}", flag.long)).collect();
    }
    // A flag in front that waits for its value.
    if let Some(last) = arguments.last() {
        let waiting = flags.iter().find(|flag| {
            help::takes_value(flag)
                && (*last == format!("--{}", flag.long) || flag.short.is_some_and(|short| *last == format!("-{short}")))
        });
        if let Some(flag) = waiting {
            return match flag.long {
                "network" | "net" => things(app, "networks").await,
                "volumes-from" | "link" => things(app, "containers").await,
                _ => Vec::new(),
            };
        }
    }
    things(app, kind(entry.command.usage)).await
}

/// What the usage line says that a command takes.
fn kind(usage: &str) -> &'static str {
    let has = |word: &str| usage.split(['[', ']', ' ', ':', '|']).any(|part| part == word);
    match () {
        () if has("CONTAINER") => "containers",
        () if has("IMAGE") || has("SOURCE_IMAGE") || usage.contains("NAME[:TAG") => "images",
        () if has("NETWORK") => "networks",
        // Volumes come with their snapshots where those may be meant.
        () if usage.contains("VOLUME@SNAPSHOT") => "snapshots",
        () if usage.contains("VOLUME[@SNAPSHOT]") => "volumes and snapshots",
        () if has("VOLUME") => "volumes",
        () => "",
    }
}

/// The names of the engine's things. No engine is started for a question.
async fn things(app: &App, kind: &str) -> Vec<String> {
    let Ok(client) = app.bare_client() else { return Vec::new() };
    if client.negotiate().await.is_err() {
        return Vec::new();
    }
    let path = match kind {
        "containers" => "/containers/json",
        "images" => "/images/json",
        "networks" => "/networks",
        "volumes" | "snapshots" | "volumes and snapshots" => "/volumes",
        _ => return Vec::new(),
    };
    let request = client.get(path).query_if(kind == "containers", "all");
    let Ok(response) = request.send().await else { return Vec::new() };
    let Ok(answer) = response.json::<Json>().await else { return Vec::new() };
    let list = if path == "/volumes" { &answer["Volumes"] } else { &answer };
    let names = array(list).iter().flat_map(|item| match kind {
        "containers" => texts(&item["Names"]).into_iter().map(|name| name.trim_start_matches('/')).collect(),
        "images" => texts(&item["RepoTags"]),
        "snapshots" => Vec::new(),
        _ => vec![text(&item["Name"])],
    });
    let mut names: Vec<String> =
        names.filter(|name| !name.is_empty() && *name != "<none>:<none>").map(str::to_owned).collect();
    if kind.ends_with("snapshots") {
        let of = |item: &Json| -> Vec<String> {
            texts(&item["Snapshots"]).iter().map(|own| format!("{}@{own}", text(&item["Name"]))).collect()
        };
        names.extend(array(list).iter().flat_map(of));
    }
    names
}

/// The words behind the global flags.
fn without_globals(words: &[String]) -> &[String] {
    let mut at = 0;
    while let Some(word) = words.get(at).filter(|word| word.starts_with('-')) {
        let flag = app::GLOBALS.iter().find(|flag| {
            *word == format!("--{}", flag.long) || flag.short.is_some_and(|short| *word == format!("-{short}"))
        });
        at += if flag.is_some_and(help::takes_value) { 2 } else { 1 };
    }
    words.get(at..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_commands_take() {
        for (usage, taken) in [
            ("[OPTIONS] CONTAINER [CONTAINER...]", "containers"),
            ("[OPTIONS] IMAGE [COMMAND] [ARG...]", "images"),
            ("SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "images"),
            ("[OPTIONS] NETWORK CONTAINER", "containers"),
            ("[OPTIONS] VOLUME [VOLUME...]", "volumes"),
            ("VOLUME@SNAPSHOT", "snapshots"),
            ("[OPTIONS] VOLUME[@SNAPSHOT] [NAME]", "volumes and snapshots"),
            ("[OPTIONS]", ""),
        ] {
            assert_eq!(kind(usage), taken, "{usage}");
        }
        let words: Vec<String> = ["-H", "x", "--debug", "ps", "-a"].map(str::to_owned).to_vec();
        assert_eq!(without_globals(&words), ["ps", "-a"]);
    }
}
