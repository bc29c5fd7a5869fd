//! What `--help` shows.

use std::path::Path;

use crate::command::{COMMANDS, Command};
use crate::global;
use crate::words::{Flag, Takes};

/// How this program was called: by a link's name, or `wharf oci`.
pub(crate) fn called_as() -> String {
    let name = std::env::args_os().next().unwrap_or_default();
    match Path::new(&name).file_name().and_then(|name| name.to_str()) {
        Some(link @ ("runc" | "crun" | "wharf-oci")) => link.to_owned(),
        _ => "wharf oci".to_owned(),
    }
}

/// The whole program.
pub(crate) fn program() -> String {
    let name = called_as();
    let mut text = format!(
        "NAME:\n   {name} - Open Container Initiative runtime, with runc's command line\n\n\
        USAGE:\n   {name} [global options] command [command options] [arguments...]\n\nCOMMANDS:\n"
    );
    for command in COMMANDS {
        text += &format!("   {:<11} {}\n", command.name, command.help);
    }
    text += "\nGLOBAL OPTIONS:\n";
    text + &flags(global::FLAGS)
}

/// One command.
pub(crate) fn command(command: &Command) -> String {
    let name = called_as();
    let mut text =
        format!("NAME:\n   {name} {} - {}\n\nUSAGE:\n   {name} {}", command.name, command.help, command.name);
    if !command.flags.is_empty() {
        text += " [command options]";
    }
    text += &format!(" {}\n", command.usage);
    if !command.flags.is_empty() {
        text += "\nOPTIONS:\n";
        text += &flags(command.flags);
    }
    text
}

fn flags(all: &[Flag]) -> String {
    let names: Vec<String> = all
        .iter()
        .map(|flag| {
            let value = if flag.takes == Takes::Nothing { "" } else { " value" };
            let short = flag.short.map_or_else(String::new, |short| format!(", -{short}{value}"));
            format!("--{}{value}{short}", flag.name)
        })
        .collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    names.iter().zip(all).map(|(name, flag)| format!("   {name:<width$}  {}\n", flag.help)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_flag_is_told() {
        let all = program();
        assert!(COMMANDS.iter().all(|command| all.contains(command.name)));
        let exec = COMMANDS.iter().find(|command| command.name == "exec").unwrap();
        assert!(command(exec).contains("--env value, -e value"), "{}", command(exec));
    }
}
