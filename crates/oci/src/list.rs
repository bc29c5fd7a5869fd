//! `list`: the containers of a root.

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::place;
use crate::state::Container;
use crate::words::Given;

const HEADINGS: [&str; 6] = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"];
/// Columns are as wide as runc's.
const WIDTH: usize = 12;
const GAP: usize = 3;

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let json = match given.value("format") {
        None | Some("table") => false,
        Some("json") => true,
        Some(_) => return Err(Failure::new("invalid format option")),
    };
    // One that was deleted meanwhile, or is not made yet, is left out.
    let containers = place::all(&global.root)?.into_iter().filter_map(|id| Container::open(global, &id).ok());
    if given.is("quiet") {
        let ids: String = containers.map(|container| format!("{}\n", container.place.id)).collect();
        return Ok(crate::print(&ids));
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let shown: Vec<Value> = containers
        .map(|container| {
            let owner = user(&users, container.record.owner);
            container.record.show(&container.place.id, container.status(), &owner)
        })
        .collect();
    if json {
        return Ok(crate::print(&format!("{}\n", Value::Array(shown))));
    }
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(shown.iter().map(|state| {
        ["id", "pid", "status", "bundle", "created", "owner"].map(|key| match &state[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        })
    }));
    Ok(crate::print(&table(&rows)))
}

fn table(rows: &[[String; 6]]) -> String {
    let width = |column: usize| {
        let widest = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (widest + GAP).max(WIDTH)
    };
    let widths: Vec<usize> = (0..6).map(width).collect();
    let line = |row: &[String; 6]| {
        let (last, cells) = row.split_last().map_or((String::new(), &[][..]), |(last, cells)| (last.clone(), cells));
        let start: String = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("{start}{last}\n")
    };
    rows.iter().map(line).collect()
}

/// A user's name on this host, or the number.
fn user(passwd: &str, uid: u32) -> String {
    let number = uid.to_string();
    let found = passwd.lines().find(|line| line.split(':').nth(2) == Some(number.as_str()));
    found.and_then(|line| line.split(':').next()).map_or_else(|| format!("#{uid}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_runc_s() {
        let row = ["c1", "2075", "created", "/bundles/b1", "now", "root"].map(str::to_owned);
        let text = table(&[HEADINGS.map(str::to_owned), row]);
        assert!(text.starts_with("ID          PID         STATUS      BUNDLE        CREATED     OWNER\n"), "{text}");
        assert!(text.contains("c1          2075        created     /bundles/b1   now         root\n"), "{text}");
    }

    #[test]
    fn users_have_names() {
        assert_eq!(user("root:x:0:0::/:/bin/sh\na:x:7:7::/:\n", 7), "a");
        assert_eq!(user("", 5), "#5");
    }
}
