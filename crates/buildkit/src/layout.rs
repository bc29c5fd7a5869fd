//! OCI layouts that come blob by blob, from a client's content store or a registry, as the archive that the builder reads.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
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
        handle: &Handle,
        of: &Descriptor,
        take: &mut dyn FnMut(&mut dyn Read) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let other = |status: Status| io::Error::other(status.message().to_owned());
        match self {
            Self::Client(store) => {
                let mut coming = store.read(of.digest.as_str())?;
                take(&mut Pieces::new(|| handle.block_on(coming.next()).map_err(other)))
            }
            Self::Registry(repository) => {
                let mut coming = handle.block_on(repository.blob(of, 0)).map_err(|e| refused(&e))?;
                take(&mut Pieces::new(|| handle.block_on(coming.chunk()).map_err(|e| io::Error::other(e.message()))))
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

/// The archive, which is made while it is read.
///
/// # Errors
/// When there is no pipe or no thread for it.
pub(crate) fn archive(wanted: Incoming) -> io::Result<Box<dyn Read + Send>> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let failed = Arc::new(Mutex::new(None));
    let (telling, handle) = (Arc::clone(&failed), Handle::current());
    std::thread::Builder::new().name("layout".into()).spawn(move || {
        let mut output = BufWriter::with_capacity(1 << 16, File::from(writer));
        let written = wanted.write(&handle, &mut output);
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
    fn write(&self, handle: &Handle, output: &mut dyn Write) -> Result<(), Status> {
        let mut writer = Writer::new(output);
        let mut file = |name: &str, bytes: &[u8]| {
            let mut content = bytes;
            writer.file(name, bytes.len() as u64, &mut content).map_err(|e| unwritable(&e))
        };
        let mut entry = json!({
            "mediaType": self.top.media_type, "digest": self.top.digest, "size": self.top.size,
        });
        if let Some(name) = &self.name {
            entry["annotations"] = json!({ "io.containerd.image.name": name });
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [entry] });
        file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        file("index.json", index.to_string().as_bytes())?;
        let mut seen = BTreeSet::new();
        for bytes in &self.made {
            let digest = Digest::sha256(bytes);
            file(&path(&digest), bytes)?;
            seen.insert(digest);
        }
        self.put(handle, &mut writer, &self.top, 0, &mut seen)?;
        writer.finish().map_err(|e| unwritable(&e))
    }

    /// Writes what a descriptor names, and what that names.
    fn put(
        &self,
        handle: &Handle,
        writer: &mut Writer<'_>,
        of: &Descriptor,
        depth: u32,
        seen: &mut BTreeSet<Digest>,
    ) -> Result<(), Status> {
        let made = self.made.iter().find(|bytes| Digest::sha256(bytes) == of.digest);
        let is_manifest = is_manifest(&of.media_type);
        if depth > MAX_DEPTH || (made.is_none() && !seen.insert(of.digest.clone())) || (self.spared)(of) {
            return Ok(());
        }
        let bytes = match made {
            Some(bytes) => Some(bytes.clone()),
            None => {
                let Some(size) = handle.block_on(self.blobs.size(of))? else {
                    // Of images of other platforms not all may be there.
                    return match depth {
                        0 => Err(Status::new(Code::NotFound, format!("{} is not there", of.digest))),
                        _ => Ok(()),
                    };
                };
                if is_manifest {
                    let bytes = handle.block_on(self.blobs.bytes(of, MAX_MANIFEST))?;
                    let mut content = bytes.as_slice();
                    let written = writer.file(&path(&of.digest), bytes.len() as u64, &mut content);
                    written.map_err(|e| unwritable(&e))?;
                    Some(bytes)
                } else {
                    self.blobs.copy(handle, of, &mut |content| {
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
                self.platforms.is_empty() || self.platforms.iter().any(|own| own.distance(platform).is_some())
            }
        };
        let some = listed.iter().any(|one| one.platform.is_some() && is_wanted(&one));
        listed
            .iter()
            .filter(|one| !some || is_wanted(one))
            .try_for_each(|one| self.put(handle, writer, one, depth + 1, seen))
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
