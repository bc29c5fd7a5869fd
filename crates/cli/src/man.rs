//! Manual pages, made of the same data as `--help` (man-pages(7), groff_man(7)).

use std::fmt::Write as _;

use crate::app;
use crate::command::Entry;
use crate::commands::{GROUPS, TREE};
use crate::flag::{Flag, Shape};
use crate::help;

/// A page and the name of its file: `wharf-container-run.1`.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) file: String,
    pub(crate) text: String,
}

/// All pages: of the program, of each group, and of each command by each of its places. An alias sends to its command.
pub(crate) fn pages(program: &str) -> Vec<Page> {
    let mut all = vec![root(program)];
    all.extend(GROUPS.iter().filter(|group| !group.hidden).map(|group| {
        let name = format!("{program}-{}", group.name);
        let entries = TREE.iter().filter(|entry| entry.group == group.name);
        let text = listing(&name, group.about, &format!("{program} {} COMMAND", group.name), program, entries, &[]);
        Page { file: format!("{name}.1"), text }
    }));
    for entry in TREE.iter().filter(|entry| !entry.hidden) {
        let name = name_of(program, &entry.path());
        all.push(Page { file: format!("{name}.1"), text: command(program, entry) });
        let place = |alias: &&str| {
            if entry.group.is_empty() { (*alias).to_owned() } else { format!("{} {alias}", entry.group) }
        };
        for alias in entry.aliases.iter().map(|alias| name_of(program, &place(alias))) {
            all.push(Page { file: format!("{alias}.1"), text: format!(".so man1/{name}.1\n") });
        }
    }
    all.sort_by(|a, b| a.file.cmp(&b.file));
    // A command may be called by one path in two ways.
    all.dedup_by(|a, b| a.file == b.file);
    all
}

fn name_of(program: &str, path: &str) -> String {
    format!("{program}-{}", path.replace(' ', "-"))
}

fn root(program: &str) -> Page {
    let top = TREE.iter().filter(|entry| entry.group.is_empty());
    let usage = format!("{program} [OPTIONS] COMMAND [ARG...]");
    let mut text = listing(program, "A self-sufficient runtime for containers", &usage, program, top, app::GLOBALS);
    let groups = GROUPS.iter().filter(|group| !group.hidden);
    text.push_str(".SH MANAGEMENT COMMANDS\n");
    for group in groups {
        term(&mut text, &bold(&format!("{program}-{}(1)", group.name)), group.about);
    }
    Page { file: format!("{program}.1"), text }
}

fn head(text: &mut String, name: &str, about: &str, usage: &str) {
    let _ = writeln!(
        text,
        ".TH {} 1 \"\" \"wharf {}\" \"User Commands\"",
        quoted(&name.to_uppercase()),
        env!("CARGO_PKG_VERSION")
    );
    let _ = writeln!(text, ".SH NAME\n{} \\- {}", escaped(name), line(about));
    text.push_str(".SH SYNOPSIS\n");
    for (index, form) in usage.lines().enumerate() {
        let _ = writeln!(text, "{}.B {}", if index > 0 { ".br\n" } else { "" }, quoted(form.trim()));
    }
}

fn listing<'a>(
    name: &str,
    about: &str,
    usage: &str,
    program: &str,
    entries: impl Iterator<Item = &'a Entry>,
    flags: &[Flag],
) -> String {
    let mut text = String::new();
    head(&mut text, name, about, usage);
    options(&mut text, flags);
    text.push_str(".SH COMMANDS\n");
    let mut entries: Vec<&Entry> = entries.filter(|entry| !entry.hidden).collect();
    entries.sort_by_key(|entry| entry.name);
    for entry in entries {
        term(&mut text, &bold(&format!("{}(1)", name_of(program, &entry.path()))), entry.command.about);
    }
    text
}

fn command(program: &str, entry: &Entry) -> String {
    let mut text = String::new();
    let usage = help::usage_line(program, entry).replace('\t', "");
    head(&mut text, &name_of(program, &entry.path()), entry.command.about, &usage);
    let _ = writeln!(text, ".SH DESCRIPTION\n{}", paragraph(entry.command.long.unwrap_or(entry.command.about)));
    options(&mut text, &entry.command.all_flags());
    let same: Vec<String> = help::names(entry).iter().map(|name| escaped(&format!("{program} {name}"))).collect();
    if same.len() > 1 {
        let _ = writeln!(text, ".SH ALIASES\n{}", same.join(", "));
    }
    let above = if entry.group.is_empty() { program.to_owned() } else { name_of(program, entry.group) };
    let _ = writeln!(text, ".SH SEE ALSO\n{}", bold(&format!("{above}(1)")));
    text
}

fn options(text: &mut String, flags: &[Flag]) {
    let mut shown = flags.iter().filter(|flag| !flag.hidden).peekable();
    if shown.peek().is_none() {
        return;
    }
    text.push_str(".SH OPTIONS\n");
    for flag in shown {
        let short = flag.short.map(|short| format!("{}, ", bold(&format!("-{short}")))).unwrap_or_default();
        let value = match flag.shape {
            Shape::Switch => String::new(),
            _ => format!("=\\fI{}\\fP", escaped(flag.label)),
        };
        let usage = format!("{}{}", flag.usage, help::default(flag));
        term(text, &format!("{short}{}{value}", bold(&format!("--{}", flag.long))), &usage);
    }
}

fn term(text: &mut String, tag: &str, about: &str) {
    let _ = writeln!(text, ".TP\n{tag}\n{}", paragraph(about));
}

fn bold(word: &str) -> String {
    format!("\\fB{}\\fP", escaped(word))
}

/// Text of several lines, each its own.
fn paragraph(text: &str) -> String {
    text.lines().map(guarded).collect::<Vec<_>>().join("\n.br\n")
}

fn line(text: &str) -> String {
    escaped(&text.replace('\n', " "))
}

/// A line that is no request, whatever it begins with.
fn guarded(text: &str) -> String {
    let escaped = escaped(text);
    if escaped.starts_with(['.', '\'']) { format!("\\&{escaped}") } else { escaped }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}

/// An argument of a request.
fn quoted(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\(dq"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let all = pages("wharf");
        let page = |file: &str| &all.iter().find(|page| page.file == file).unwrap().text;
        let run = page("wharf-container-run.1");
        assert!(run.starts_with(".TH \"WHARF\\-CONTAINER\\-RUN\" 1 "), "{run}");
        assert!(run.contains(".TP\n\\fB\\-d\\fP, \\fB\\-\\-detach\\fP\nRun container in background"), "{run}");
        assert!(run.contains("\\fB\\-\\-secret\\fP=\\fIsecret\\fP"), "{run}");
        assert_eq!(page("wharf-container-remove.1"), ".so man1/wharf-container-rm.1\n");
        assert!(page("wharf.1").contains("\\fBwharf\\-system(1)\\fP"));
        for entry in TREE.iter().filter(|entry| !entry.hidden) {
            let file = format!("{}.1", name_of("wharf", &entry.path()));
            assert!(all.iter().any(|page| page.file == file), "{file}");
        }
        for page in &all {
            // No line of text is taken for a request.
            let requests = [".TH ", ".SH ", ".TP", ".B ", ".br", ".so "];
            let bad = page
                .text
                .lines()
                .find(|line| line.starts_with('.') && !requests.iter().any(|known| line.starts_with(known)));
            assert!(bad.is_none() && !page.text.contains("\n'"), "{}: {bad:?}", page.file);
        }
    }
}
