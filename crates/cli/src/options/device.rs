//! `--device`.

use serde_json::{Value, json};

use crate::failure::Outcome;

/// The API's device mappings and, for names of the container device interface, device requests.
pub(crate) fn parse(texts: &[String]) -> Outcome<(Vec<Value>, Vec<Value>)> {
    let (mut mappings, mut names) = (Vec::new(), Vec::new());
    for text in texts {
        if is_cdi(text) {
            names.push(text.clone());
        } else {
            mappings.extend(mapping(text)?);
        }
    }
    let requests = match names.is_empty() {
        true => Vec::new(),
        false => vec![json!({"Driver": "cdi", "Count": 0, "DeviceIDs": names, "Capabilities": null, "Options": null})],
    };
    Ok((mappings, requests))
}

/// `vendor/class=name`.
fn is_cdi(text: &str) -> bool {
    let Some((kind, name)) = text.split_once('=') else { return false };
    let Some((vendor, class)) = kind.split_once('/') else { return false };
    let plain = |part: &str| part.starts_with(|c: char| c.is_ascii_alphabetic());
    plain(vendor) && plain(class) && !name.is_empty()
}

fn mapping(text: &str) -> Outcome<Vec<Value>> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.len() > 3 || parts[0].is_empty() {
        return Err(format!("bad format for path: {text}").into());
    }
    let (source, target, permissions) = match parts.as_slice() {
        [source] => (*source, "", "rwm"),
        [source, mode] if is_mode(mode) => (*source, "", *mode),
        [source, target] => (*source, *target, "rwm"),
        [_, _, mode] if !is_mode(mode) => return Err(format!("bad mode specified: {mode}").into()),
        [source, target, mode] => (*source, *target, *mode),
        _ => return Err(format!("invalid device specification: {text}").into()),
    };
    let inside = if target.is_empty() { source } else { target };
    if !inside.starts_with('/') {
        return Err(format!("{inside} is not an absolute path").into());
    }
    let one = |source: &str, target: &str| json!({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": permissions});
    let Some(stem) = source.strip_suffix('*') else { return Ok(vec![one(source, inside)]) };
    if !target.is_empty() {
        return Err(format!("device with * suffix can't have dst: {text}").into());
    }
    Ok(matching(stem).iter().map(|path| one(path, path)).collect())
}

/// The paths that start with the stem, sorted.
fn matching(stem: &str) -> Vec<String> {
    let (dir, start) = stem.rsplit_once('/').unwrap_or(("", stem));
    let dir = if dir.is_empty() { "/" } else { dir };
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut paths: Vec<String> = names
        .filter(|name| name.starts_with(start))
        .map(|name| format!("{}/{name}", dir.trim_end_matches('/')))
        .collect();
    paths.sort();
    paths
}

/// Read, write, mknod: each at most once.
fn is_mode(text: &str) -> bool {
    let once = |letter: char| text.matches(letter).count() <= 1;
    !text.is_empty() && text.chars().all(|c| matches!(c, 'r' | 'w' | 'm')) && ['r', 'w', 'm'].into_iter().all(once)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let parse = |text: &str| {
            let (mappings, requests) = parse(&[text.to_owned()]).map_err(|failure| failure.text)?;
            Ok::<_, String>((mappings, requests.len()))
        };
        let (mappings, _) = parse("/dev/a:/dev/b:r").unwrap();
        let expected = json!({"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"});
        assert_eq!(mappings, [expected]);
        assert_eq!(parse("/dev/a:rw").unwrap().0[0]["PathInContainer"], "/dev/a");
        assert_eq!(parse("vendor.com/class=all").unwrap().1, 1);
        assert_eq!(parse("/dev/nul*").unwrap().0[0]["PathOnHost"], "/dev/null");
        assert_eq!(parse("/a:/b:c").unwrap_err(), "bad mode specified: c");
        assert_eq!(parse("a").unwrap_err(), "a is not an absolute path");
        assert_eq!(parse(":").unwrap_err(), "bad format for path: :");
    }
}
