//! `--help`, laid out as Docker's.

use std::fmt::Write as _;

use crate::command::{Command, Entry, Section};
use crate::commands::{GROUPS, TREE};
use crate::flag::{Flag, Shape};
use crate::plugins::Plugin;

/// The usage line of a command: `docker container ls [OPTIONS]`.
pub(crate) fn usage_line(program: &str, entry: &Entry) -> String {
    let path = entry.path();
    let mut forms =
        entry.command.usage.split('\n').map(|form| format!("{program} {path} {form}").trim_end().to_owned());
    let first = forms.next().unwrap_or_default();
    forms.fold(first, |text, form| text + "\n\t" + &form)
}

/// The help of one command.
pub(crate) fn command(program: &str, entry: &Entry, width: usize) -> String {
    let Command { about, long, .. } = *entry.command;
    let flags = entry.command.all_flags();
    let mut text = format!("Usage:  {}\n\n{}\n", usage_line(program, entry), long.unwrap_or(about));
    let names = names(entry);
    if names.len() > 1 {
        let names: Vec<_> = names.iter().map(|name| format!("{program} {name}")).collect();
        let _ = write!(text, "\nAliases:\n  {}\n", names.join(", "));
    }
    let shown: Vec<&Flag> = flags.iter().filter(|flag| !flag.hidden).collect();
    if !shown.is_empty() {
        text.push_str("\nOptions:\n");
        text.push_str(&options(&shown, width));
    }
    text
}

/// Every way to call the command: the group's names first, the short one last.
pub(crate) fn names(entry: &Entry) -> Vec<String> {
    let same = TREE.iter().filter(|other| std::ptr::eq(other.command, entry.command));
    let mut names = Vec::new();
    for other in same {
        names.push(other.path());
        for alias in other.aliases {
            names.push(if other.group.is_empty() { (*alias).to_owned() } else { format!("{} {alias}", other.group) });
        }
    }
    names.sort_by_key(|name| !name.contains(' '));
    names
}

/// The help of a group.
pub(crate) fn group(program: &str, name: &str) -> String {
    let about = GROUPS.iter().find(|group| group.name == name).map_or("", |group| group.about);
    let mut text = format!("Usage:  {program} {name} COMMAND\n\n{about}\n\nCommands:\n");
    let mut entries: Vec<_> = TREE.iter().filter(|entry| entry.group == name && !entry.hidden).collect();
    entries.sort_by_key(|entry| entry.name);
    for entry in entries {
        let _ = writeln!(text, "  {:<11} {}", entry.name, entry.command.about);
    }
    let _ = write!(text, "\nRun '{program} {name} COMMAND --help' for more information on a command.\n");
    text
}

/// Roles of the same program, which do not speak to an engine.
const OWN: [(&str, &str); 3] = [
    ("daemon", "Run the engine"),
    ("registry", "Serve a registry"),
    ("oci", "Run OCI bundles, as containerd, Podman and Docker ask it of a runtime"),
];

/// The help of the program.
pub(crate) fn root(program: &str, globals: &[Flag], plugins: &[Plugin], width: usize) -> String {
    let mut text = format!("Usage:  {program} [OPTIONS] COMMAND\n\nA self-sufficient runtime for containers\n");
    let mut common: Vec<_> = top().filter(|entry| entry.section != Section::Other).collect();
    common.sort_by_key(|entry| match entry.section {
        Section::Common(place) => place,
        Section::Other => u8::MAX,
    });
    let mut other: Vec<_> = top().filter(|entry| entry.section == Section::Other).collect();
    other.sort_by_key(|entry| entry.name);
    let column = plugins.iter().map(|plugin| plugin.name.len()).max().unwrap_or(0).max(COLUMN);
    let groups = GROUPS.iter().filter(|group| !group.hidden).map(|group| (group.name.to_owned(), group.about));
    // A plugin's star takes the blank behind the name, as Docker's does.
    let valid = plugins.iter().filter_map(|plugin| {
        let about = plugin.metadata.as_ref().ok()?.short_description.as_str();
        Some((format!("{}*", plugin.name), about))
    });
    let mut groups: Vec<_> = groups.chain(valid).collect();
    groups.sort_by(|one, other| one.0.trim_end_matches('*').cmp(other.0.trim_end_matches('*')));
    let invalid = plugins.iter().filter_map(|plugin| Some((&plugin.name, plugin.metadata.as_ref().err()?)));
    let invalid: Vec<_> = invalid.map(|(name, reason)| (name.as_str(), reason.as_str())).collect();
    let about = |entry: &'static Entry| (entry.name, entry.command.about);
    section(&mut text, column, "Common Commands", common.into_iter().map(about));
    section(&mut text, column, "Management Commands", groups.iter().map(|(name, about)| (name.as_str(), *about)));
    section(&mut text, column, "Commands", other.into_iter().map(about));
    if program != "docker" {
        section(&mut text, column, "Wharf Commands", OWN.into_iter());
    }
    if !invalid.is_empty() {
        section(&mut text, column, "Invalid Plugins", invalid.into_iter());
    }
    text.push_str("\nGlobal Options:\n");
    let shown: Vec<&Flag> = globals.iter().filter(|flag| !flag.hidden).collect();
    text.push_str(&options(&shown, width));
    let _ = write!(text, "\nRun '{program} COMMAND --help' for more information on a command.\n");
    if program == "docker" {
        text.push_str("\nFor more help on how to use Docker, head to https://docs.docker.com/go/guides/\n");
    }
    text
}

fn top() -> impl Iterator<Item = &'static Entry> {
    TREE.iter().filter(|entry| entry.group.is_empty() && !entry.hidden)
}

/// The least width of the column of names.
const COLUMN: usize = 11;

fn section<'a>(text: &mut String, column: usize, title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>) {
    let _ = write!(text, "\n{title}:\n");
    for (name, about) in rows {
        let name = format!("{name:<column$} ");
        // Where a star stands in the blank's place there is none.
        let name = if name.ends_with("* ") { name.trim_end() } else { name.as_str() };
        let _ = writeln!(text, "  {name}{about}");
    }
}

/// Flags in two columns, the right one wrapped as pflag wraps it.
fn options(flags: &[&Flag], width: usize) -> String {
    let lefts: Vec<String> = flags
        .iter()
        .map(|flag| {
            let short = flag.short.map_or("    ".to_owned(), |short| format!("-{short}, "));
            let label = if flag.label.is_empty() { String::new() } else { format!(" {}", flag.label) };
            format!("  {short}--{}{label}", flag.long)
        })
        .collect();
    let column = lefts.iter().map(|left| left.chars().count()).max().unwrap_or(0) + 3;
    let mut text = String::new();
    for (flag, left) in flags.iter().zip(&lefts) {
        let usage = format!("{}{}", flag.usage, default(flag));
        let _ = writeln!(text, "{left:<column$}{}", wrap(column, width, &usage));
    }
    text
}

/// What is said of a flag's default.
pub(crate) fn default(flag: &Flag) -> String {
    match (flag.default, flag.label) {
        ("", _) | ("false", "") => String::new(),
        (value, "string") => format!(" (default {value:?})"),
        (value, _) => format!(" (default {value})"),
    }
}

const NARROWEST: usize = 24;
const SLOP: usize = 5;

fn wrap(indent: usize, width: usize, text: &str) -> String {
    let (mut indent, mut room) = (indent, width.saturating_sub(indent));
    let mut wrapped = String::new();
    if room < NARROWEST {
        indent = 16;
        room = width.saturating_sub(indent);
        let _ = write!(wrapped, "\n{:indent$}", "");
    }
    let margin = format!("\n{:indent$}", "");
    if room < NARROWEST {
        return text.replace('\n', &wrapped);
    }
    let (line, mut rest) = wrap_line(room - SLOP, text);
    wrapped.push_str(&line.replace('\n', &margin));
    while !rest.is_empty() {
        let (line, after) = wrap_line(room - SLOP, rest);
        wrapped.push_str(&margin);
        wrapped.push_str(&line.replace('\n', &margin));
        rest = after;
    }
    wrapped
}

fn wrap_line(room: usize, text: &str) -> (&str, &str) {
    if room + SLOP > text.len() {
        return (text, "");
    }
    let head = text.get(..room).unwrap_or(text);
    let Some(at) = head.rfind([' ', '\t', '\n']).filter(|at| *at > 0) else { return (text, "") };
    match head.rfind('\n') {
        Some(newline) if newline > 0 && newline < at => (&text[..newline], &text[newline + 1..]),
        _ => (&text[..at], &text[at + 1..]),
    }
}

/// Whether the flag takes a value of its own, for completions.
pub(crate) fn takes_value(flag: &Flag) -> bool {
    flag.shape != Shape::Switch
}
