//! A build's context that a server has: a repository of git's, an archive, or a Dockerfile alone.

use std::io::Read;

use wharf_build::Builder;
use wharf_build::git::Repository;
use wharf_buildkit::Remote;
use wharf_distribution::Document;
use wharf_engine::{Engine, EngineError};

use super::blocking;
use crate::http::{ApiError, document_reader};

/// Enough to tell an archive by: a tar's mark is in its first block.
const HEAD: u64 = 512;
const TAR_MARK: std::ops::Range<usize> = 257..262;
/// gzip, bzip2, xz, zstd.
const COMPRESSED: [&[u8]; 4] = [b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"];
/// More than this is no Dockerfile.
const MAX_DOCKERFILE: u64 = 2 << 20;

/// The context of a build that names an address. A Dockerfile is found under the name `dockerfile`; `keep_git_dir` counts
/// where the address says nothing of it.
///
/// # Errors
/// For an address that is neither; what the server answers; when the repository cannot be had.
pub(super) async fn context(
    engine: &Engine,
    builder: &Builder,
    remote: &str,
    dockerfile: &str,
    keep_git_dir: bool,
) -> std::result::Result<Box<dyn Read + Send>, ApiError> {
    if Repository::is_address(remote) {
        return builder.repository(remote, keep_git_dir).await.map_err(|e| ApiError::bad(e.to_string()));
    }
    if !(remote.starts_with("http://") || remote.starts_with("https://")) {
        return Err(ApiError::bad(format!("remote context {remote:?}: only http, https, git and ssh are permitted")));
    }
    let document: Document = engine.registry().document(remote).await.map_err(EngineError::from)?;
    let (reader, dockerfile) = (document_reader(document), dockerfile.to_owned());
    blocking(move || classify(reader, &dockerfile)).await
}

/// The same for who asks by BuildKit's protocol.
pub(crate) fn remote_contexts(engine: &Engine, builder: &Builder) -> Remote {
    let (engine, builder) = (engine.clone(), builder.clone());
    std::sync::Arc::new(move |remote, dockerfile, keep_git_dir| {
        let (engine, builder) = (engine.clone(), builder.clone());
        Box::pin(async move {
            let got = context(&engine, &builder, &remote, &dockerfile, keep_git_dir).await;
            got.map_err(|error| error.message)
        })
    })
}

fn classify(
    mut reader: impl Read + Send + 'static,
    dockerfile: &str,
) -> std::result::Result<Box<dyn Read + Send>, ApiError> {
    let fail = |e: std::io::Error| ApiError::bad(format!("the context cannot be fetched: {e}"));
    let mut head = Vec::new();
    reader.by_ref().take(HEAD).read_to_end(&mut head).map_err(fail)?;
    let is_archive = head.get(TAR_MARK) == Some(b"ustar") || COMPRESSED.iter().any(|mark| head.starts_with(mark));
    if is_archive {
        return Ok(Box::new(std::io::Cursor::new(head).chain(reader)));
    }
    reader.take(MAX_DOCKERFILE).read_to_end(&mut head).map_err(fail)?;
    let mut archive = Vec::new();
    let packed = (|| {
        let mut writer = wharf_archive::Writer::new(&mut archive);
        writer.file(dockerfile, head.len() as u64, &mut head.as_slice())?;
        writer.finish()
    })();
    packed.map_err(|e| ApiError::bad(format!("the Dockerfile cannot be used: {e}")))?;
    Ok(Box::new(std::io::Cursor::new(archive)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_dockerfile() {
        let read = |bytes: &'static [u8]| {
            let mut all = Vec::new();
            classify(bytes, "Dockerfile").unwrap().read_to_end(&mut all).unwrap();
            all
        };
        assert_eq!(read(b"\x1f\x8bxyz"), b"\x1f\x8bxyz");
        let packed = read(b"FROM scratch\n");
        let mut reader = wharf_archive::Reader::new(packed.as_slice());
        assert_eq!(reader.next_entry().unwrap().unwrap().path, b"Dockerfile");
    }
}
