//! `docker completion`, and the words that its script asks for.

use serde_json::Value as Json;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::{GROUPS, TREE};
use crate::dispatch::find;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::{array, text, texts};
use crate::parse::Matches;
use crate::{app, help, plugins};

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

/// What is written behind the words, as cobra's scripts have it: docker's own, where they are installed, work with this program.
/// No blank follows the word.
const NO_SPACE: u32 = 2;
/// No file is meant.
const NO_FILES: u32 = 4;

const BASH: &str = r#"# bash completion for PROGRAM
_PROGRAM() {
    local IFS=$'\n' line=${COMP_LINE:0:COMP_POINT} word current tail breaks directive i
    local -a words=() found=()
    # The shell takes words apart at `:`, `=` and `@`: what no blank parts is one.
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i == 0)) || [[ $line == [[:blank:]]* ]]; then
            line=${line#"${line%%[![:blank:]]*}"}
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        line=${line#"$word"}
    done
    current=${words[${#words[@]} - 1]} tail=$current breaks=${COMP_WORDBREAKS//[^:=@]/}
    [[ $breaks ]] && tail=${current##*[$breaks]}
    mapfile -t found < <(PROGRAM __complete -- "${words[@]:1}" 2>/dev/null)
    ((${#found[@]})) || return
    directive=${found[${#found[@]} - 1]#:}
    unset "found[${#found[@]} - 1]"
    # What is before the last break is on the line already, and stays.
    COMPREPLY=("${found[@]#"${current%"$tail"}"}")
    if ! ((directive & 4)); then
        # As a file's name only what is one is quoted.
        ((${#COMPREPLY[@]})) || compopt -o filenames
        mapfile -t found < <(compgen -f -- "$tail")
        COMPREPLY+=("${found[@]}")
    fi
    ((directive & 2)) && compopt -o nospace
}
complete -F _PROGRAM PROGRAM
"#;

const ZSH: &str = r#"#compdef PROGRAM
_PROGRAM() {
    local -a found
    local directive
    found=(${(f)"$(PROGRAM __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)"})
    (( ${#found} )) || return 1
    directive=${found[-1]#:}
    found[-1]=()
    if (( directive & 2 )); then
        compadd -S '' -a found
    else
        compadd -a found
    fi
    if (( ! (directive & 4) )); then
        [[ $PREFIX == --*=* ]] && compset -P '*='
        _files
    fi
}
compdef _PROGRAM PROGRAM
"#;

const FISH: &str = r#"# fish completion for PROGRAM
function __PROGRAM_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (PROGRAM __complete -- $words[2..-1] 2>/dev/null)
    set -q found[1]; or return
    set -l directive (string replace : '' -- $found[-1])
    set -e found[-1]
    if set -q found[1]
        printf '%s\n' $found
    end
    if test (math "floor($directive / 4) % 2") -eq 0
        __fish_complete_path (commandline -ct)
    end
end
complete -c PROGRAM -f -a '(__PROGRAM_complete)'
"#;

/// Words that may come, and whether files may.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    words: Vec<String>,
    files: bool,
}

impl From<Vec<String>> for Found {
    fn from(words: Vec<String>) -> Self {
        Self { words, files: false }
    }
}

impl Found {
    fn files() -> Self {
        Self { words: Vec::new(), files: true }
    }
}

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
    if let Some((flag, value)) = current.split_once('=').filter(|(flag, _)| flag.starts_with("--")) {
        let found = candidates(app, &[before, &[flag.to_owned()]].concat(), value).await;
        return print(app, found, value, &format!("{flag}="));
    }
    let found = candidates(app, before, current).await;
    print(app, found, current, "")
}

/// Writes those that begin with what is there already, each with `prefix` before it, and what else the shell is to do.
fn print(app: &App, found: Found, current: &str, prefix: &str) -> Outcome<u8> {
    let mut words: Vec<String> = found.words.into_iter().filter(|word| word.starts_with(current)).collect();
    words.sort();
    words.dedup();
    let is_open = |word: &String| word.ends_with(['=', ':', ',']);
    let open = if !words.is_empty() && words.iter().all(is_open) { NO_SPACE } else { 0 };
    let directive = open | if found.files { 0 } else { NO_FILES };
    let mut text: String = words.iter().map(|word| format!("{prefix}{word}\n")).collect();
    text.push_str(&format!(":{directive}\n"));
    app.print(&text)?;
    Ok(0)
}

async fn candidates(app: &App, before: &[String], current: &str) -> Found {
    let words = without_globals(before);
    let owned = |words: Vec<&str>| words.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let (group, rest) = match words.split_first() {
        None if current.starts_with('-') => {
            return app::GLOBALS.iter().map(|flag| format!("--{}", flag.long)).collect::<Vec<_>>().into();
        }
        None => {
            let commands = TREE.iter().filter(|entry| entry.group.is_empty() && !entry.hidden);
            let groups = GROUPS.iter().filter(|group| !group.hidden).map(|group| group.name);
            let mut all = owned(commands.map(|entry| entry.name).chain(groups).collect());
            all.extend(
                plugins::all(app).into_iter().filter(|plugin| plugin.metadata.is_ok()).map(|plugin| plugin.name),
            );
            return all.into();
        }
        Some((first, _))
            if find("", first).is_none()
                && GROUPS.iter().all(|group| group.name != first)
                && let Some(path) = plugins::find(app, first) =>
        {
            let (words, directive) = plugins::complete(app, &path, &[words, &[current.to_owned()]].concat());
            return Found { words, files: directive & NO_FILES == 0 };
        }
        Some((first, rest)) if find("", first).is_none() => (first.as_str(), rest),
        Some(_) => ("", words),
    };
    let Some((name, arguments)) = rest.split_first() else {
        return owned(TREE.iter().filter(|e| e.group == group && !e.hidden).map(|entry| entry.name).collect()).into();
    };
    let Some(entry) = find(group, name) else { return Found::default() };
    let flags = entry.command.all_flags();
    if current.starts_with('-') {
        return flags
            .iter()
            .filter(|flag| !flag.hidden)
            .map(|flag| format!("--{}", flag.long))
            .collect::<Vec<_>>()
            .into();
    }
    // A flag in front that waits for its value.
    if let Some(last) = arguments.last() {
        let waiting = flags.iter().find(|flag| {
            help::takes_value(flag)
                && (*last == format!("--{}", flag.long) || flag.short.is_some_and(|short| *last == format!("-{short}")))
        });
        if let Some(flag) = waiting {
            return match flag.long {
                "network" | "net" => things(app, "networks").await.into(),
                "volumes-from" | "link" => things(app, "containers").await.into(),
                "volume" => Found { words: things(app, "volumes").await, files: true },
                long if FILES.contains(&long) => Found::files(),
                long => owned(values(name, long).to_vec()).into(),
            };
        }
    }
    let kind = kind(entry.command.usage);
    let own = operands(&flags, arguments);
    // Behind the image, and behind an exec's container, is what the container knows.
    if own > 0 && (matches!(name.as_str(), "run" | "create" | "exec") && matches!(group, "" | "container")) {
        return Found::default();
    }
    let kind = match (kind, name.as_str()) {
        ("containers", "exec" | "attach" | "stop" | "kill" | "pause" | "top" | "port" | "stats") => {
            "running containers"
        }
        ("containers", "start") => "ended containers",
        ("containers", "unpause") => "paused containers",
        (kind, _) => kind,
    };
    let mut words = things(app, kind).await;
    words.retain(|word| !arguments.contains(word));
    if name == "cp" {
        words.iter_mut().for_each(|word| word.push(':'));
    }
    Found { words, files: takes_files(entry.command.usage) }
}

/// Flags whose value is a file.
const FILES: &[&str] = &[
    "cidfile",
    "config",
    "env-file",
    "file",
    "iidfile",
    "input",
    "key",
    "label-file",
    "metadata-file",
    "out",
    "output",
    "tlscacert",
    "tlscert",
    "tlskey",
];

/// Whether the usage line names a file among what the command takes.
fn takes_files(usage: &str) -> bool {
    usage
        .split(['[', ']', ' ', '|', '\n'])
        .any(|word| matches!(word, "PATH" | "FILE" | "file" | "SRC_PATH" | "DEST_PATH"))
}

/// How many words are no flags, and no values of flags.
fn operands(flags: &[Flag], words: &[String]) -> usize {
    let (mut count, mut skip) = (0, false);
    for word in words {
        if std::mem::take(&mut skip) {
            continue;
        }
        match word.strip_prefix('-') {
            None => count += 1,
            Some(_) => {
                skip = flags.iter().any(|flag| {
                    help::takes_value(flag)
                        && (*word == format!("--{}", flag.long)
                            || flag.short.is_some_and(|short| *word == format!("-{short}")))
                });
            }
        }
    }
    count
}

/// What may stand behind a flag, where that is a closed list or begins with one.
fn values(command: &str, flag: &str) -> &'static [&'static str] {
    match (command, flag) {
        (_, "restart") => &["always", "no", "on-failure", "unless-stopped"],
        (_, "pull") => &["always", "missing", "never"],
        (_, "log-driver") => &["fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"],
        (_, "log-level") => &["debug", "error", "fatal", "info", "warn"],
        (_, "signal" | "stop-signal") => SIGNALS,
        (_, "cap-add" | "cap-drop") => CAPABILITIES,
        (_, "ipc") => &["container:", "host", "none", "private", "shareable"],
        (_, "pid") => &["container:", "host"],
        (_, "uts") => &["host"],
        (_, "cgroupns") => &["host", "private"],
        (_, "userns") => &["auto", "host"],
        (_, "mount") => &["type=bind,", "type=image,", "type=tmpfs,", "type=volume,"],
        (_, "security-opt") => {
            &["apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined", "writable-cgroups="]
        }
        (_, "health-on-failure") => &["kill", "none", "restart", "stop"],
        (_, "progress") => &["auto", "plain", "quiet", "rawjson", "tty"],
        (_, "format") => &["json", "table "],
        ("ps" | "ls", "filter") => &[
            "ancestor=",
            "annotation=",
            "before=",
            "dangling=",
            "driver=",
            "exited=",
            "expose=",
            "health=",
            "id=",
            "label=",
            "name=",
            "network=",
            "publish=",
            "reference=",
            "since=",
            "status=",
            "until=",
            "volume=",
        ],
        ("images", "filter") => &["before=", "dangling=", "label=", "reference=", "since=", "until="],
        ("events", "filter") => {
            &["container=", "daemon=", "event=", "image=", "label=", "network=", "scope=", "type=", "volume="]
        }
        ("prune", "filter") => &["all=", "label!=", "label=", "until="],
        _ => &[],
    }
}

/// signal(7), those that are sent to containers.
const SIGNALS: &[&str] = &[
    "SIGABRT", "SIGALRM", "SIGCONT", "SIGHUP", "SIGINT", "SIGKILL", "SIGPIPE", "SIGPWR", "SIGQUIT", "SIGSTOP",
    "SIGTERM", "SIGTSTP", "SIGUSR1", "SIGUSR2", "SIGWINCH",
];

/// capabilities(7).
const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

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
        kind if kind.ends_with("containers") => "/containers/json",
        "images" => "/images/json",
        "networks" => "/networks",
        "volumes" | "snapshots" | "volumes and snapshots" => "/volumes",
        _ => return Vec::new(),
    };
    let request = client.get(path).query_if(path == "/containers/json", "all");
    let Ok(response) = request.send().await else { return Vec::new() };
    let Ok(answer) = response.json::<Json>().await else { return Vec::new() };
    let list = if path == "/volumes" { &answer["Volumes"] } else { &answer };
    let fits = |item: &&Json| match kind {
        "running containers" => matches!(text(&item["State"]), "running" | "paused" | "restarting"),
        "paused containers" => text(&item["State"]) == "paused",
        "ended containers" => matches!(text(&item["State"]), "created" | "exited"),
        _ => true,
    };
    let names = array(list).iter().filter(fits).flat_map(|item| match kind {
        kind if kind.ends_with("containers") => {
            texts(&item["Names"]).into_iter().map(|name| name.trim_start_matches('/')).collect()
        }
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
        for (usage, files) in [
            ("[OPTIONS] PATH | URL | -", true),
            ("[OPTIONS] file|URL|- [REPOSITORY[:TAG]]", true),
            ("[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", true),
            ("[OPTIONS] CONTAINER [CONTAINER...]", false),
        ] {
            assert_eq!(takes_files(usage), files, "{usage}");
        }
        let words: Vec<String> = ["-H", "x", "--debug", "ps", "-a"].map(str::to_owned).to_vec();
        assert_eq!(without_globals(&words), ["ps", "-a"]);
        let run = find("container", "run").unwrap().command.all_flags();
        for (line, count) in [("-d --name x", 0), ("-it --name=x bb", 1), ("-e A bb sh", 2), ("-p", 0)] {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            assert_eq!(operands(&run, &words), count, "{line}");
        }
    }
}
