//! From words to a command.

use crate::app::{App, GLOBALS, Globals, for_stderr};
use crate::command::{Arity, Entry};
use crate::commands::{GROUPS, TREE};
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
    let globals = match parse::parse(GLOBALS, false, &words) {
        Ok(matches) => matches,
        Err(error) => return Err(misused(&error, &format!("{program} [OPTIONS] COMMAND [ARG...]"), program)),
    };
    let app = App::new(program, Globals::of(&globals));
    if globals.help {
        if globals.help_by_letter {
            eprintln!("{OLD_HELP}");
        }
        app.print(&root_help(program))?;
        return Ok(0);
    }
    check_level(globals.text("log-level"))?;
    if globals.on("version") {
        app.say(&version_line(program))?;
        return Ok(0);
    }
    let words = globals.arguments;
    let Some((first, rest)) = words.split_first() else {
        app.print(&root_help(program))?;
        return Ok(0);
    };
    if first == "help" {
        return explain(&app, rest);
    }
    if let Some(entry) = find("", first) {
        return run(&app, entry, rest);
    }
    if GROUPS.iter().any(|group| group.name == first) {
        return in_group(&app, first, rest);
    }
    if let Some(path) = plugins::find(&app, first) {
        return plugins::exec(&app, &path, &words);
    }
    // Docker's plugin for builds: without one its commands are ours, as far as we have them.
    if first == "buildx" {
        return in_group(&app, "builder", rest);
    }
    Err(unknown(program, first))
}

fn in_group(app: &App, group: &str, words: &[String]) -> Result<u8, Failure> {
    let matches = match parse::parse(&[], false, words) {
        Ok(matches) => matches,
        Err(error) => {
            return Err(misused(&error, &format!("{} {group}", app.program), &format!("{} {group}", app.program)));
        }
    };
    let text = help::group(&app.program, group);
    if matches.help {
        return show_help(app, &matches, &text);
    }
    let Some((name, rest)) = matches.arguments.split_first() else {
        eprint!("{text}");
        return Ok(0);
    };
    match find(group, name) {
        Some(entry) => run(app, entry, rest),
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

fn explain(app: &App, words: &[String]) -> Result<u8, Failure> {
    let text = match words {
        [] => root_help(&app.program),
        [name] if GROUPS.iter().any(|group| group.name == name) => help::group(&app.program, name),
        [name] => match find("", name) {
            Some(entry) => help::command(&app.program, entry, width()),
            None => return Err(Failure::new(format!("unknown help topic: {name}"))),
        },
        [command, extra, ..] if find("", command).is_some() => {
            return Err(Failure::new(format!("unknown help topic: {extra}")));
        }
        [group, name, ..] => match find(group, name) {
            Some(entry) => help::command(&app.program, entry, width()),
            None => return Err(Failure::new(format!("unknown help topic: {group} {name}"))),
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

fn root_help(program: &str) -> String {
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
    help::root(program, &globals, width())
}

/// The columns that help may use.
fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(std::io::stdin()).map_or(80, |size| usize::from(size.ws_col));
    if columns == 0 { 79 } else { columns - 1 }
}
