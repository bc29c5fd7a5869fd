//! A body that goes to a file or to standard output.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use tokio::io::AsyncWriteExt as _;
use wharf_client::Response;

use crate::failure::{Failure, Outcome};
use crate::stream;

/// An archive must not go to a terminal.
pub(crate) fn refuse_terminal(output: Option<&str>) -> Outcome {
    if output.is_none() && std::io::stdout().is_terminal() {
        return Err("cowardly refusing to save to a terminal. Use the -o flag or redirect".into());
    }
    Ok(())
}

/// Refuses a file that cannot be made, before anything is asked of the engine.
pub(crate) fn check(output: Option<&str>) -> Outcome {
    let Some(output) = output else { return Ok(()) };
    let path = Path::new(output);
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    if let Some(dir) = dir
        && let Err(error) = std::fs::metadata(dir)
    {
        return Err(format!("invalid output path: {}", wharf_report::path("stat", dir, &error)).into());
    }
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => Err("cannot write to a directory".into()),
        Ok(meta) if meta.is_file() => Ok(()),
        Ok(meta) => {
            use std::os::unix::fs::FileTypeExt as _;
            let kind = meta.file_type();
            match () {
                // A pipe may well be written to.
                () if kind.is_fifo() => Ok(()),
                () if kind.is_char_device() => Err("cannot write to a character device file".into()),
                () if kind.is_block_device() => Err("cannot write to a block device file".into()),
                () => Err("cannot write to an irregular file".into()),
            }
        }
        Err(_) => Ok(()),
    }
}

/// Writes the body; a file appears under its name when it is complete.
pub(crate) async fn save(mut response: Response, output: Option<&str>) -> Outcome {
    let Some(output) = output else {
        while let Some(chunk) = response.chunk().await? {
            stream::write(false, chunk).await?;
        }
        return Ok(());
    };
    let path = Path::new(output);
    if std::fs::metadata(path).is_ok_and(|meta| !meta.is_file()) {
        let file = tokio::fs::OpenOptions::new().write(true).open(path).await;
        let file = file.map_err(|error| Failure::new(wharf_report::path("open", path, &error)))?;
        return copy(response, file, path).await;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp{}", std::process::id()));
    let temporary: PathBuf = path.with_file_name(name);
    let file = tokio::fs::File::create(&temporary).await;
    let file = file.map_err(|error| Failure::new(wharf_report::path("open", path, &error)))?;
    let copied = copy(response, file, path).await;
    if copied.is_err() {
        let _ = std::fs::remove_file(&temporary);
        return copied;
    }
    std::fs::rename(&temporary, path).map_err(|error| Failure::new(wharf_report::path("rename", path, &error)))
}

async fn copy(mut response: Response, mut file: tokio::fs::File, path: &Path) -> Outcome {
    let wrong = |error: std::io::Error| Failure::new(wharf_report::path("write", path, &error));
    while let Some(chunk) = response.chunk().await? {
        file.write_all(&chunk).await.map_err(wrong)?;
    }
    file.flush().await.map_err(wrong)
}
