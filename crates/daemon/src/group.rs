//! Groups of the host, read from its own file: a static binary must not call glibc's NSS.

/// The ID of a group by its name or number, if there is one.
pub(crate) fn id(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string("/etc/group").unwrap_or_default();
    find(&text, name).or_else(|| name.parse().ok())
}

/// A group that is asked for has to be there; the usual one need not.
///
/// # Errors
/// In dockerd's words.
pub(crate) fn asked(name: Option<String>) -> Result<Option<String>, String> {
    match name {
        Some(name) if !name.is_empty() && id(&name).is_none() => Err(format!("group {name} not found")),
        name => Ok(name),
    }
}

fn find(text: &str, name: &str) -> Option<u32> {
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| fields.len() >= 3 && fields[0] == name).and_then(|fields| fields[2].parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_group_is_found_by_name() {
        let text = "root:x:0:\ndocker:x:998:me\nbroken\n";
        assert_eq!(super::find(text, "docker"), Some(998));
        assert_eq!(super::find(text, "none"), None);
    }
}
