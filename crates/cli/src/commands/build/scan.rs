//! What is in a directory tree, looked at by several threads: with thousands of files the kernel's answers about each are
//! most of a build that finds everything in the cache.
//!
//! Each directory is opened once and its files are asked about by their own names; nothing but what a listing says is
//! asked.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;
use wharf_dockerfile::{Ignore, Needs, Reach, Verdict};

use crate::tar::PackError;

/// More look no faster: they wait for each other in the kernel.
const MOST_THREADS: usize = 4;
/// For so many bytes of names a directory is asked at once.
const BUFFER: usize = 64 << 10;

/// A tree, as directories by number. The first is the root.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) directories: Vec<Directory>,
}

/// A directory and what is in it, by name.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) path: PathBuf,
    pub(super) items: Vec<Item>,
}

/// Something in a directory.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) name: OsString,
    pub(super) stat: Stat,
    /// A directory that is ignored is here for what is kept below it.
    pub(super) ignored: bool,
    /// Number of the directory that it is.
    pub(super) directory: Option<usize>,
}

/// Looks at what is needed of a tree, but for what is ignored. Nothing where a link leads on to what is needed: then all
/// may be, and is to be looked at.
///
/// # Errors
/// When something in it cannot be looked at. What goes away meanwhile is not there.
pub(super) fn scan(root: &Path, ignore: &Ignore, needs: &Needs) -> Result<Option<Tree>, PackError> {
    let first = Job { number: 0, relative: PathBuf::new(), verdict: Verdict::default(), reach: needs.start() };
    let jobs = VecDeque::from([first]);
    let state = State { jobs, at_work: 0, directories: vec![None], failure: None, led_on: false };
    let scan = Scan { root, ignore, needs, state: Mutex::new(state), changed: Condvar::new() };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| scan.work());
        }
        scan.work();
    });
    let state = scan.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.failure {
        Some(failure) => Err(failure),
        None if state.led_on => Ok(None),
        None => Ok(Some(Tree { directories: state.directories.into_iter().flatten().collect() })),
    }
}

struct Scan<'a> {
    root: &'a Path,
    ignore: &'a Ignore,
    needs: &'a Needs,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    jobs: VecDeque<Job>,
    at_work: usize,
    /// None of those that have not been looked at.
    directories: Vec<Option<Directory>>,
    failure: Option<PackError>,
    /// A link was on the way to what is needed.
    led_on: bool,
}

/// Directories in one, by their places in it, with what is known of each.
type Below = Vec<(usize, Verdict, Reach)>;

/// A directory to be looked at.
struct Job {
    number: usize,
    relative: PathBuf,
    verdict: Verdict,
    reach: Reach,
}

impl Scan<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at one directory after another until all have been looked at.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() || state.led_on || (state.jobs.is_empty() && state.at_work == 0) {
                return;
            }
            let Some(job) = state.jobs.pop_front() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.at_work += 1;
            drop(state);
            let looked = self.look(&job);
            state = self.lock();
            state.at_work -= 1;
            match looked {
                Ok(None) => state.led_on = true,
                Ok(Some((mut directory, below))) => {
                    for (at, verdict, reach) in below {
                        let number = state.directories.len();
                        state.directories.push(None);
                        let relative = job.relative.join(&directory.items[at].name);
                        directory.items[at].directory = Some(number);
                        state.jobs.push_back(Job { number, relative, verdict, reach });
                    }
                    state.directories[job.number] = Some(directory);
                }
                Err(failure) => state.failure = Some(failure),
            }
            self.changed.notify_all();
        }
    }

    /// What is in a directory, and which of it are directories to be looked at. Nothing: a link is what was needed.
    fn look(&self, job: &Job) -> Result<Option<(Directory, Below)>, PackError> {
        // A slash at the end of the root's path would be in messages.
        let path = if job.number == 0 { self.root.to_owned() } else { self.root.join(&job.relative) };
        let (mut items, mut below) = (Vec::new(), Vec::new());
        let failed = |call, path: PathBuf, errno: Errno| PackError::Read { call, path, source: errno.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The root was resolved by whoever named it; below it no link is followed.
        let flags = if job.number == 0 { flags } else { flags | OFlags::NOFOLLOW };
        let fd = match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(fd) => fd,
            // It went away, or is another thing now, since the directory above was read.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if job.number != 0 => {
                return Ok(Some((Directory { path, items }, below)));
            }
            Err(errno) => return Err(failed("open", path, errno)),
        };
        let mut names = Vec::new();
        let mut buffer = Vec::with_capacity(BUFFER);
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| failed("readdirent", path.clone(), errno))?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        items.reserve_exact(names.len());
        for name in names {
            let Some(reach) = self.needs.enter(&job.reach, &name.to_string_lossy()) else { continue };
            let verdict = match self.ignore.is_empty() {
                true => Verdict::default(),
                false => self.ignore.decide(&job.verdict, &job.relative.join(&name).to_string_lossy()),
            };
            if verdict.ignored && !self.ignore.keeps_some() {
                continue;
            }
            let stat = match rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(_) if verdict.ignored => continue,
                Err(errno) => return Err(failed("lstat", path.join(&name), errno)),
            };
            let kind = FileType::from_raw_mode(stat.st_mode);
            // What is below a source is copied as it is; a source itself is followed.
            if kind == FileType::Symlink && reach.is_named() {
                return Ok(None);
            }
            let is_directory = kind == FileType::Directory;
            if verdict.ignored && !is_directory {
                continue;
            }
            items.push(Item { name, stat, ignored: verdict.ignored, directory: None });
            if is_directory {
                below.push((items.len() - 1, verdict, reach));
            }
        }
        Ok(Some((Directory { path, items }, below)))
    }
}

impl Directory {
    /// The target of a link in it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn target(&self, item: &Item) -> Result<Vec<u8>, PackError> {
        let path = self.path.join(&item.name);
        let target = std::fs::read_link(&path);
        let target = target.map_err(|source: io::Error| PackError::Read { call: "readlink", path, source })?;
        Ok(target.as_os_str().as_bytes().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Paths of a tree, as a listing has them; directories that are ignored in brackets.
    fn paths(tree: &Tree, number: usize, above: &str, all: &mut Vec<String>) {
        for item in &tree.directories[number].items {
            let path = format!("{above}{}", item.name.to_string_lossy());
            all.push(if item.ignored { format!("[{path}]") } else { path.clone() });
            if let Some(number) = item.directory {
                paths(tree, number, &format!("{path}/"), all);
            }
        }
    }

    fn scanned(root: &Path, ignore: &str) -> Vec<String> {
        needed(root, ignore, &Needs::All).unwrap()
    }

    fn needed(root: &Path, ignore: &str, needs: &Needs) -> Option<Vec<String>> {
        let (tree, mut all) = (scan(root, &Ignore::parse(ignore).unwrap(), needs).unwrap()?, Vec::new());
        paths(&tree, 0, "", &mut all);
        Some(all)
    }

    #[test]
    fn only_what_is_needed_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["src/a/x", "src/b/x", "other/y", "Dockerfile"] {
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            fs::write(dir.path().join(file), "").unwrap();
        }
        let needs = |sources: &[&str]| {
            let mut needs = Needs::Some(Vec::new());
            sources.iter().for_each(|source| needs.add(source));
            needs
        };
        let of = |sources: &[&str]| needed(dir.path(), "", &needs(sources));
        assert_eq!(of(&["Dockerfile", "src/a"]).unwrap(), ["Dockerfile", "src", "src/a", "src/a/x"]);
        assert_eq!(of(&["nothing"]).unwrap(), Vec::<String>::new());
        // Below a source links are what they are; one that is a source leads on.
        std::os::unix::fs::symlink("../other", dir.path().join("src/a/link")).unwrap();
        assert!(of(&["src"]).unwrap().contains(&"src/a/link".to_owned()));
        assert_eq!(of(&["src/a/link"]), None);
        assert_eq!(of(&["src/a/*"]), None);
        assert_eq!(of(&["src/**"]), None);
        assert!(of(&["src/b/**"]).is_some());
    }

    #[test]
    fn all_is_found_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for a in 0..20 {
            expected.push(format!("{a:02}"));
            for b in 0..20 {
                fs::create_dir_all(dir.path().join(format!("{a:02}/{b:02}"))).unwrap();
                fs::write(dir.path().join(format!("{a:02}/{b:02}/file")), "x").unwrap();
                expected.extend([format!("{a:02}/{b:02}"), format!("{a:02}/{b:02}/file")]);
            }
        }
        assert_eq!(scanned(dir.path(), ""), expected);
    }

    #[test]
    fn what_is_ignored_is_left_out_but_for_what_is_kept_below_it() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/deep")).unwrap();
        for file in ["a.log", "b", "sub/a", "sub/keep", "sub/deep/x.log"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        std::os::unix::fs::symlink("sub", dir.path().join("link")).unwrap();
        assert_eq!(scanned(dir.path(), "*.log\nsub\n!sub/keep\n"), ["b", "link", "[sub]", "[sub/deep]", "sub/keep"]);
        assert_eq!(scanned(dir.path(), "*.log\nsub\n"), ["b", "link"]);
    }

    #[test]
    fn what_is_not_there_is_told() {
        let error = scan(Path::new("/nonexistent"), &Ignore::default(), &Needs::All).unwrap_err().to_string();
        assert!(error.contains("/nonexistent"), "{error}");
    }
}
