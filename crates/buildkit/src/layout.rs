//! OCI layouts that come blob by blob, from a client's content store or a registry, as the archive that the builder reads.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::watch;
use wharf_archive::Writer;
use wharf_image::registry::{Descriptor, Platform, Repository};
use wharf_reference::Digest;

use crate::content::{Pieces, Store};
use crate::grpc::{Code, Status};

/// No index or manifest is larger (OCI distribution-spec).
pub(crate) const MAX_MANIFEST: u64 = 4 << 20;
/// What an index of indexes may be; more is a circle.
const MAX_DEPTH: u32 = 4;
pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How the thread that makes an archive waits for what comes, as long as the build is not over.
struct Waiting {
    handle: Handle,
    over: watch::Receiver<bool>,
}

impl Waiting {
    /// # Errors
    /// Those of the work, and that the build is over.
    fn on<T>(&self, work: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let mut over = self.over.clone();
        self.handle.block_on(async {
            tokio::select! {
                // First: of a runtime that ends nothing else may be asked.
                biased;
                _ = over.wait_for(|over| *over) => Err(Status::new(Code::Cancelled, "the build is over")),
                done = work => done,
            }
        })
    }
}

/// Where blobs are.
#[derive(Clone, Debug)]
pub(crate) enum Blobs {
    Client(Store),
    Registry(Repository),
}

impl Blobs {
    /// A small one, verified.
    ///
    /// # Errors
    /// When it is not there, too large, or something else than its digest says.
    pub(crate) async fn bytes(&self, of: &Descriptor, most: u64) -> Result<Vec<u8>, Status> {
        if of.size > most {
            let message = format!("{} has {} bytes; at most {most} are read", of.digest, of.size);
            return Err(Status::invalid(message));
        }
        let bytes = match self {
            Self::Client(store) => {
                let mut coming = store.read(of.digest.as_str())?;
                let mut bytes = Vec::new();
                while let Some(piece) = coming.next().await? {
                    bytes.extend_from_slice(&piece);
                    if bytes.len() as u64 > most {
                        return Err(Status::invalid(format!("{} has more than {most} bytes", of.digest)));
                    }
                }
                bytes
            }
            Self::Registry(repository) => match is_manifest(&of.media_type) {
                true => repository.manifest(of.digest.as_str()).await.map_err(|e| refused(&e))?.bytes.to_vec(),
                false => repository.blob_bytes(of, most).await.map_err(|e| refused(&e))?.to_vec(),
            },
        };
        if Digest::sha256(&bytes) != of.digest {
            return Err(Status::invalid(format!("{} is something else than its digest says", of.digest)));
        }
        Ok(bytes)
    }

    /// Bytes of a blob, as far as that is asked; nothing when it is not there.
    async fn size(&self, of: &Descriptor) -> Result<Option<u64>, Status> {
        match self {
            Self::Client(store) => store.size(of.digest.as_str()).await,
            Self::Registry(_) => Ok(Some(of.size)),
        }
    }

    /// Reads one, for code that waits.
    fn copy(
        &self,
        waiting: &Waiting,
        of: &Descriptor,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let other = |status: Status| io::Error::other(status.message().to_owned());
        match self {
            Self::Client(store) => {
                let mut coming = store.read(of.digest.as_str())?;
                take(&mut Pieces::new(|| waiting.on(coming.next()).map_err(other)))
            }
            Self::Registry(repository) => {
                let mut coming = waiting.on(async { repository.blob(of, 0).await.map_err(|e| refused(&e)) })?;
                take(&mut Pieces::new(|| {
                    waiting.on(async { coming.chunk().await.map_err(|e| refused(&e)) }).map_err(other)
                }))
            }
        }
    }
}

impl Store {
    /// The manifest or index of a digest, with what it is.
    ///
    /// # Errors
    /// When it is not there, or none.
    pub(crate) async fn top(&self, digest: &str) -> Result<(Descriptor, Vec<u8>), Status> {
        let digest = Digest::parse(digest).map_err(|e| Status::invalid(format!("invalid digest {digest:?}: {e}")))?;
        let missing = || Status::new(Code::NotFound, format!("{digest} is not in the client's directory"));
        let size = self.size(digest.as_str()).await?.ok_or_else(missing)?;
        let mut top = Descriptor::new("", digest, size);
        let bytes = Blobs::Client(self.clone()).bytes(&top, MAX_MANIFEST).await?;
        let about = Manifest::parse(&bytes).unwrap_or_default();
        let usual = if about.manifests.is_some() { INDEX } else { MANIFEST };
        top.media_type = about.media_type.unwrap_or_else(|| usual.to_owned());
        Ok((top, bytes))
    }
}

/// What a registry answers, as a failed call.
pub(crate) fn refused(error: &wharf_image::registry::DistributionError) -> Status {
    Status::new(Code::Unknown, error.message())
}

fn is_index(media_type: &str) -> bool {
    media_type.contains("image.index") || media_type.contains("manifest.list")
}

fn is_manifest(media_type: &str) -> bool {
    is_index(media_type) || media_type.contains("manifest")
}

/// What is to come.
pub(crate) struct Incoming {
    pub(crate) blobs: Blobs,
    /// What the index of the layout lists.
    pub(crate) top: Descriptor,
    /// The name that it has there.
    pub(crate) name: Option<String>,
    /// Of an index of images, only those for one of these; of all, if there are none.
    pub(crate) platforms: Vec<Platform>,
    /// Blobs that need not come.
    pub(crate) spared: Box<dyn Fn(&Descriptor) -> bool + Send>,
    /// Manifests and configurations that are not as they are there.
    pub(crate) made: Vec<Vec<u8>>,
}

/// The archive, which is made while it is read, until `over` is true: then it fails.
///
/// # Errors
/// When there is no pipe or no thread for it.
pub(crate) fn archive(wanted: Incoming, over: watch::Receiver<bool>) -> io::Result<Box<dyn Read + Send>> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let failed = Arc::new(Mutex::new(None));
    let (telling, waiting) = (Arc::clone(&failed), Waiting { handle: Handle::current(), over });
    std::thread::Builder::new().name("layout".into()).spawn(move || {
        let mut output = BufWriter::with_capacity(1 << 16, File::from(writer));
        let written = wanted.write(waiting, &mut output);
        if let Err(status) = written.and_then(|()| output.flush().map_err(|e| unwritable(&e))) {
            *telling.lock().unwrap_or_else(PoisonError::into_inner) = Some(status.message().to_owned());
        }
        // The reader sees the end behind the reason.
        drop(output);
    })?;
    Ok(Box::new(Archive { input: File::from(reader), failed }))
}

/// The end of a pipe that knows why it has ended early.
struct Archive {
    input: File,
    failed: Arc<Mutex<Option<String>>>,
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => match self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
                Some(message) => Err(io::Error::other(message)),
                None => Ok(0),
            },
            count => Ok(count),
        }
    }
}

fn unwritable(error: &dyn std::error::Error) -> Status {
    Status::new(Code::Unknown, wharf_report::chain(error))
}

fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

impl Incoming {
    fn write(&self, waiting: Waiting, output: &mut dyn Write) -> Result<(), Status> {
        let mut entry = json!({
            "mediaType": self.top.media_type, "digest": self.top.digest, "size": self.top.size,
        });
        if let Some(name) = &self.name {
            entry["annotations"] = json!({ "io.containerd.image.name": name });
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        let made = self.made.iter().map(|bytes| (Digest::sha256(bytes), bytes.as_slice())).collect();
        let mut writing = Writing { of: self, waiting, writer: Writer::new(output), made, seen: BTreeSet::new() };
        writing.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        writing.file("index.json", index.to_string().as_bytes())?;
        for (digest, bytes) in writing.made.clone() {
            writing.file(&path(&digest), bytes)?;
        }
        writing.put(&self.top, 0)?;
        writing.writer.finish().map_err(|e| unwritable(&e))
    }
}

/// An archive that is being made.
struct Writing<'a> {
    of: &'a Incoming,
    waiting: Waiting,
    writer: Writer<'a>,
    /// What does not come, and is in the archive already.
    made: BTreeMap<Digest, &'a [u8]>,
    /// What was put: each once, however often it is named.
    seen: BTreeSet<Digest>,
}

impl Writing<'_> {
    fn file(&mut self, name: &str, mut bytes: &[u8]) -> Result<(), Status> {
        self.writer.file(name, bytes.len() as u64, &mut bytes).map_err(|e| unwritable(&e))
    }

    /// Writes what a descriptor names, and what that names.
    fn put(&mut self, of: &Descriptor, depth: u32) -> Result<(), Status> {
        let is_manifest = is_manifest(&of.media_type);
        if depth > MAX_DEPTH || !self.seen.insert(of.digest.clone()) || (self.of.spared)(of) {
            return Ok(());
        }
        let wanted = self.of;
        let bytes = match self.made.get(&of.digest) {
            Some(bytes) => Some(Cow::Borrowed(*bytes)),
            None => {
                let Some(size) = self.waiting.on(wanted.blobs.size(of))? else {
                    // Of images of other platforms not all may be there.
                    return match depth {
                        0 => Err(Status::new(Code::NotFound, format!("{} is not there", of.digest))),
                        _ => Ok(()),
                    };
                };
                if is_manifest {
                    let bytes = self.waiting.on(wanted.blobs.bytes(of, MAX_MANIFEST))?;
                    self.file(&path(&of.digest), &bytes)?;
                    Some(Cow::Owned(bytes))
                } else {
                    let writer = &mut self.writer;
                    wanted.blobs.copy(&self.waiting, of, &mut |content| {
                        writer.file(&path(&of.digest), size, content).map_err(|e| unwritable(&e))
                    })?;
                    None
                }
            }
        };
        let Some(bytes) = bytes.filter(|_| is_manifest) else { return Ok(()) };
        let about = Manifest::parse(&bytes).map_err(|e| Status::invalid(format!("{}: {}", of.digest, e.message())))?;
        drop(bytes);
        let lists = [about.manifests, about.layers].into_iter().flatten().flatten();
        let listed: Vec<Descriptor> = lists.chain(about.config).collect();
        let is_wanted = |one: &&Descriptor| match &one.platform {
            None => true,
            Some(platform) => {
                wanted.platforms.is_empty() || wanted.platforms.iter().any(|own| own.distance(platform).is_some())
            }
        };
        let some = listed.iter().any(|one| one.platform.is_some() && is_wanted(&one));
        listed.iter().filter(|one| !some || is_wanted(one)).try_for_each(|one| self.put(one, depth + 1))
    }
}

/// A manifest or an index, as far as it is used: what a registry or a client says beside that takes no memory.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Manifest {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    pub(crate) config: Option<Descriptor>,
    pub(crate) manifests: Option<Vec<Descriptor>>,
    pub(crate) layers: Option<Vec<Descriptor>>,
}

impl Manifest {
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Status> {
        serde_json::from_slice(bytes).map_err(|e| Status::invalid(format!("it is no manifest: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_comes_ends_with_its_build() {
        for closes in [false, true] {
            let over = watch::Sender::new(false);
            let waiting = Waiting { handle: Handle::current(), over: over.subscribe() };
            let waits = std::thread::spawn(move || waiting.on(std::future::pending::<Result<(), Status>>()));
            if !closes {
                over.send_replace(true);
            }
            drop(over);
            let ended = tokio::task::spawn_blocking(move || waits.join().unwrap()).await.unwrap();
            assert!(ended.unwrap_err().is(Code::Cancelled));
        }
    }

    #[tokio::test]
    async fn what_was_made_is_read_once_however_often_it_is_named() {
        let steps = format!(r#"{{"steps":[{}1]}}"#, "1,".repeat(4 << 20)).into_bytes();
        let named = Descriptor::new(MANIFEST, Digest::sha256(&steps), steps.len() as u64);
        let manifest = json!({ "config": named, "layers": vec![&named; 10_000] }).to_string().into_bytes();
        let top = Descriptor::new(MANIFEST, Digest::sha256(&manifest), manifest.len() as u64);
        let reference = wharf_reference::Reference::parse("h.example/x").unwrap();
        let client = wharf_image::registry::Client::new(wharf_image::registry::ClientOptions::default()).unwrap();
        let wanted = Incoming {
            blobs: Blobs::Registry(client.repository(&reference, None)),
            top,
            name: None,
            platforms: Vec::new(),
            spared: Box::new(|_| false),
            made: vec![steps, manifest],
        };
        let bytes = wanted.made.iter().map(Vec::len).sum::<usize>();
        let over = watch::Sender::new(false);
        let mut archive = archive(wanted, over.subscribe()).unwrap();
        let read = tokio::task::spawn_blocking(move || io::copy(&mut archive, &mut io::sink())).await.unwrap().unwrap();
        assert!((bytes..bytes + (64 << 10)).contains(&usize::try_from(read).unwrap()), "{read}");
    }
}
