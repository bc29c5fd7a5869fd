//! Who may come in: an htpasswd file with bcrypt hashes, as `htpasswd -B` makes it.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::Semaphore;
use wharf_reference::{Digest, Hasher};

use crate::error::RegistryError;
use crate::log;

/// A bcrypt takes tens of milliseconds: so many at a time, that nobody gets the machine by guessing.
const AT_ONCE: usize = 2;
/// Passwords that were right, by user: not computed anew for each of the hundred requests of a push.
const MAX_KNOWN: usize = 1024;

type Users = HashMap<String, String>;

/// The passwords of a registry.
pub(crate) struct Passwords {
    path: PathBuf,
    users: Mutex<(Option<SystemTime>, Arc<Users>)>,
    known: Mutex<HashMap<String, Digest>>,
    /// Makes the digests of known passwords worthless outside of this process.
    pepper: [u8; 32],
    turns: Semaphore,
}

impl fmt::Debug for Passwords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passwords").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Passwords {
    /// Reads an htpasswd file.
    ///
    /// # Errors
    /// When it cannot be read, or has a line that is no `USER:HASH` with a bcrypt hash.
    pub(crate) fn open(path: &Path) -> Result<Self, RegistryError> {
        let users = Mutex::new((modified(path), Arc::new(read(path)?)));
        let mut pepper = [0; 32];
        getrandom::fill(&mut pepper).map_err(|error| RegistryError::System {
            action: "get random bytes",
            source: std::io::Error::other(error),
        })?;
        Ok(Self { path: path.to_owned(), users, known: Mutex::default(), pepper, turns: Semaphore::new(AT_ONCE) })
    }

    /// The user that an `Authorization` header is of, if the password is right.
    pub(crate) async fn user(&self, authorization: &str) -> Option<String> {
        let (user, password) = credentials(authorization)?;
        let users = self.users();
        let hash = users.get(&user);
        let mark = self.mark(&user, &password, hash.map_or("", String::as_str));
        if self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&user).is_some_and(|known| *known == mark) {
            return Some(user);
        }
        // A user who is not there takes as long as one who is.
        let (there, hash) = (hash.is_some(), hash.or_else(|| users.values().next())?.clone());
        let turn = self.turns.acquire().await.ok()?;
        let right = tokio::task::spawn_blocking(move || bcrypt::verify(password, &hash).unwrap_or(false)).await;
        drop(turn);
        if !there || !right.unwrap_or(false) {
            return None;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(user.clone(), mark);
        Some(user)
    }

    /// What is remembered of a right password. With the hash in it, it is forgotten when the password changes.
    fn mark(&self, user: &str, password: &str, hash: &str) -> Digest {
        let mut hasher = Hasher::new();
        for part in [&self.pepper[..], user.as_bytes(), password.as_bytes(), hash.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finish()
    }

    /// The users, as the file has them now. One that has become bad is not taken.
    fn users(&self) -> Arc<Users> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        let now = modified(&self.path);
        if now != users.0 {
            match read(&self.path) {
                Ok(read) => users.1 = Arc::new(read),
                Err(error) => {
                    log::note(format_args!("the passwords stay as they were: {}", wharf_report::chain(&error)))
                }
            }
            users.0 = now;
        }
        users.1.clone()
    }
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

fn read(path: &Path) -> Result<Users, RegistryError> {
    let text = fs::read_to_string(path).map_err(RegistryError::file("read", path))?;
    let mut users = Users::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong =
            |reason: &str| RegistryError::Passwords { path: path.to_owned(), line: at + 1, reason: reason.to_owned() };
        let (user, hash) = line.split_once(':').ok_or_else(|| wrong("it is no USER:HASH"))?;
        if user.is_empty() {
            return Err(wrong("it has no user"));
        }
        if !["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
            return Err(wrong("only bcrypt is safe enough; make the line with `htpasswd -B`"));
        }
        users.insert(user.to_owned(), hash.to_owned());
    }
    Ok(users)
}

/// The user and password in `Basic …` (RFC 7617).
fn credentials(authorization: &str) -> Option<(String, String)> {
    let (scheme, rest) = authorization.split_once(' ')?;
    let plain = scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(rest.trim()).ok()).flatten()?;
    let plain = String::from_utf8(plain).ok()?;
    let (user, password) = plain.split_once(':')?;
    // bcrypt ends at a zero byte.
    (!password.contains('\0')).then(|| (user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> String {
        format!("Basic {}", STANDARD.encode(text))
    }

    #[tokio::test]
    async fn only_the_right_password_comes_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        let line =
            |password: &str| format!("# users\nann:{}\n", bcrypt::hash(password, 4).unwrap().replacen("2b", "2y", 1));
        fs::write(&path, line("secret")).unwrap();
        let passwords = Passwords::open(&path).unwrap();
        for _ in 0..2 {
            assert_eq!(passwords.user(&header("ann:secret")).await.as_deref(), Some("ann"));
        }
        for bad in ["ann:Secret", "ann:", "bob:secret", "ann", ":secret", "ann:secret\0x"] {
            assert_eq!(passwords.user(&header(bad)).await, None, "{bad:?}");
        }
        assert_eq!(passwords.user("Bearer x").await, None);
        // A new password counts at once, and the old one no longer.
        fs::write(&path, line("other")).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(passwords.user(&header("ann:secret")).await, None);
        assert!(passwords.user(&header("ann:other")).await.is_some());
    }

    #[test]
    fn weak_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("htpasswd");
        for bad in ["ann", ":$2y$05$x", "ann:$apr1$x$y", "ann:{SHA}x", "ann:plain"] {
            fs::write(&path, bad).unwrap();
            assert!(Passwords::open(&path).is_err(), "{bad}");
        }
        assert!(Passwords::open(&dir.path().join("missing")).is_err());
    }
}
