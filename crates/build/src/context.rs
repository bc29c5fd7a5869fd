//! The context: what the client sent, unpacked into a directory of ours, without what the ignore file names.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use wharf_archive::{UnpackOptions, Whiteouts};
use wharf_dockerfile::{Ignore, Verdict};
use wharf_rooted_path::RootDir;

use crate::cancel::{Cancel, Cancellable};
use crate::decompress::decompressed;
use crate::error::{BuildError, Result, chain};
use crate::tree::{self, Tree};

/// Bounds on what a client may send: a bomb ends here.
const MAX_ENTRIES: u64 = 5_000_000;
const MAX_BYTES: u64 = 256 << 30;
/// No Dockerfile or ignore file that a person wrote is larger.
const MAX_TEXT: u64 = 16 << 20;

/// An unpacked context.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) tree: Tree,
    pub(crate) dockerfile: String,
    pub(crate) ignore: Ignore,
    /// The newest time of a file, in seconds since the epoch: what the build's results are dated with.
    pub(crate) newest: i64,
}

impl Context {
    /// Unpacks `input`, plain or compressed, into the new directory `path`, and reads the Dockerfile.
    ///
    /// # Errors
    /// For an archive that is hostile or damaged, and when there is no such Dockerfile.
    pub(crate) fn unpack(
        input: Box<dyn Read + Send>,
        path: PathBuf,
        dockerfile: &str,
        cancel: &Cancel,
    ) -> Result<Self> {
        fs::create_dir(&path).map_err(|e| BuildError::system("cannot make a directory for the context", &e))?;
        let root = RootDir::open(&path)?;
        let input = Cancellable { inner: input, cancel: cancel.clone() };
        let (_, input) = decompressed(input).map_err(|e| BuildError::system("the context cannot be read", &e))?;
        let options = UnpackOptions {
            whiteouts: Whiteouts::Literal,
            same_owner: false,
            no_overwrite_dir_non_dir: false,
            max_entries: MAX_ENTRIES,
            max_bytes: MAX_BYTES,
        };
        let unpacked = wharf_archive::unpack(input, &root, &options);
        cancel.check()?;
        unpacked.map_err(|e| BuildError::invalid(format!("the context cannot be used: {}", chain(&e))))?;

        let text = read_dockerfile(&root, dockerfile)?;
        let ignore = ignore_file(&root, dockerfile)?;
        let mut newest = root.metadata(inside(dockerfile)?, true).map_or(0, |stat| stat.st_mtime);
        prune(&root, &ignore, &mut newest, cancel)?;
        Ok(Self { tree: Tree::new(root, false), dockerfile: text, ignore, newest })
    }
}

/// The path of the Dockerfile in the context. `..` is not resolved away: what leads out is refused.
fn inside(name: &str) -> Result<PathBuf> {
    tree::clean(Path::new(name)).filter(|path| !path.as_os_str().is_empty()).ok_or_else(|| {
        BuildError::invalid(format!("the Dockerfile ({name}) must be within the build context"))
    })
}

fn read_dockerfile(root: &RootDir, name: &str) -> Result<String> {
    let bytes = root.read_small(inside(name)?, MAX_TEXT).map_err(|error| {
        if error.is_not_found() {
            return BuildError::invalid(format!("Cannot locate specified Dockerfile: {name}"));
        }
        BuildError::invalid(format!("the Dockerfile {name} cannot be read: {}", chain(&error)))
    })?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` at the top.
fn ignore_file(root: &RootDir, dockerfile: &str) -> Result<Ignore> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
        match root.read_small(inside(&name)?, MAX_TEXT) {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(BuildError::invalid(format!("{name} cannot be read: {}", chain(&error)))),
            Ok(bytes) => {
                let ignore = Ignore::parse(&String::from_utf8_lossy(&bytes));
                return ignore.map_err(|e| BuildError::invalid(format!("{name}: {e}")));
            }
        }
    }
    Ok(Ignore::default())
}

/// Removes what is ignored, and finds the newest of what is left.
fn prune(root: &RootDir, ignore: &Ignore, newest: &mut i64, cancel: &Cancel) -> Result<()> {
    enum Visit {
        Enter(PathBuf, Verdict),
        /// An ignored directory whose children have been looked at: it stays if one of them does.
        Leave(PathBuf),
    }
    let mut stack = vec![Visit::Enter(PathBuf::new(), Verdict::default())];
    while let Some(visit) = stack.pop() {
        cancel.check()?;
        let (dir, above) = match visit {
            Visit::Enter(dir, verdict) => (dir, verdict),
            Visit::Leave(dir) => {
                if root.read_dir(&dir)?.is_empty() {
                    root.remove_all(&dir)?;
                }
                continue;
            }
        };
        for name in root.read_dir(&dir)? {
            let path = dir.join(&name);
            let stat = root.metadata(&path, false)?;
            let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            let verdict = match ignore.is_empty() {
                true => Verdict::default(),
                false => ignore.decide(&above, &path.to_string_lossy()),
            };
            if verdict.ignored && !(directory && ignore.keeps_some()) {
                root.remove_all(&path)?;
                continue;
            }
            if directory {
                if verdict.ignored {
                    stack.push(Visit::Leave(path.clone()));
                }
                stack.push(Visit::Enter(path, verdict));
            } else {
                *newest = (*newest).max(stat.st_mtime);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(files: &[(&str, &str)]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000 + text.len() as u64);
            fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
        }
        let mut tar = Vec::new();
        let root = RootDir::open(dir.path()).unwrap();
        wharf_archive::pack(&root, Path::new(""), &mut tar, &wharf_archive::PackOptions::default()).unwrap();
        tar
    }

    fn unpack(tar: Vec<u8>, dockerfile: &str) -> Result<(tempfile::TempDir, Context)> {
        let dir = tempfile::tempdir().unwrap();
        let input = Box::new(std::io::Cursor::new(tar));
        let context = Context::unpack(input, dir.path().join("context"), dockerfile, &Cancel::new().unwrap())?;
        Ok((dir, context))
    }

    fn left(context: &Context) -> Vec<String> {
        let mut all = Vec::new();
        let mut stack = vec![PathBuf::new()];
        while let Some(dir) = stack.pop() {
            for name in context.tree.root().read_dir(&dir).unwrap() {
                let path = dir.join(name);
                if context.tree.root().open_dir(&path).is_ok() {
                    stack.push(path.clone());
                }
                all.push(path.to_string_lossy().into_owned());
            }
        }
        all.sort();
        all
    }

    #[test]
    fn what_is_ignored_is_not_there() {
        let files = [
            ("Dockerfile", "FROM x"),
            (".dockerignore", "*.md\n!README.md\nsecret\n!secret/but/this\nnode_modules\n.dockerignore"),
            ("README.md", "r"),
            ("other.md", "o"),
            ("secret/a", "long enough to be the newest of them all"),
            ("secret/but/this", "t"),
            ("node_modules/x/y", "y"),
            ("src/main.c", "int main"),
        ];
        let (_dir, context) = unpack(archive(&files), "Dockerfile").unwrap();
        assert_eq!(context.dockerfile, "FROM x");
        let expected =
            ["Dockerfile", "README.md", "secret", "secret/but", "secret/but/this", "src", "src/main.c"];
        assert_eq!(left(&context), expected);
        assert_eq!(context.newest, 1_000 + "int main".len() as i64);
    }

    #[test]
    fn a_dockerfile_has_its_own_ignore_file() {
        let files =
            [("a/My.Dockerfile", "FROM x"), ("a/My.Dockerfile.dockerignore", "b"), (".dockerignore", "c"), ("b", ""), ("c", "")];
        let (_dir, context) = unpack(archive(&files), "a/My.Dockerfile").unwrap();
        assert!(!left(&context).contains(&"b".to_owned()) && left(&context).contains(&"c".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_a_context_is_said() {
        let message = |tar, name| unpack(tar, name).unwrap_err().message;
        let tar = archive(&[("Dockerfile", "FROM x"), ("x", "")]);
        assert_eq!(message(tar.clone(), "Nope"), "Cannot locate specified Dockerfile: Nope");
        assert!(message(tar.clone(), "../Dockerfile").contains("must be within the build context"));
        assert!(message(b"this is no archive at all, whatever the client says".repeat(20), "x").contains("cannot be used"));
        assert!(message(archive(&[("Dockerfile", ""), (".dockerignore", "[")]), "Dockerfile").contains("syntax error"));
    }

    #[test]
    fn a_compressed_context_is_the_same() {
        use std::io::Write;
        let tar = archive(&[("Dockerfile", "FROM x")]);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
        for bytes in [gzip.finish().unwrap(), zstd, tar] {
            assert_eq!(unpack(bytes, "Dockerfile").unwrap().1.dockerfile, "FROM x");
        }
    }
}
