//! Addresses of repositories, as Docker has them.

use crate::{GitError, Result};

/// A repository, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// As git takes it: `https://host/path.git`, `ssh://git@host/path`, `git@host:path`.
    pub remote: String,
    /// A branch, a tag, a reference or a commit; the repository's own choice when absent.
    pub reference: Option<String>,
    /// The directory that is the context.
    pub subdir: Option<String>,
    /// Keeps `.git`.
    pub keep_git_dir: Option<bool>,
    /// What the commit's name must begin with.
    pub checksum: Option<String>,
    /// Whether its submodules come with it; they do unless it says otherwise.
    pub submodules: bool,
}

const SCHEMES: [&str; 4] = ["http://", "https://", "git://", "ssh://"];

impl Repository {
    /// Whether `text` is the address of a repository and not that of a file: by its scheme, by `.git` at the end of its
    /// path, as `git@host:path`, or as `github.com/…`.
    pub fn is_address(text: &str) -> bool {
        let path = text.split(['#', '?']).next().unwrap_or_default();
        let web = path.starts_with("http://") || path.starts_with("https://");
        path.starts_with("git://")
            || path.starts_with("ssh://")
            || path.starts_with("github.com/")
            || is_scp_like(path)
            || (web && path.ends_with(".git"))
    }

    /// Takes an address apart: `REMOTE[?KEY=VALUE&…][#REF[:DIR]]`. The query's keys are BuildKit's: `ref`, `branch`,
    /// `tag`, `subdir`, `commit` (also `checksum`), `keep-git-dir`, `submodules`.
    ///
    /// # Errors
    /// For another transport, for a name that git would take for an option or a pattern, for keys that contradict each
    /// other.
    pub fn parse(text: &str) -> Result<Self> {
        let fail = |reason: String| Err(GitError::Address(format!("invalid git address {text:?}: {reason}")));
        let (before, fragment) = text.split_once('#').map_or((text, None), |(before, rest)| (before, Some(rest)));
        let (remote, query) = before.split_once('?').map_or((before, None), |(remote, rest)| (remote, Some(rest)));
        let remote = if remote.starts_with("github.com/") { format!("https://{remote}") } else { remote.to_owned() };
        if let Err(reason) = check_remote(&remote) {
            return fail(reason);
        }
        let mut own =
            Self { remote, reference: None, subdir: None, keep_git_dir: None, checksum: None, submodules: true };
        if let Some(fragment) = fragment {
            let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
            own.reference = some(reference);
            own.subdir = some(subdir);
        }
        for pair in query.into_iter().flat_map(|query| query.split('&')).filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = decoded(value);
            let into = match key {
                "ref" | "branch" | "tag" => &mut own.reference,
                "subdir" => &mut own.subdir,
                "commit" | "checksum" => &mut own.checksum,
                "keep-git-dir" | "submodules" => {
                    let on = match value.as_str() {
                        "" | "1" | "true" => true,
                        "0" | "false" => false,
                        other => return fail(format!("{key} is true or false, not {other:?}")),
                    };
                    if key == "submodules" {
                        own.submodules = on
                    } else {
                        own.keep_git_dir = Some(on)
                    }
                    continue;
                }
                other => return fail(format!("unexpected query key {other:?}")),
            };
            let value = match key {
                "branch" => format!("refs/heads/{value}"),
                "tag" => format!("refs/tags/{value}"),
                _ => value,
            };
            match into {
                Some(old) if *old != value => return fail(format!("it says {key} twice, and not the same")),
                _ => *into = some(&value),
            }
        }
        if let Some(reference) = &own.reference
            && let Err(reason) = check_reference(reference)
        {
            return fail(reason);
        }
        if let Some(sum) = &own.checksum
            && !(sum.len() >= 7 && is_hex(sum))
        {
            return fail(format!("{sum:?} is no name of a commit"));
        }
        if let Some(dir) = &own.subdir
            && (dir.split('/').any(|part| part == "..") || dir.contains('\0'))
        {
            return fail(format!("the directory {dir:?} leads out"));
        }
        Ok(own)
    }

    /// The commit, when the address names a whole one.
    pub fn commit(&self) -> Option<&str> {
        let whole = |text: &&str| matches!(text.len(), 40 | 64) && is_hex(text);
        self.checksum.as_deref().filter(whole).or_else(|| self.reference.as_deref().filter(whole))
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

pub(crate) fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// `user@host:path`.
fn is_scp_like(text: &str) -> bool {
    let Some((before, path)) = text.split_once(':') else { return false };
    let Some((user, host)) = before.split_once('@') else { return false };
    let plain = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    plain(user) && plain(host) && !path.is_empty() && !path.starts_with("//")
}

/// Only what git fetches over a network, and nothing that it, or `ssh`, would take for an option.
fn check_remote(remote: &str) -> std::result::Result<(), String> {
    if remote.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
        return Err("it has control characters or blanks".into());
    }
    if is_scp_like(remote) {
        let dash = remote.starts_with('-') || remote.contains("@-") || remote.contains(":-");
        return if dash { Err("a part of it begins with a dash".into()) } else { Ok(()) };
    }
    let Some(rest) = SCHEMES.iter().find_map(|scheme| remote.strip_prefix(scheme)) else {
        return Err("only http, https, git and ssh are permitted".into());
    };
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = authority.rsplit('@').next().unwrap_or_default();
    if host.is_empty() || path.is_empty() {
        return Err("it names no host and repository".into());
    }
    if host.starts_with('-') || authority.starts_with('-') || path.starts_with('-') {
        return Err("a part of it begins with a dash".into());
    }
    Ok(())
}

/// git-check-ref-format(1), as far as it matters here: nothing that is an option, a pattern, a range or a refspec.
fn check_reference(text: &str) -> std::result::Result<(), String> {
    let strange = |c: char| c.is_ascii_control() || " ~^:?*[\\+".contains(c);
    if text.starts_with('-') || text.contains(strange) || text.contains("..") || text.contains("@{") {
        return Err(format!("{text:?} is no name of a branch, tag or commit"));
    }
    Ok(())
}

/// `%2F` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, more @ ..] = rest {
        let escaped = (*first == b'%').then(|| more.get(..2)).flatten();
        let byte = escaped.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_files() {
        for repository in [
            "git@x:y",
            "https://example.org/a.git#main:dir",
            "https://example.org/a.git?ref=x",
            "github.com/a/b",
            "git://x/y",
            "ssh://git@x/y",
        ] {
            assert!(Repository::is_address(repository), "{repository}");
        }
        for other in ["https://example.org/context.tar.gz", "a.git", "./x", "ext::sh -c x", "file:///x.git", "/a:b"] {
            assert!(!Repository::is_address(other), "{other}");
        }
    }

    #[test]
    fn parts_of_an_address() {
        let parse = |text| Repository::parse(text).unwrap();
        let one = parse("https://example.org/a.git#main:sub/dir");
        assert_eq!((one.remote.as_str(), one.reference.as_deref()), ("https://example.org/a.git", Some("main")));
        assert_eq!((one.subdir.as_deref(), one.submodules, one.keep_git_dir), (Some("sub/dir"), true, None));
        let two = parse("git@example.org:a/b?tag=v1&subdir=x%2Fy&keep-git-dir=1&submodules=false&commit=0123abc");
        assert_eq!((two.remote.as_str(), two.reference.as_deref()), ("git@example.org:a/b", Some("refs/tags/v1")));
        assert_eq!((two.subdir.as_deref(), two.keep_git_dir, two.submodules), (Some("x/y"), Some(true), false));
        assert_eq!(two.checksum.as_deref(), Some("0123abc"));
        assert_eq!(parse("github.com/a/b#:d").remote, "https://github.com/a/b");
        assert_eq!(parse("git://x/y").commit(), None);
        let commit = "a".repeat(40);
        assert_eq!(parse(&format!("git://x/y#{commit}")).commit(), Some(commit.as_str()));
    }

    #[test]
    fn nothing_becomes_an_option_or_another_transport() {
        for bad in [
            "ext::sh -c touch% /x",
            "file:///etc",
            "/local/path.git",
            "ssh://-oProxyCommand=x/y",
            "ssh://a@-oProxyCommand=x/y",
            "git@-x:y",
            "https://",
            "https://x",
            "git://x/y#--upload-pack=x",
            "git://x/y#a:../b",
            "git://x/y#a..b",
            "git://x/y#+a",
            "git://x/y?ref=-x",
            "git://x/y?nope=1",
            "git://x/y?ref=a#b",
            "git://x/y?keep-git-dir=maybe",
            "git://x/y?commit=zzzzzzz",
            "git://x/y\nz",
        ] {
            assert!(Repository::parse(bad).is_err(), "{bad}");
        }
    }
}
