//! From words to a command.

use crate::app::{App, GLOBALS, Globals, for_stderr};
use crate::command::{Arity, Entry};
use crate::commands::{GROUPS, TREE, swarm};
use crate::failure::Failure;
use crate::flag::Flag;
use crate::nearest::nearest;
use crate::parse::{self, Matches, ParseError};
use crate::{config, help, plugins};

/// The exit code of a command line that cannot be understood.
const USAGE: u8 = 125;

/// The version that we answer to the name of `docker`: the one whose command line this is.
pub(crate) const DOCKER_VERSION: &str = "28.3.3";

/// Runs the words and gives the exit code.
pub(crate) fn dispatch(program: &str, words: Vec<String>) -> u8 {
    match understand(program, words) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.text.is_empty() {
                eprintln!("{}", for_stderr(&failure.text));
            }
            failure.code
        }
    }
}

fn understand(program: &str, words: Vec<String>) -> Result<u8, Failure> {
    let all = words;
    let globals = match parse::parse(GLOBALS, false, &all) {
        Ok(matches) => matches,
        Err(error) => return Err(misused(&error, &format!("{program} [OPTIONS] COMMAND [ARG...]"), program)),
    };
    let app = App::new(program, Globals::of(&globals));
    if let [_, second, ..] = app.globals.hosts.as_slice() {
        let message = format!("invalid argument {second:?} for \"-H, --host\" flag: specify only one -H");
        let error = ParseError { message, nearest: None };
        return Err(misused(&error, &format!("{program} [OPTIONS] COMMAND [ARG...]"), program));
    }
    check_level(globals.text("log-level"))?;
    let mut words = globals.arguments.clone();
    let Some(first) = words.first().cloned() else {
        if globals.help_by_letter {
            eprintln!("{OLD_HELP}");
        }
        if globals.on("version") && !globals.help {
            app.say(&version_line(program))?;
            return Ok(0);
        }
        if globals.help {
            app.print(&root_help(&app))?;
        } else {
            // Nobody has asked for it.
            eprint!("{}", root_help(&app));
        }
        return Ok(0);
    };
    words.remove(0);
    let first = first.as_str();
    if first == "help" {
        return explain(&app, &words, &all);
    }
    // Asked for before the command, help is the command's all the same.
    if globals.help {
        words.insert(0, if globals.help_by_letter { "-h" } else { "--help" }.to_owned());
    }
    let rest = words.as_slice();
    if first == "build" && is_about_builds(rest) {
        return in_group(&app, "builder", rest);
    }
    if let Some(entry) = find("", first) {
        return run(&app, entry, rest);
    }
    if GROUPS.iter().any(|group| group.name == first) {
        return in_group(&app, first, rest);
    }
    if let Some(path) = plugins::find(&app, first) {
        return plugins::exec(&app, &path, &all);
    }
    if let Some(text) = swarm::help(program, first) {
        let asks = asks_for_help(rest).is_some() || globals.help;
        if asks || rest.is_empty() {
            if asks {
                app.print(&text)?
            } else {
                eprint!("{text}")
            }
            return Ok(0);
        }
        return run_command(&app, |app, matches| Box::pin(swarm::run(app, matches)), &globals);
    }
    // Docker's plugin for builds: without one its commands are ours, as far as we have them.
    if first == "buildx" {
        return in_group(&app, "builder", rest);
    }
    if let Some(word) = asks_for_help(rest) {
        if word == "-h" {
            app.say(OLD_HELP)?;
        }
        app.print(&root_help(&app))?;
        return Ok(0);
    }
    if globals.on("version") {
        app.say(&version_line(program))?;
        return Ok(0);
    }
    Err(unknown(program, first))
}

/// Whether what follows `build` asks about builds that were (`build history ls`, `build why-miss REF`): a build has one
/// argument, and where that is alone, a directory of this name is meant if there is one.
fn is_about_builds(words: &[String]) -> bool {
    let Some((first, more)) = words.split_first() else { return false };
    let has_second = more.first().is_some_and(|word| !word.starts_with('-'));
    matches!(first.as_str(), "history" | "why-miss") && (has_second || !std::path::Path::new(first).exists())
}

/// The word among those of a command that does not exist by which help is asked for.
fn asks_for_help(words: &[String]) -> Option<&str> {
    let options = words.iter().take_while(|word| *word != "--");
    options.map(String::as_str).find(|word| matches!(*word, "-h" | "--help"))
}

fn in_group(app: &App, group: &str, words: &[String]) -> Result<u8, Failure> {
    let matches = match parse::parse(&[], false, words) {
        Ok(matches) => matches,
        Err(error) => {
            return Err(misused(&error, &format!("{} {group}", app.program), &format!("{} {group}", app.program)));
        }
    };
    let text = help::group(&app.program, group);
    let Some((name, rest)) = matches.arguments.split_first() else {
        if matches.help {
            return show_help(app, &matches, &text);
        }
        eprint!("{text}");
        return Ok(0);
    };
    match find(group, name) {
        Some(entry) if matches.help => {
            let help = help::command(&app.program, entry, width());
            show_help(app, &matches, &help)
        }
        Some(entry) => run(app, entry, rest),
        None if matches.help => show_help(app, &matches, &text),
        None if asks_for_help(rest).is_some() => {
            let by_letter = asks_for_help(rest) == Some("-h");
            by_letter.then(|| app.say(OLD_HELP)).transpose()?;
            app.print(&text)?;
            Ok(0)
        }
        None => {
            let path = format!("{} {group}", app.program);
            let names = TREE.iter().filter(|entry| entry.group == group).map(|entry| entry.name);
            let hint = hint(nearest(name, names));
            // The one group that Docker writes out here.
            let rest = if group == "volume" { " COMMAND" } else { "" };
            Err(Failure::new(format!(
                "{}: unknown command: {path} {name}\n{hint}\nUsage:  {path}{rest}\n\nRun '{path} --help' for more information",
                app.program
            )))
        }
    }
}

const OLD_HELP: &str = "Flag shorthand -h has been deprecated, use --help";

fn show_help(app: &App, matches: &Matches, text: &str) -> Result<u8, Failure> {
    if matches.help_by_letter {
        app.say(OLD_HELP)?;
    }
    app.print(text)?;
    Ok(0)
}

fn check_level(level: &str) -> Result<(), Failure> {
    match level.to_lowercase().as_str() {
        "panic" | "fatal" | "error" | "warn" | "warning" | "info" | "debug" | "trace" => Ok(()),
        _ => Err(Failure::new(format!("Unable to parse logging level: {level}"))),
    }
}

fn unknown(program: &str, name: &str) -> Failure {
    let names = TREE.iter().filter(|entry| entry.group.is_empty() && !entry.hidden).map(|entry| entry.name);
    let hint = hint(nearest(name, names.chain(GROUPS.iter().map(|group| group.name))));
    Failure::new(format!(
        "{program}: unknown command: {program} {name}\n{hint}\nRun '{program} --help' for more information"
    ))
}

fn hint(word: Option<&str>) -> String {
    word.map(|word| format!("\nDid you mean this?\n\t{word}\n")).unwrap_or_default()
}

fn misused(error: &ParseError, usage: &str, path: &str) -> Failure {
    let hint = hint(error.nearest.as_deref());
    Failure {
        code: USAGE,
        text: format!("{}\n{hint}\nUsage:  {usage}\n\nRun '{path} --help' for more information", error.message),
    }
}

/// The entry with the name, or the alias.
pub(crate) fn find(group: &str, name: &str) -> Option<&'static Entry> {
    TREE.iter().find(|entry| entry.group == group && (entry.name == name || entry.aliases.contains(&name)))
}

/// `all`: the words with the global flags, for a plugin, which has help of its own.
fn explain(app: &App, words: &[String], all: &[String]) -> Result<u8, Failure> {
    let no_topic = |words: &[String]| Err(Failure::new(format!("unknown help topic: {}", words.join(" "))));
    let text = match words {
        [] => root_help(app),
        [group, rest @ ..] if GROUPS.iter().any(|known| known.name == group) => match rest {
            [] => help::group(&app.program, group),
            [name, rest @ ..] => match find(group, name) {
                Some(entry) if rest.is_empty() => help::command(&app.program, entry, width()),
                Some(_) => return no_topic(rest),
                None => return no_topic(&words[1..]),
            },
        },
        [name, rest @ ..] => match find("", name) {
            Some(entry) if rest.is_empty() => help::command(&app.program, entry, width()),
            Some(_) => return no_topic(rest),
            None => match plugins::find(app, name) {
                Some(path) => return plugins::exec(app, &path, all),
                None => return no_topic(words),
            },
        },
    };
    app.print(&text)?;
    Ok(0)
}

fn run(app: &App, entry: &'static Entry, words: &[String]) -> Result<u8, Failure> {
    let command = entry.command;
    let path = format!("{} {}", app.program, entry.path());
    let usage = help::usage_line(&app.program, entry);
    let matches = parse::parse(&command.all_flags(), command.interspersed, words)
        .map_err(|error| misused(&error, &usage, &path))?;
    matches.notes.iter().try_for_each(|note| app.say(note))?;
    if matches.help {
        return show_help(app, &matches, &help::command(&app.program, entry, width()));
    }
    if let Some(reason) = command.arity.refuse(matches.arguments.len()) {
        let see = match command.arity {
            Arity::AtLeast(_) => "See",
            _ => "Run",
        };
        return Err(Failure::new(format!(
            "{}: '{path}' {reason}\n\nUsage:  {usage}\n\n{see} '{path} --help' for more information",
            app.program
        )));
    }
    if !app.globals.hosts.is_empty() && app.globals.context.is_some() {
        return Err("conflicting options: cannot specify both --host and --context".into());
    }
    run_command(app, command.run, &matches)
}

fn run_command(app: &App, run: crate::command::Run, matches: &Matches) -> Result<u8, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(run(app, matches));
    // A thread may still wait for standard input: nobody waits for it.
    runtime.shutdown_background();
    done
}

fn version_line(program: &str) -> String {
    match program {
        "docker" => format!("Docker version {DOCKER_VERSION}, build wharf-{}", env!("CARGO_PKG_VERSION")),
        _ => format!("{program} version {}", env!("CARGO_PKG_VERSION")),
    }
}

fn root_help(app: &App) -> String {
    let dir = config::default_dir().display().to_string();
    let globals: Vec<Flag> = GLOBALS
        .iter()
        .map(|flag| {
            let default = match flag.long {
                "config" => dir.clone(),
                "tlscacert" => format!("{dir}/ca.pem"),
                "tlscert" => format!("{dir}/cert.pem"),
                "tlskey" => format!("{dir}/key.pem"),
                _ => return *flag,
            };
            // Help is printed once, and the program ends.
            flag.default(String::leak(default))
        })
        .collect();
    help::root(&app.program, &globals, &plugins::all(app), width())
}

/// The columns that help may use.
fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stdin()).map_or(80, |size| usize::from(size.ws_col));
    if columns == 0 { 79 } else { columns - 1 }
}
