//! `RUN --mount=type=ssh`: a socket in the command's files behind which the client's SSH agent is.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use wharf_dockerfile::Mount;

use crate::error::{BuildError, Result};

/// Connects to an agent, as often as somebody wants to speak with it.
pub type Agent = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = std::io::Result<UnixStream>> + Send>> + Send + Sync>;

/// SSH agents by ID.
pub(crate) struct Agents(pub(crate) BTreeMap<String, Agent>);

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Commands that speak with one agent at the same moment; each waits for an answer before it asks again.
const AT_ONCE: usize = 32;
/// How long the last answer may take when no question comes any more.
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);

/// A socket with somebody behind it; dropped, all connections end.
#[derive(Debug)]
pub(crate) struct Forwarding(JoinHandle<()>);

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the socket at `path`, for the owner and with the mode that the mount says. The value is a handle of it.
pub(crate) fn forward(runtime: &Handle, path: &Path, agent: Agent, mount: &Mount) -> Result<(OwnedFd, Forwarding)> {
    use std::os::unix::fs::PermissionsExt as _;
    let failing = |e: std::io::Error| BuildError::system("the SSH agent cannot be forwarded", &e);
    let listener = StdListener::bind(path).map_err(failing)?;
    listener.set_nonblocking(true).map_err(failing)?;
    std::os::unix::fs::chown(path, mount.uid.or(Some(0)), mount.gid.or(Some(0))).map_err(failing)?;
    let mode = std::fs::Permissions::from_mode(mount.mode.unwrap_or(0o600) & 0o777);
    std::fs::set_permissions(path, mode).map_err(failing)?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let handle = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(|e| failing(e.into()))?;
    let task = runtime.spawn(async move {
        let Ok(listener) = UnixListener::from_std(listener) else { return };
        let mut open = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                Some(_) = open.join_next(), if !open.is_empty() => continue,
                accepted = listener.accept(), if open.len() < AT_ONCE => accepted,
            };
            let Ok((mut command, _)) = accepted else { return };
            let agent = Arc::clone(&agent);
            open.spawn(async move {
                // A command whose agent does not answer sees a connection that is closed at once.
                match agent().await {
                    Ok(mut client) => join(&mut command, &mut client).await,
                    Err(error) => tracing::debug!("the client's SSH agent cannot be reached: {error}"),
                }
            });
        }
    });
    Ok((handle, Forwarding(task)))
}

/// Both directions, to the end of the answers. The end of the questions is not told: it would be the end of all.
async fn join(command: &mut UnixStream, client: &mut UnixStream) {
    let ((mut asked, mut answered), (mut from, mut to)) = (command.split(), client.split());
    let questions = async {
        let _ = tokio::io::copy(&mut asked, &mut to).await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = questions => {}
        _ = tokio::io::copy(&mut from, &mut answered) => {}
    }
}
