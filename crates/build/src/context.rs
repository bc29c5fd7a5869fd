//! The context: what the client sent, without what the ignore file names.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_archive::decompressed;
use wharf_dockerfile::{Dockerfile, Ignore, Needs};

use crate::asked::Given;
use crate::cancel::{Cancel, Cancellable};
use crate::error::{BuildError, Result};
use crate::index::Index;
use crate::tree::{self, Tree};

/// No Dockerfile or ignore file that a person wrote is larger.
const MAX_TEXT: u64 = 16 << 20;

/// What a Dockerfile is called by default, and what is looked for where that is not there.
const DEFAULT: &str = "Dockerfile";
const LOWER_CASE: &str = "dockerfile";

/// A context.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) tree: Tree,
    /// Only what the Dockerfile names is in it.
    pub(crate) partial: bool,
    /// The Dockerfile's text, and what it says.
    pub(crate) dockerfile: String,
    pub(crate) parsed: Dockerfile,
    pub(crate) ignore: Ignore,
    /// The newest time of a file that the Dockerfile may ask for, or of its own, in seconds since the epoch:
    /// `SOURCE_DATE_EPOCH=context`.
    pub(crate) newest: i64,
    /// [`Index::latest`]
    pub(crate) latest: Option<i64>,
}

impl Context {
    /// The context of files that are known, and the Dockerfile of it, or the one that is given; `shown` is what that is called
    /// where it is not its path.
    ///
    /// # Errors
    /// When there is no such Dockerfile.
    pub(crate) fn of(mut index: Index, dockerfile: &str, shown: Option<&str>, given: Option<&Given>) -> Result<Self> {
        let lower = given.is_none() && is_lower_case(&index, dockerfile)?;
        let dockerfile = if lower { LOWER_CASE } else { dockerfile };
        let (bytes, ignore, own) = match given {
            Some(given) => {
                let ignore = Ignore::parse(&given.ignore);
                let ignore = ignore.map_err(|e| BuildError::invalid(format!(".dockerignore: {e}")))?;
                (given.text.clone(), ignore, given.modified)
            }
            None => {
                let missing = || BuildError::invalid(format!("Cannot locate specified Dockerfile: {dockerfile}"));
                let bytes = read_bytes(&index, dockerfile)?.ok_or_else(missing)?;
                let own = index.look(&inside(dockerfile)?, true)?.map_or(0, |found| found.attributes.mtime.0);
                (bytes, ignore_file(&index, dockerfile)?, own)
            }
        };
        let text = String::from_utf8_lossy(&bytes);
        let parsed = Dockerfile::parse(shown.unwrap_or(dockerfile), &text)?;
        if matches!(text, Cow::Owned(_)) {
            parsed.check_replaced()?;
        }
        let text = text.into_owned();
        index.prune(&ignore);
        let newest = index.newest(&Needs::of(&parsed)).max(own);
        let latest = index.latest;
        let newest = latest.map_or(newest, |latest| newest.min(latest));
        let partial = index.partial;
        Ok(Self { tree: Tree::Index(Arc::new(index)), partial, dockerfile: text, parsed, ignore, newest, latest })
    }
}

/// Reads `input`, plain or compressed, into the index of a new file at `path`: files, and nothing said about them.
///
/// # Errors
/// For an archive that is hostile or damaged.
pub(crate) fn files(input: Box<dyn Read + Send>, path: &Path, cancel: &Cancel) -> Result<Tree> {
    Ok(files_of(index(input, path, cancel)?))
}

/// The same of files that are known.
pub(crate) fn files_of(index: Index) -> Tree {
    Tree::Index(Arc::new(index))
}

/// The same as [`Context::of`] has it, of a listing of everything.
pub(crate) fn rest_of(mut index: Index, ignore: &Ignore) -> Tree {
    index.prune(ignore);
    Tree::Index(Arc::new(index))
}

pub(crate) fn index(input: Box<dyn Read + Send>, path: &Path, cancel: &Cancel) -> Result<Index> {
    let contents = File::options().read(true).write(true).create_new(true).open(path);
    let contents = contents.map_err(|e| BuildError::system("the context cannot be kept", &e))?;
    let input = Cancellable { inner: input, cancel: cancel.clone() };
    let input = decompressed(input).map_err(|e| BuildError::system("the context cannot be read", &e))?;
    let index = Index::read(input, contents, cancel);
    cancel.check()?;
    index
}

/// The path of the Dockerfile in the context. `..` is not resolved away: what leads out is refused.
fn inside(name: &str) -> Result<PathBuf> {
    tree::clean(Path::new(name))
        .filter(|path| !path.as_os_str().is_empty())
        .ok_or_else(|| BuildError::invalid(format!("the Dockerfile ({name}) must be within the build context")))
}

/// Reads a small file; `None` when it is not there.
fn read_bytes(index: &Index, name: &str) -> Result<Option<Vec<u8>>> {
    let path = inside(name)?;
    match index.look(&path, true)? {
        None => return Ok(None),
        Some(found) if found.size > MAX_TEXT => {
            return Err(BuildError::invalid(format!("{name} has more than {MAX_TEXT} bytes")));
        }
        Some(_) => {}
    }
    let mut bytes = Vec::new();
    let read = index.open(&path)?.read_to_end(&mut bytes);
    read.map_err(|e| BuildError::system(format_args!("{name} cannot be read"), &e))?;
    Ok(Some(bytes))
}

fn is_lower_case(index: &Index, name: &str) -> Result<bool> {
    let is_there = |name: &str| Ok::<_, BuildError>(index.look(Path::new(name), true)?.is_some());
    Ok(name == DEFAULT && !is_there(DEFAULT)? && is_there(LOWER_CASE)?)
}

/// `NAME.dockerignore` beside the Dockerfile, else `.dockerignore` at the top.
fn ignore_file(index: &Index, dockerfile: &str) -> Result<Ignore> {
    for name in [format!("{dockerfile}.dockerignore"), ".dockerignore".to_owned()] {
        if let Some(bytes) = read_bytes(index, &name)? {
            return Ignore::parse(&ignore_text(&name, &bytes)?)
                .map_err(|e| BuildError::invalid(format!("{name}: {e}")));
        }
    }
    Ok(Ignore::default())
}

/// The text of the ignore file `name`. What is not UTF-8 is replaced in comments.
///
/// # Errors
/// Where a pattern is not UTF-8: replaced, it would leave in what it names.
pub fn ignore_text(name: &str, bytes: &[u8]) -> Result<String> {
    let is_pattern = |line: &[u8]| !line.starts_with(b"#") && std::str::from_utf8(line).is_err();
    let lines = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    match lines.split(|byte| *byte == b'\n').position(is_pattern) {
        None => Ok(String::from_utf8_lossy(bytes).into_owned()),
        Some(line) => {
            let message = format!("{name}: line {} has bytes that are not UTF-8: use * in their place", line + 1);
            Err(BuildError::invalid(message))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use wharf_rooted_path::RootDir;

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
        let context =
            Context::of(index(input, &dir.path().join("context"), &Cancel::new().unwrap())?, dockerfile, None, None)?;
        Ok((dir, context))
    }

    fn left(context: &Context) -> Vec<String> {
        let mut all = Vec::new();
        let mut stack = vec![PathBuf::new()];
        while let Some(dir) = stack.pop() {
            for name in context.tree.names(&dir).unwrap() {
                let path = dir.join(name);
                if context.tree.look(&path, false).unwrap().unwrap().attributes.kind == tree::Kind::Directory {
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
            ("Dockerfile", "FROM x\nCOPY . /"),
            (".dockerignore", "*.md\n!README.md\nsecret\n!secret/but/this\nnode_modules\n.dockerignore"),
            ("README.md", "r"),
            ("other.md", "o"),
            ("secret/a", "long enough to be the newest of them all"),
            ("secret/but/this", "t"),
            ("node_modules/x/y", "y"),
            ("src/main.c", "int main(void) { return 0; }"),
        ];
        let (_dir, context) = unpack(archive(&files), "Dockerfile").unwrap();
        assert_eq!(context.dockerfile, "FROM x\nCOPY . /");
        let expected = ["Dockerfile", "README.md", "secret", "secret/but", "secret/but/this", "src", "src/main.c"];
        assert_eq!(left(&context), expected);
        assert_eq!(context.newest, 1_000 + "int main(void) { return 0; }".len() as i64);
        // What no instruction names dates nothing.
        let files = [("Dockerfile", "FROM x\nCOPY a /"), ("a", "a"), ("b", "newer than what is used")];
        let (_dir, context) = unpack(archive(&files), "Dockerfile").unwrap();
        assert_eq!(context.newest, 1_000 + "FROM x\nCOPY a /".len() as i64);
    }

    #[test]
    fn a_dockerfile_has_its_own_ignore_file() {
        let files = [
            ("a/My.Dockerfile", "FROM x"),
            ("a/My.Dockerfile.dockerignore", "b"),
            (".dockerignore", "c"),
            ("b", ""),
            ("c", ""),
        ];
        let (_dir, context) = unpack(archive(&files), "a/My.Dockerfile").unwrap();
        assert!(!left(&context).contains(&"b".to_owned()) && left(&context).contains(&"c".to_owned()));
    }

    #[test]
    fn what_is_wrong_with_a_context_is_said() {
        let message = |tar, name| unpack(tar, name).unwrap_err().message;
        let tar = archive(&[("Dockerfile", "FROM x"), ("x", "")]);
        let lower = archive(&[("dockerfile", "FROM lower"), ("dockerfile.dockerignore", "x"), ("x", "")]);
        let (_dir, context) = unpack(lower.clone(), "Dockerfile").unwrap();
        assert_eq!((context.dockerfile.as_str(), context.tree.names(Path::new("")).unwrap().len()), ("FROM lower", 2));
        assert_eq!(message(lower, "DOCKERFILE"), "Cannot locate specified Dockerfile: DOCKERFILE");
        assert_eq!(message(tar.clone(), "Nope"), "Cannot locate specified Dockerfile: Nope");
        assert!(message(tar.clone(), "../Dockerfile").contains("must be within the build context"));
        assert!(
            message(b"this is no archive at all, whatever the client says".repeat(20), "x").contains("cannot be used")
        );
        assert!(message(archive(&[("Dockerfile", ""), (".dockerignore", "[")]), "Dockerfile").contains("syntax error"));
    }

    #[test]
    fn an_ignore_file_that_is_no_text_is_refused_where_that_counts() {
        assert_eq!(ignore_text("x", b"#\xff\na\xc3\xa4\n").unwrap(), "#\u{fffd}\na\u{e4}\n");
        ignore_text("x", b"\xef\xbb\xbf#\xff").unwrap();
        assert_eq!(
            ignore_text("x", b"a\n!\xff\n").unwrap_err().message,
            "x: line 2 has bytes that are not UTF-8: use * in their place"
        );
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
