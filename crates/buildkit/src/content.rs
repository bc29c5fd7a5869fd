//! Content stores of a client: directories with OCI layouts that it serves under names, for caches, outputs and contexts.
//!
//! Source: moby/buildkit `session/content`; containerd `plugins/services/content/contentserver`.

use std::io::{self, Read};

use bytes::Bytes;
use tokio::runtime::Handle;

use crate::grpc::client::Answers;
use crate::grpc::{Code, Status};
use crate::proto::content::{
    COMMIT, InfoRequest, InfoResponse, ReadRequest, ReadResponse, WRITE, WriteRequest, WriteResponse,
};
use crate::session::Session;

const INFO_METHOD: &str = "/containerd.services.content.v1.Content/Info";
const READ_METHOD: &str = "/containerd.services.content.v1.Content/Read";
const WRITE_METHOD: &str = "/containerd.services.content.v1.Content/Write";
/// Which of its stores is meant.
const NAME: &str = "buildkit-attachable-store-id";
/// Sent at once. Clients refuse messages of more than 4 MiB.
const CHUNK: usize = 1 << 20;

/// One of them. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    session: Session,
    metadata: Vec<(String, String)>,
}

impl Store {
    /// # Errors
    /// When the client serves none at all.
    pub(crate) fn new(session: &Session, name: &str) -> Result<Self, Status> {
        if !session.serves(READ_METHOD) {
            return Err(Status::new(Code::FailedPrecondition, format!("the client serves no content store {name}")));
        }
        Ok(Self { session: session.clone(), metadata: vec![(NAME.to_owned(), name.to_owned())] })
    }

    /// Bytes of a blob; nothing when it is not there.
    ///
    /// # Errors
    /// When the client does not answer.
    pub(crate) async fn size(&self, digest: &str) -> Result<Option<u64>, Status> {
        let question = InfoRequest { digest: digest.to_owned() };
        let mut answers = self.session.callee.asked(INFO_METHOD, &self.metadata, &question)?;
        match self.session.answered(INFO_METHOD, answers.next::<InfoResponse>()).await {
            Ok(answer) => {
                let info = answer.and_then(|answer| answer.info);
                Ok(info.map(|info| u64::try_from(info.size).unwrap_or_default()))
            }
            Err(status) if status.is(Code::NotFound) => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Begins to read a blob.
    ///
    /// # Errors
    /// When it cannot be asked for.
    pub(crate) fn read(&self, digest: &str) -> Result<Coming, Status> {
        let question = ReadRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let answers = self.session.callee.asked(READ_METHOD, &self.metadata, &question)?;
        Ok(Coming { session: self.session.clone(), answers })
    }

    /// Writes a blob, unless it is there. It waits for the disk: not for a task that others wait for.
    ///
    /// # Errors
    /// When the content cannot be read, or the client does not take it.
    pub(crate) fn write(&self, handle: &Handle, digest: &str, size: u64, content: &mut dyn Read) -> Result<(), Status> {
        if handle.block_on(self.size(digest))? == Some(size) {
            return Ok(());
        }
        let (sender, mut answers) = self.session.callee.both(WRITE_METHOD, &self.metadata)?;
        let total = i64::try_from(size).unwrap_or(i64::MAX);
        let mut offset = 0;
        let mut buffer = vec![0; CHUNK];
        loop {
            let wanted = buffer.len().min(usize::try_from(size - offset).unwrap_or(usize::MAX));
            content
                .read_exact(&mut buffer[..wanted])
                .map_err(|e| Status::new(Code::Unknown, format!("{digest} cannot be read: {e}")))?;
            let request = WriteRequest {
                action: if offset == size { COMMIT } else { WRITE },
                reference: format!("wharf-{digest}"),
                total,
                expected: digest.to_owned(),
                offset: i64::try_from(offset).unwrap_or(i64::MAX),
                data: Bytes::copy_from_slice(&buffer[..wanted]),
            };
            let asked = async {
                // A client that refuses has ended the call: what it says is behind it.
                sender.send(&request).await;
                answers.next::<WriteResponse>().await
            };
            match handle.block_on(self.session.answered(WRITE_METHOD, asked)) {
                Ok(Some(_)) => {}
                // It ends the call behind the last one.
                Ok(None) if request.action == COMMIT => return Ok(()),
                Ok(None) => return Err(Status::unavailable("the client has ended the call")),
                // Somebody else has written it meanwhile.
                Err(status) if status.is(Code::AlreadyExists) => return Ok(()),
                Err(status) => return Err(status),
            }
            if request.action == COMMIT {
                return Ok(());
            }
            offset += wanted as u64;
        }
    }
}

/// A blob on its way here.
#[derive(Debug)]
pub(crate) struct Coming {
    session: Session,
    answers: Answers,
}

impl Coming {
    /// The next piece; nothing at the end.
    ///
    /// # Errors
    /// When it cannot be read there, or the client does not answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let piece = self.session.answered(READ_METHOD, self.answers.next::<ReadResponse>()).await?;
        Ok(piece.map(|piece| piece.data))
    }
}

/// What comes in pieces, for code that waits.
pub(crate) struct Pieces<F> {
    next: F,
    current: Bytes,
}

impl<F: FnMut() -> io::Result<Option<Bytes>>> Pieces<F> {
    pub(crate) fn new(next: F) -> Self {
        Self { next, current: Bytes::new() }
    }
}

impl<F: FnMut() -> io::Result<Option<Bytes>>> Read for Pieces<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match (self.next)()? {
                Some(piece) => self.current = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.current.len());
        buffer[..count].copy_from_slice(&self.current.split_to(count));
        Ok(count)
    }
}
