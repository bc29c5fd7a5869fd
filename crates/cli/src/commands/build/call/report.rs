//! Answers as BuildKit shows them.

use std::fmt::Write as _;

use wharf_dockerfile::{Lint, Outline, OutlineArgument, OutlineNeed, Target};

use crate::table;

pub(super) fn lint_text(file: &str, text: &str, lint: &Lint) -> String {
    match (lint.warnings.len(), &lint.failure) {
        (0, Some(_)) => String::new(),
        (0, None) => "Check complete, no warnings found.\n".into(),
        (1, _) => format!("Check complete, 1 warning has been found!\n{}", lint.text(file, text)),
        (count, _) => format!("Check complete, {count} warnings have been found!\n{}", lint.text(file, text)),
    }
}

pub(super) fn outline_text(outline: &Outline) -> String {
    let mut text = String::new();
    for (title, value) in [("TARGET", outline.name.as_deref()), ("DESCRIPTION", outline.description.as_deref())] {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            let _ = writeln!(text, "{title}:\t{value}");
        }
    }
    if !text.is_empty() {
        text = table::align_with(&text, 0, 1);
    }
    let mut section = |header: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}{}", table::align_with(&format!("{header}\n{}", lines.join("\n")), 0, 3));
        }
    };
    let one = |argument: &OutlineArgument| {
        let description = argument.description.as_deref().unwrap_or_default();
        format!("{}\t{}\t{description}", argument.name, argument.value.as_deref().unwrap_or_default())
    };
    section("BUILD ARG\tVALUE\tDESCRIPTION", outline.arguments.iter().map(one).collect());
    for (header, all) in [("SECRET\tREQUIRED", &outline.secrets), ("SSH\tREQUIRED", &outline.agents)] {
        let one = |need: &OutlineNeed| format!("{}\t{}", need.name, if need.required { "true" } else { "" });
        section(header, all.iter().map(one).collect());
    }
    text
}

pub(super) fn targets_text(targets: &[Target]) -> String {
    let one = |target: &Target| {
        let name = [target.name.as_str(), if target.default { "(default)" } else { "" }].join(" ");
        format!("{}\t{}", name.trim(), target.description.as_deref().unwrap_or_default())
    };
    let lines: Vec<String> = targets.iter().map(one).collect();
    format!("{}\n", table::align_with(&format!("TARGET\tDESCRIPTION\n{}", lines.join("\n")), 0, 1))
}
