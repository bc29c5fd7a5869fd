//! Images in a directory of the client's (`tar=false`): its content store takes the blobs, and the client writes the index.

use std::fs::File;
use std::io::{BufWriter, Read, Write};

use serde_json::{Value, json};
use tokio::runtime::Handle;
use wharf_archive::Reader;

use super::Archived;
use crate::content::Store;
use crate::control::blocking;
use crate::grpc::{Code, Status};

/// What clients call the store of an output.
pub(super) const STORE: &str = "export";
/// No index is larger.
const MAX_INDEX: u64 = 4 << 20;

/// Sends what an archive of the images has in it. The value is the descriptor of the image, or of the index of several.
///
/// # Errors
/// When the images cannot be read, or the client does not take them.
pub(super) async fn send(store: Store, archived: Archived) -> Result<String, Status> {
    let handle = Handle::current();
    let failing = |e: &dyn std::error::Error| Status::new(Code::Unknown, wharf_report::chain(e));
    blocking(move || {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| failing(&e))?;
        let writing = std::thread::Builder::new().name("export".into()).spawn(move || {
            let mut output = BufWriter::with_capacity(1 << 16, File::from(writer));
            archived.write(&mut output)?;
            output.flush().map_err(|e| failing(&e))
        });
        let writing = writing.map_err(|e| failing(&e))?;
        let read = take(&store, &handle, File::from(reader));
        let written = writing.join().unwrap_or_else(|_| Err(Status::new(Code::Internal, "the export has crashed")));
        // A reader that has given up ends the writer: its reason comes first, and an archive that ends early has the writer's.
        match (read, written) {
            (Ok(None), Err(status)) | (Err(status), _) => Err(status),
            (Ok(found), Ok(())) => found.ok_or_else(|| Status::new(Code::Internal, "an archive without an index")),
            (Ok(Some(_)), Err(status)) => Err(status),
        }
    })
    .await
}

fn take(store: &Store, handle: &Handle, input: File) -> Result<Option<String>, Status> {
    let failing = |e: &dyn std::error::Error| Status::new(Code::Unknown, wharf_report::chain(e));
    let mut reader = Reader::new(input);
    let mut found = None;
    while let Some(entry) = reader.next_entry().map_err(|e| failing(&e))? {
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        if let Some(hex) = name.strip_prefix("blobs/sha256/").filter(|hex| !hex.is_empty()) {
            store.write(handle, &format!("sha256:{hex}"), entry.size, &mut reader)?;
        } else if name == "index.json" {
            let mut text = String::new();
            (&mut reader).take(MAX_INDEX).read_to_string(&mut text).map_err(|e| failing(&e))?;
            let index: Value = serde_json::from_str(&text).map_err(|e| failing(&e))?;
            let first = &index["manifests"][0];
            let described =
                json!({ "mediaType": first["mediaType"], "digest": first["digest"], "size": first["size"] });
            found = Some(described.to_string());
        }
    }
    Ok(found)
}
