//! Where the files of a build come from.

mod oci;

use std::io::{Cursor, Read};

use wharf_build::{Answers, Given, NamedContext};
use wharf_dockerfile::{Dockerfile, Needs};

use crate::BuildKit;
use crate::api_build::UPLOADED;
use crate::asking::Files;
use crate::control::blocking;
use crate::filesync::{Directory, Wanted};
use crate::grpc::{Code, Status};
use crate::inputs::{self, Source};
use crate::job::Job;
use crate::options::{Options, below, text};
use crate::progress::Step;
use crate::proto::{Piece, Timestamp, llb};
use crate::session::Session;

const PULL_UPLOAD: &str = "/moby.upload.v1.Upload/Pull";
/// An archive that the client sends when it is asked for this.
const UPLOAD: &str = "http://buildkit-session/";
const DOCKERFILE: &str = "Dockerfile";

/// What a build gets.
pub(crate) struct Contexts {
    pub(crate) context: Box<dyn Read + Send>,
    pub(crate) listed: bool,
    pub(crate) given: Option<Given>,
    /// The name of the Dockerfile.
    pub(crate) dockerfile: String,
    pub(crate) named: Vec<(String, NamedContext)>,
    pub(crate) files: std::sync::Arc<Files>,
    /// The address that the context is at.
    pub(crate) remote: Option<String>,
}

/// What is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) job: &'a Job,
    pub(crate) options: &'a Options,
    pub(crate) inputs: &'a std::collections::HashMap<String, llb::Definition>,
}

impl Asked<'_> {
    /// The file that is built.
    pub(crate) fn filename(&self) -> &str {
        match text(self.options, "filename") {
            "" => DOCKERFILE,
            name => name,
        }
    }

    fn key<'b>(&'b self, option: &str, usual: &'b str) -> &'b str {
        match text(self.options, option) {
            "" => usual,
            name => name,
        }
    }
}

impl BuildKit {
    /// The session that serves a directory: the build's own, or one that several builds share.
    async fn session_of(&self, asked: Asked<'_>, name: &str) -> Result<Session, Status> {
        let shared = text(asked.options, &format!("local-sessionid:{name}"));
        let id = if shared.is_empty() { &asked.job.request.session } else { shared };
        if id.is_empty() {
            return Err(Status::new(Code::FailedPrecondition, "this build has no session: nobody serves its files"));
        }
        self.inner.sessions.get(id).await
    }

    /// The Dockerfile and the ignore file, where they are in a directory of the client's.
    async fn local_dockerfile(&self, asked: Asked<'_>) -> Result<Found, Status> {
        let name = asked.key("dockerfilekey", "dockerfile").to_owned();
        let session = self.session_of(asked, &name).await?;
        let file = asked.filename().trim_start_matches('/').to_owned();
        let step = asked.job.progress.step(&format!("[internal] load build definition from {file}"));
        let began = Timestamp::now();
        ended(step, look(&session, name, &file).await, |step, found| {
            step.status("transferring dockerfile:", found.text.len() as u64, 0, began, true);
        })
    }

    /// The Dockerfile, wherever it is, for who asks about it.
    ///
    /// # Errors
    /// Where that is a context at an address.
    pub(crate) async fn dockerfile(&self, asked: Asked<'_>) -> Result<(String, Given), Status> {
        let local = asked.key("contextkey", "context").to_owned();
        let is_remote = !text(asked.options, "context").is_empty() || asked.inputs.contains_key(&local);
        if is_remote && text(asked.options, "dockerfilekey").is_empty() {
            return Err(Status::unsupported("--call and --check need a context that is a directory of the client's"));
        }
        let mut found = self.local_dockerfile(asked).await?;
        if found.ignore.is_none() && !is_remote {
            let session = self.session_of(asked, &local).await?;
            found.ignore = Some(self.ignore_file(asked, &session, &local).await?);
        }
        Ok(found.given())
    }

    /// What the ignore file at the top of a directory says.
    async fn ignore_file(&self, asked: Asked<'_>, session: &Session, name: &str) -> Result<String, Status> {
        let step = asked.job.progress.step("[internal] load .dockerignore");
        let began = Timestamp::now();
        let wanted = Wanted { name: name.to_owned(), include: vec![".dockerignore".to_owned()], ..Wanted::default() };
        let looked = async {
            let mut directory = Directory::list(session, &wanted, true).await?;
            let text = directory.text(".dockerignore").await?;
            directory.end().await;
            Ok(text.map(|(text, _)| ignore_text(".dockerignore", &text)).transpose()?.unwrap_or_default())
        };
        ended(step, looked.await, |step, text| {
            step.status("transferring context:", text.len() as u64, 0, began, true);
        })
    }

    /// Gets everything ready that the builder reads or asks for.
    pub(crate) async fn contexts(&self, asked: Asked<'_>) -> Result<Contexts, Status> {
        let local_key = asked.key("contextkey", "context").to_owned();
        let place = match (asked.inputs.get(&local_key), text(asked.options, "context")) {
            (Some(input), _) => inputs::source(input)?,
            (None, "") => Source::Local(local_key),
            (None, address) => match address.strip_prefix("local:") {
                Some(name) => Source::Local(name.to_owned()),
                None => Source::Remote(address.to_owned()),
            },
        };
        let own_dockerfile = !text(asked.options, "dockerfilekey").is_empty();
        let mut directories = Vec::new();
        let mut contexts = match place {
            Source::Remote(address) => {
                let given = match own_dockerfile {
                    true => Some(self.local_dockerfile(asked).await?.given()),
                    false => None,
                };
                let context = self.remote(asked, &address).await?;
                directories.push(None);
                let (dockerfile, given) = given.unzip();
                let dockerfile = dockerfile.unwrap_or_else(|| asked.filename().to_owned());
                let is_upload = address.starts_with(UPLOAD) || address.starts_with(UPLOADED);
                let remote = Some(address).filter(|_| !is_upload);
                let files = std::sync::Arc::new(Files::new(Vec::new(), None));
                Contexts { context, listed: false, given, dockerfile, named: Vec::new(), files, remote }
            }
            Source::Local(name) => self.local(asked, &name, &mut directories).await?,
            Source::Built(_) | Source::Image(_) => {
                return Err(Status::unsupported("an image cannot be a build's context: use FROM or a named context"));
            }
        };
        for (name, value) in below(asked.options, "context:") {
            let context = self.named(asked, name, value, &mut directories).await?;
            contexts.named.push((name.to_owned(), context));
        }
        let whole = contexts.files.whole();
        contexts.files = std::sync::Arc::new(Files::new(directories, whole));
        Ok(contexts)
    }

    async fn local(
        &self,
        asked: Asked<'_>,
        name: &str,
        directories: &mut Vec<Option<Directory>>,
    ) -> Result<Contexts, Status> {
        let mut found = self.local_dockerfile(asked).await?;
        let session = self.session_of(asked, name).await?;
        if found.ignore.is_none() {
            found.ignore = Some(self.ignore_file(asked, &session, name).await?);
        }
        let (dockerfile, given) = found.given();
        let (dockerfile, given, follow) = blocking(move || {
            let (_, parsed) = parsed(&dockerfile, &given.text)?;
            let follow = Needs::of(&parsed).patterns();
            Ok((dockerfile, given, follow))
        })
        .await?;
        let whole = Wanted { name: name.to_owned(), exclude: patterns(&given.ignore), ..Wanted::default() };
        let listing = match &follow {
            // Nothing of it is named: nothing of it is looked at.
            Some(paths) if paths.is_empty() => {
                directories.push(None);
                crate::listing::Listing::new(b"", "nothing", true).take_bytes()
            }
            _ => {
                let step = asked.job.progress.step("[internal] load build context");
                let began = Timestamp::now();
                let wanted = Wanted { follow: follow.unwrap_or_default(), ..whole.clone() };
                let listed = Directory::list(&session, &wanted, false).await;
                let mut directory = ended(step, listed, |step, _| {
                    step.status("transferring context:", 0, 0, began, true);
                })?;
                let bytes = directory.listed();
                directories.push(Some(directory));
                bytes
            }
        };
        let files = std::sync::Arc::new(Files::new(Vec::new(), Some((session, whole))));
        Ok(Contexts {
            context: Box::new(Cursor::new(listing)),
            listed: true,
            given: Some(given),
            dockerfile,
            named: Vec::new(),
            files,
            remote: None,
        })
    }

    async fn remote(&self, asked: Asked<'_>, address: &str) -> Result<Box<dyn Read + Send>, Status> {
        if address.starts_with(UPLOAD) {
            return self.pulled_upload(asked, address).await;
        }
        if let Some(id) = address.strip_prefix(UPLOADED) {
            return self.inner.uploads.take(id).await;
        }
        let keep = text(asked.options, "build-arg:BUILDKIT_CONTEXT_KEEP_GIT_DIR");
        let keep = matches!(keep, "1" | "true");
        let step = asked.job.progress.step(&format!("[internal] load remote build context {address}"));
        let fetched = (self.inner.remote)(address.to_owned(), asked.filename().to_owned(), keep).await;
        ended(step, fetched.map_err(|message| Status::new(Code::Unknown, message)), |_, _| {})
    }

    /// An archive that the client has been given, and sends when it is asked.
    async fn pulled_upload(&self, asked: Asked<'_>, address: &str) -> Result<Box<dyn Read + Send>, Status> {
        let session = self.session_of(asked, "context").await?;
        if !session.serves(PULL_UPLOAD) {
            return Err(Status::new(Code::FailedPrecondition, "the client does not send the archive that it names"));
        }
        let path = format!("/{}", address.trim_start_matches(UPLOAD));
        let metadata = [("urlpath".to_owned(), path), ("urlhost".to_owned(), "buildkit-session".to_owned())];
        let (sender, mut answers) = session.callee.both(PULL_UPLOAD, &metadata)?;
        let (pieces, coming) = tokio::sync::mpsc::channel::<Result<bytes::Bytes, Status>>(4);
        tokio::spawn(async move {
            // Held open: the end of the questions would be the end of the call.
            let _sender = sender;
            while let Some(piece) = answers.next::<Piece>().await.transpose() {
                if pieces.send(piece.map(|piece| piece.data)).await.is_err() {
                    break;
                }
            }
        });
        Ok(Box::new(Uploaded { coming, current: bytes::Bytes::new() }))
    }

    async fn named(
        &self,
        asked: Asked<'_>,
        name: &str,
        value: &str,
        directories: &mut Vec<Option<Directory>>,
    ) -> Result<NamedContext, Status> {
        let source = match value.split_once(':') {
            Some(("docker-image", image)) => Source::Image(image.trim_start_matches("//").to_owned()),
            Some(("input", input)) => match asked.inputs.get(input) {
                Some(definition) => inputs::source(definition)?,
                None => return Err(Status::invalid(format!("context {name}: there is no input {input}"))),
            },
            Some(("local", directory)) => Source::Local(directory.to_owned()),
            Some(("git" | "http" | "https" | "ssh", _)) => Source::Remote(value.to_owned()),
            Some(("oci-layout", place)) => {
                directories.push(None);
                return self.layout(asked, name, place).await;
            }
            _ if wharf_build::git::Repository::is_address(value) => Source::Remote(value.to_owned()),
            _ => return Err(Status::invalid(format!("context {name}: {value:?} is of no kind"))),
        };
        Ok(match source {
            Source::Built(image) | Source::Image(image) => {
                directories.push(None);
                NamedContext::Image(image)
            }
            Source::Remote(address) => {
                directories.push(None);
                NamedContext::Archive(self.remote(asked, &address).await?)
            }
            Source::Local(directory) => {
                let session = self.session_of(asked, &directory).await?;
                let ignore = self.ignore_file(asked, &session, &directory).await?;
                let step = asked.job.progress.step(&format!("[context {name}] load from client"));
                let began = Timestamp::now();
                let wanted = Wanted { name: directory, exclude: patterns(&ignore), ..Wanted::default() };
                let listed = Directory::list(&session, &wanted, false).await;
                let mut directory = ended(step, listed, |step, _| {
                    step.status(&format!("transferring {name}:"), 0, 0, began, true);
                })?;
                let bytes = directory.listed();
                directories.push(Some(directory));
                NamedContext::Listing(Box::new(Cursor::new(bytes)))
            }
        })
    }
}

/// A Dockerfile in a directory of the client's.
#[derive(Debug)]
struct Found {
    name: String,
    text: Vec<u8>,
    modified: i64,
    /// What the ignore file of its own says, if there is one: an empty one stands for that of the context, too.
    ignore: Option<String>,
}

impl Found {
    fn given(self) -> (String, Given) {
        let Self { name, text, modified, ignore } = self;
        (name, Given { text, ignore: ignore.unwrap_or_default(), modified })
    }
}

/// Looks for a Dockerfile in the directory `name`.
async fn look(session: &Session, name: String, file: &str) -> Result<Found, Status> {
    let own_ignore = format!("{file}.dockerignore");
    let mut names = vec![file.to_owned()];
    // The name that is the default is found in lower case, too, and no other.
    let (directory, base) =
        file.rsplit_once('/').map_or(("", file), |(_, base)| (&file[..file.len() - base.len()], base));
    if base == DOCKERFILE {
        names.push(format!("{directory}{}", DOCKERFILE.to_lowercase()));
    }
    let include: Vec<String> = names.iter().cloned().chain([own_ignore.clone()]).collect();
    // Each may be a link: the client sends what that leads to as well.
    let wanted = Wanted { name, follow: include.clone(), include, ..Wanted::default() };
    let mut directory = Directory::list(session, &wanted, true).await?;
    let mut found = None;
    for name in names {
        if let Some((text, modified)) = directory.text(&name).await? {
            found = Some((name, text, modified));
            break;
        }
    }
    let ignore = directory.text(&own_ignore).await?.map(|(text, _)| ignore_text(&own_ignore, &text)).transpose()?;
    directory.end().await;
    let (name, text, modified) = found.ok_or_else(|| {
        let message = format!("failed to read dockerfile: open {file}: no such file or directory");
        Status::new(Code::Unknown, message)
    })?;
    Ok(Found { name, text, modified, ignore })
}

fn ignore_text(name: &str, bytes: &[u8]) -> Result<String, Status> {
    wharf_build::ignore_text(name, bytes).map_err(|e| crate::failure::status(&e))
}

/// The text of a Dockerfile and what it says. It may be long: nothing for a task that others wait for.
///
/// # Errors
/// When it cannot be read, or is not UTF-8 where that changes what a step does.
pub(crate) fn parsed(name: &str, bytes: &[u8]) -> Result<(String, Dockerfile), Status> {
    let text = String::from_utf8_lossy(bytes);
    let unreadable = |e: wharf_dockerfile::ParseErrors| crate::failure::unreadable(&e, name, &text);
    let parsed = Dockerfile::parse(name, &text).map_err(unreadable)?;
    if matches!(text, std::borrow::Cow::Owned(_)) {
        parsed.check_replaced().map_err(unreadable)?;
    }
    Ok((text.into_owned(), parsed))
}

/// Ends a step with what has come of it.
fn ended<T>(step: Step, done: Result<T, Status>, well: impl FnOnce(&Step, &T)) -> Result<T, Status> {
    match &done {
        Ok(value) => {
            well(&step, value);
            step.end(false, None);
        }
        Err(status) => step.end(false, Some(status.message().to_owned())),
    }
    done
}

/// The patterns of an ignore file, as clients take them.
fn patterns(ignore: &str) -> Vec<String> {
    let text = ignore.strip_prefix('\u{feff}').unwrap_or(ignore);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
    let clean = |pattern: &str| {
        let parts: Vec<&str> = pattern.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
    };
    lines
        .map(|line| match line.strip_prefix('!') {
            Some(rest) => format!("!{}", clean(rest.trim())),
            None => clean(line),
        })
        .collect()
}

/// An archive as it comes.
struct Uploaded {
    coming: tokio::sync::mpsc::Receiver<Result<bytes::Bytes, Status>>,
    current: bytes::Bytes,
}

impl Read for Uploaded {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.current.is_empty() {
            match self.coming.blocking_recv() {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(status)) => return Err(std::io::Error::other(status.message().to_owned())),
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}

impl Contexts {
    /// Who is asked for contents.
    pub(crate) fn answers(&self) -> std::sync::Arc<dyn Answers> {
        std::sync::Arc::clone(&self.files) as _
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filesync::tests::serving;

    async fn looked(files: &'static [(&'static str, &'static [u8])], file: &str) -> Result<Found, Status> {
        look(&serving(files).await, "dockerfile".into(), file).await
    }

    #[tokio::test]
    async fn an_empty_ignore_file_of_a_dockerfile_is_one() {
        let found = looked(&[("x", b"FROM a"), ("x.dockerignore", b"")], "x").await.unwrap();
        assert_eq!(found.ignore.as_deref(), Some(""));
        assert_eq!(looked(&[("x", b"FROM a")], "x").await.unwrap().ignore, None);
    }

    #[tokio::test]
    async fn the_default_name_alone_is_found_in_lower_case() {
        let found = looked(&[("dockerfile", b"FROM a")], "Dockerfile").await.unwrap();
        assert_eq!((found.name.as_str(), found.text.as_slice()), ("dockerfile", b"FROM a".as_slice()));
        assert_eq!(looked(&[("a/dockerfile", b"FROM a")], "a/Dockerfile").await.unwrap().name, "a/dockerfile");
        for file in ["DOCKERFILE", "My.Dockerfile"] {
            let refused = looked(&[("dockerfile", b""), ("my.dockerfile", b"")], file).await.unwrap_err();
            assert!(refused.message().contains(&format!("open {file}: no such file")), "{refused:?}");
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_text_are_refused_where_they_count() {
        let refused = looked(&[("x", b"FROM a"), ("x.dockerignore", b"a\n\xff")], "x").await.unwrap_err();
        assert!(refused.message().contains("x.dockerignore: line 2"), "{refused:?}");
        let found = looked(&[("x", b"FROM a"), ("x.dockerignore", b"#\xff\na")], "x").await.unwrap();
        assert_eq!(patterns(&found.ignore.unwrap()), ["a"]);
        let refused = parsed("x", b"FROM a\nRUN echo \xff").unwrap_err();
        assert!(refused.message().contains("not UTF-8"), "{refused:?}");
        parsed("x", b"FROM a\nLABEL a=\xff").unwrap();
    }

    #[test]
    fn patterns_are_cleaned_for_clients() {
        let text = "# no\n/a/\n ! b/./c \n\n./d\n**/*.o\n";
        assert_eq!(patterns(text), ["a", "!b/c", "d", "**/*.o"]);
    }
}
