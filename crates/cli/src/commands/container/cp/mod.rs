//! `docker cp`.

mod path;
mod progress;

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::Value as Json;
use tokio::sync::mpsc;
use wharf_archive::{UnpackOptions, Whiteouts, unpack};
use wharf_client::{Body, Client, Method, Response};
use wharf_report::chain;
use wharf_rooted_path::RootDir;

use self::path::{asserts_directory, clean, has_trailing_slash, keep_trailing, split};
use self::progress::Progress;
use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::{int, text};
use crate::parse::Matches;
use crate::tar::{Pack, pack, rename};
use crate::{stream, upload};

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n[OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    Arity::Exactly(2),
    |app, matches| Box::pin(run(app, matches)),
)
.long(
    "Copy files/folders between a container and the local filesystem\n\nUse '-' as the source to read a tar archive from \
     stdin\nand extract it to a directory destination in a container.\nUse '-' as the destination to stream a tar archive \
     of a\ncontainer source to stdout.",
)
.flags(&[
    Flag::switch("archive", "Archive mode (copy all uid/gid information)").short('a'),
    Flag::switch("follow-link", "Always follow symbol link in SRC_PATH").short('L'),
    Flag::switch(
        "quiet",
        "Suppress progress output during copy. Progress output is automatically suppressed if no terminal is attached",
    )
    .short('q'),
]);

/// One end of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct End {
    path: String,
    exists: bool,
    is_dir: bool,
    /// The last part of the path as it was asked for, when following a link has changed it.
    name: Option<String>,
}

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (source, target) = (matches.argument(0), matches.argument(1));
    if source.is_empty() {
        return Err("source can not be empty".into());
    }
    if target.is_empty() {
        return Err("destination can not be empty".into());
    }
    let quiet = if matches.changed("quiet") { matches.on("quiet") } else { !app.shows_terminal() };
    let follow = matches.on("follow-link");
    match (in_container(source), in_container(target)) {
        (Some(_), Some(_)) => Err("copying between containers is not supported".into()),
        (Some((container, path)), None) => from_container(app, container, path, target, follow, quiet).await,
        (None, Some((container, path))) => {
            to_container(app, source, container, path, follow, matches.on("archive"), quiet).await
        }
        (None, None) => Err("must specify at least one container source".into()),
    }?;
    Ok(0)
}

/// `container:path`. A local path with a colon in it must begin with `/` or `.`.
fn in_container(text: &str) -> Option<(&str, &str)> {
    if text.starts_with('/') {
        return None;
    }
    text.split_once(':').filter(|(container, _)| !container.starts_with('.') && !container.is_empty())
}

/// A local path made absolute, what it says at its end kept.
fn local(text: &str) -> Outcome<String> {
    let absolute = std::path::absolute(text).map_err(|error| wharf_report::os(&error))?;
    Ok(keep_trailing(clean(&absolute.to_string_lossy()), text))
}

/// What the engine knows of a path in the container.
#[derive(Clone, Debug)]
struct Stat {
    mode: u32,
    size: i64,
    link: String,
}

const NO_DEVICE: &str = "must be a directory or a regular file: got a device";
/// Bits of Go's file modes, which the engine sends.
const MODE_DIR: u32 = 1 << 31;
const MODE_DEVICE: u32 = 1 << 26;
const MODE_SYMLINK: u32 = 1 << 27;

impl Stat {
    fn of(response: &Response) -> Option<Self> {
        let header = response.headers.get("x-docker-container-path-stat")?.to_str().ok()?;
        let json: Json = serde_json::from_slice(&STANDARD.decode(header).ok()?).ok()?;
        Some(Self {
            mode: u32::try_from(int(&json["mode"])).unwrap_or(0),
            size: int(&json["size"]),
            link: text(&json["linkTarget"]).to_owned(),
        })
    }

    fn is_dir(&self) -> bool {
        self.mode & MODE_DIR != 0
    }

    fn is_link(&self) -> bool {
        self.mode & MODE_SYMLINK != 0
    }
}

fn archive_path(container: &str) -> String {
    format!("/containers/{container}/archive")
}

async fn stat(client: &Client, container: &str, path: &str) -> Outcome<Stat> {
    let request = client.request(Method::HEAD, &archive_path(container)).query("path", path);
    let response = request.send().await?;
    Stat::of(&response).ok_or_else(|| "unable to decode container path stat header".into())
}

/// Where a link in the container leads, seen from the link.
fn link_target(path: &str, link: &str) -> String {
    if link.starts_with('/') { link.to_owned() } else { clean(&format!("{}/{link}", split(path).0)) }
}

async fn from_container(app: &App, container: &str, path: &str, target: &str, follow: bool, quiet: bool) -> Outcome {
    let to_stdout = target == "-";
    let target = if to_stdout { target.to_owned() } else { local(target)? };
    if !to_stdout {
        check_target(&target)?;
    }
    let client = app.client().await?;
    let mut source = End { path: path.to_owned(), exists: true, ..End::default() };
    if follow
        && let Ok(found) = stat(client, container, path).await
        && found.is_link()
    {
        let (resolved, name) = path::rebase(path, &link_target(path, &found.link));
        source.path = resolved;
        source.name = name;
    }
    let mut response = client.get(&archive_path(container)).query("path", &source.path).send().await?;
    if to_stdout {
        while let Some(chunk) = response.chunk().await? {
            stream::write(false, chunk).await?;
        }
        return Ok(());
    }
    let found = Stat::of(&response).ok_or("unable to decode container path stat header")?;
    source.is_dir = found.is_dir();
    let progress = Progress::start("Copying from container - ", quiet);
    let reader = progress.count(ChunkReader::start(response));
    let size = (!found.is_dir()).then_some(found.size);
    let shown = target.clone();
    let done = tokio::task::spawn_blocking(move || extract(reader, &source, &target)).await;
    progress.finish(size, &shown);
    done.map_err(|error| error.to_string())?
}

/// A directory that is to hold the target must be there, and the target may be no device: what is unpacked takes the place of what
/// has its name (docker/cli, `ValidateOutputPath`).
fn check_target(target: &str) -> Outcome {
    match fs::metadata(target) {
        Ok(meta) if meta.file_type().is_block_device() || meta.file_type().is_char_device() => {
            return Err(format!("invalid output path: {target:?} {NO_DEVICE}").into());
        }
        Ok(_) => return Ok(()),
        // A file with a slash behind it.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(wharf_report::path("stat", Path::new(target), &error).into());
        }
        Err(_) => {}
    }
    let parent = split(target).0;
    match fs::metadata(&parent) {
        Ok(meta) if meta.is_dir() => Ok(()),
        _ => Err(format!("invalid output path: directory {parent:?} does not exist").into()),
    }
}

/// The local target: links followed, as long as they lead somewhere.
fn local_target(path: &str) -> Outcome<End> {
    let mut path = path.to_owned();
    for _ in 0..10 {
        match fs::symlink_metadata(path.trim_end_matches('/')) {
            Ok(meta) if meta.is_symlink() => {
                let link = fs::read_link(path.trim_end_matches('/'))?;
                path = link_target(&path, &link.to_string_lossy());
            }
            Ok(meta) => return Ok(End { path, exists: true, is_dir: meta.is_dir(), name: None }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let parent = split(&path).0;
                let meta =
                    fs::metadata(&parent).map_err(|error| wharf_report::path("stat", Path::new(&parent), &error))?;
                return if meta.is_dir() { Ok(End { path, ..End::default() }) } else { Err("not a directory".into()) };
            }
            Err(error) => return Err(wharf_report::path("lstat", Path::new(&path), &error).into()),
        }
    }
    Err(format!("too many symlinks in {path}").into())
}

/// What must be done with an archive so that it lands where it should: the directory to unpack it in, and what the thing
/// that it holds is to be called, when not as it is.
fn plan(source: &End, target: &End) -> Outcome<(String, Option<String>)> {
    let (dir, base) = split(&target.path);
    let renamed = Some(base);
    match (target.exists, target.is_dir, source.is_dir) {
        (true, true, _) => Ok((target.path.clone(), source.name.clone())),
        (true, false, true) => Err("cannot copy directory".into()),
        (true, false, false) | (false, _, true) => Ok((dir, renamed)),
        (false, _, false) if asserts_directory(&target.path) => Err("no such directory".into()),
        (false, _, false) => Ok((dir, renamed)),
    }
}

fn extract(archive: impl Read + Send, source: &End, target: &str) -> Outcome {
    let (dir, renamed) = plan(source, &local_target(target)?)?;
    let failed = |error: &dyn std::error::Error| Failure::new(chain(error));
    let root = RootDir::open(&dir).map_err(|error| failed(&error))?;
    let options = UnpackOptions {
        whiteouts: Whiteouts::Literal,
        same_owner: false,
        no_overwrite_dir_non_dir: true,
        ..UnpackOptions::default()
    };
    let old = match split(&source.path).1 {
        // The names in the archive of a root begin with it.
        root if root == "/" => String::new(),
        base => base,
    };
    let Some(new) = renamed else {
        return unpack(archive, &root, &options).map(|_| ()).map_err(|error| failed(&error));
    };
    let (reader, writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let renaming = scope.spawn(move || rename(archive, old.as_bytes(), new.as_bytes(), io::BufWriter::new(writer)));
        let unpacked = unpack(reader, &root, &options);
        let renamed = renaming.join().unwrap_or_else(|_| Err(io::Error::other("the archive cannot be read")));
        // A broken pipe on the one side is the other side's mistake.
        unpacked.map_err(|error| failed(&error))?;
        renamed.map_err(|error| Failure::new(error.to_string()))
    })
}

async fn to_container(
    app: &App,
    source: &str,
    container: &str,
    path: &str,
    follow: bool,
    keep_owner: bool,
    quiet: bool,
) -> Outcome {
    let client = app.client().await?;
    let mut target = End { path: path.to_owned(), ..End::default() };
    if let Ok(mut found) = stat(client, container, path).await {
        let mut known = true;
        if found.is_link() {
            target.path = link_target(path, &found.link);
            match stat(client, container, &target.path).await {
                Ok(behind) => found = behind,
                Err(_) => known = false,
            }
        }
        if known {
            if found.mode & MODE_DEVICE != 0 {
                return Err(format!("destination \"{container}:{path}\" {NO_DEVICE}").into());
            }
            target.exists = true;
            target.is_dir = found.is_dir();
        }
    }
    let from_stdin = source == "-";
    if from_stdin {
        if !target.is_dir {
            return Err(format!("destination \"{container}:{path}\" must be a directory").into());
        }
        let body = upload::stdin(Vec::new());
        return put(client, container, &target.path, body, keep_owner).await;
    }
    let local_source = local_source(&local(source)?, follow)?;
    let (dir, renamed) = plan(&local_source, &target)?;
    let progress = Progress::start("Copying to container - ", quiet);
    let size = content_size(Path::new(local_source.path.trim_end_matches("/.")));
    let (sender, body) = Body::channel();
    let output = progress.count_writes(io::BufWriter::with_capacity(256 * 1024, sender.clone().blocking()));
    let packing = tokio::task::spawn_blocking(move || {
        let packed = pack_source(&local_source, renamed.as_deref(), output);
        if let Err(failure) = &packed {
            let broken = io::Error::other(failure.text.clone());
            tokio::runtime::Handle::current().block_on(sender.fail(broken));
        }
        packed
    });
    let sent = put(client, container, &dir, body, keep_owner).await;
    let packed = packing.await.map_err(|error| error.to_string())?;
    progress.finish(Some(size), &format!("{container}:{}", target.path));
    // The reason on our side is the better one, unless it is that the engine stopped to listen.
    match packed {
        Err(failure) if !failure.text.contains("broken pipe") => Err(failure),
        _ => sent,
    }
}

fn pack_source(source: &End, renamed: Option<&str>, output: impl io::Write) -> Outcome {
    let (dir, base) = split(&source.path);
    let options = Pack { only: Some(OsStr::new(&base)), rename: renamed.map(OsStr::new), ..Pack::default() };
    pack(Path::new(&dir), &options, output).map(|_| ()).map_err(|error| Failure::new(error.to_string()))
}

async fn put(client: &Client, container: &str, path: &str, body: Body, keep_owner: bool) -> Outcome {
    let mut request = client.request(Method::PUT, &archive_path(container)).query("path", path);
    request = request.query("noOverwriteDirNonDir", "true");
    if keep_owner {
        request = request.query("copyUIDGID", "true");
    }
    request.body("application/x-tar", body).send().await?;
    Ok(())
}

/// The local source: the link itself, or what it leads to with `--follow-link`.
fn local_source(path: &str, follow: bool) -> Outcome<End> {
    let failed = |call: &str, path: &Path, error: &io::Error| Failure::new(wharf_report::path(call, path, error));
    let real = |path: &Path| {
        fs::canonicalize(path)
            .map(|path| path.to_string_lossy().into_owned())
            .map_err(|error| failed("lstat", path, &error))
    };
    let (resolved, name) = if follow {
        path::rebase(path, &real(Path::new(path))?)
    } else {
        let (dir, base) = path.rsplit_once('/').unwrap_or(("", path));
        let dir = real(Path::new(if dir.is_empty() { "/" } else { dir }))?;
        let resolved = format!("{}/{base}", dir.trim_end_matches('/'));
        let differs = has_trailing_slash(path) && path::base(path) != path::base(&resolved);
        (resolved, differs.then(|| path::base(path)))
    };
    let meta = fs::symlink_metadata(&resolved).map_err(|error| failed("lstat", Path::new(&resolved), &error))?;
    Ok(End { is_dir: meta.is_dir(), path: resolved, exists: true, name })
}

/// The bytes of all files of a tree.
fn content_size(path: &Path) -> i64 {
    let (mut total, mut left) = (0i64, vec![path.to_owned()]);
    while let Some(path) = left.pop() {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if meta.is_file() {
            total = total.saturating_add(i64::try_from(meta.len()).unwrap_or(i64::MAX));
        }
    }
    total
}

/// The body of an answer for code that is not async.
struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl ChunkReader {
    fn start(mut response: Response) -> Self {
        let (sender, chunks) = mpsc::channel(8);
        tokio::spawn(async move {
            loop {
                let chunk = match response.chunk().await {
                    Ok(Some(chunk)) => Ok(chunk),
                    Ok(None) => return,
                    Err(error) => Err(io::Error::other(error.to_string())),
                };
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        Self { chunks, current: Bytes::new() }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.current = chunk?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        assert_eq!(in_container("c:/x"), Some(("c", "/x")));
        assert_eq!(in_container("c:x"), Some(("c", "x")));
        for text in ["/a:b", "./a:b", "../a:b", "plain", ":x"] {
            assert_eq!(in_container(text), None, "{text}");
        }
    }

    fn end(path: &str, exists: bool, is_dir: bool) -> End {
        End { path: path.to_owned(), exists, is_dir, name: None }
    }

    #[test]
    fn plans() {
        let file = end("/src/f", true, false);
        let dir = end("/src/d", true, true);
        let renamed = |new: &str| Some(new.to_owned());
        assert_eq!(plan(&file, &end("/t", true, true)).unwrap(), ("/t".to_owned(), None));
        assert_eq!(plan(&dir, &end("/t", true, true)).unwrap(), ("/t".to_owned(), None));
        assert_eq!(plan(&file, &end("/t/x", true, false)).unwrap(), ("/t".to_owned(), renamed("x")));
        assert_eq!(plan(&file, &end("/t/x", false, false)).unwrap(), ("/t".to_owned(), renamed("x")));
        assert_eq!(plan(&dir, &end("/t/x", false, false)).unwrap(), ("/t".to_owned(), renamed("x")));
        assert_eq!(plan(&dir, &end("/t/x", true, false)).unwrap_err().text, "cannot copy directory");
        assert_eq!(plan(&file, &end("/t/x/", false, false)).unwrap_err().text, "no such directory");
    }
}
