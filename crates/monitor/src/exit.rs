//! The container's end, kept for a daemon that is not there.

use std::fs;
use std::io;
use std::path::Path;

use crate::state::Exit;

/// Writes `exit.json`, whole or not at all. It is there for a daemon that was killed, so it need not survive a crash
/// of the host, after which no container runs: no sync, which would delay every exit.
pub(crate) fn write(dir: &Path, exit: &Exit) -> io::Result<()> {
    let temporary = dir.join("exit.json.new");
    fs::write(&temporary, serde_json::to_vec(exit)?)?;
    fs::rename(&temporary, dir.join("exit.json"))
}
