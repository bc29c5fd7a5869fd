//! `--ssh`: the user's SSH agent for commands of a build.

use std::os::unix::fs::FileTypeExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use wharf_client::Client;

use crate::failure::Outcome;
use crate::parse::Matches;

/// Agents by ID. The token tells the engine which build they are for.
#[derive(Debug)]
pub(super) struct Agents {
    sockets: Vec<(String, PathBuf)>,
    token: String,
}

/// Refuses what is no `ID[=SOCKET]`.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.split('=').next().unwrap_or_default().is_empty() {
        Err(format!("invalid ssh value: {text:?}"))
    } else {
        Ok(())
    }
}

impl Agents {
    /// What the flags ask for.
    pub(super) fn of(matches: &Matches) -> Outcome<Self> {
        let mut sockets = Vec::new();
        for text in matches.all("ssh") {
            let (id, path) = match text.split_once('=') {
                Some((id, path)) => (id, path.to_owned()),
                None => (text.as_str(), std::env::var("SSH_AUTH_SOCK").unwrap_or_default()),
            };
            if path.is_empty() {
                return Err("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set".into());
            }
            let path = PathBuf::from(path);
            let meta = std::fs::metadata(&path).map_err(|error| wharf_report::path("stat", &path, &error))?;
            if !meta.file_type().is_socket() {
                let message = "is not the socket of an SSH agent; add the key to an agent (ssh-add) and give that";
                return Err(format!("{} {message}", path.display()).into());
            }
            if sockets.iter().any(|(other, _)| other == id) {
                return Err(format!("duplicate ssh agent ID {id}").into());
            }
            sockets.push((id.to_owned(), path));
        }
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        Ok(Self { sockets, token: random.iter().map(|byte| format!("{byte:02x}")).collect() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    /// What the engine is told of them.
    pub(super) fn tell(&self, head: &mut Value) {
        head["Agents"] = self.sockets.iter().map(|(id, _)| json!(id)).collect();
        head["Token"] = json!(self.token);
    }

    /// Forwards them until the answer is dropped.
    pub(super) fn forward(self, client: &Client) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for (id, path) in self.sockets {
            all.spawn(forward(client.clone(), self.token.clone(), id, path));
        }
        all
    }
}

async fn forward(client: Client, token: String, id: String, path: PathBuf) {
    let mut open = JoinSet::new();
    loop {
        let waiting = client.post("/build/agent").query("token", &token).query("id", &id).hijack().await;
        // The build says what it lacks.
        let Ok(mut engine) = waiting else { return };
        let mut first = [0; 4096];
        let count = match engine.read(&mut first).await {
            Ok(0) | Err(_) => return,
            Ok(count) => count,
        };
        let path = path.clone();
        open.spawn(async move {
            let Ok(mut agent) = UnixStream::connect(&path).await else { return };
            if agent.write_all(&first[..count]).await.is_ok() {
                let _ = tokio::io::copy_bidirectional(&mut engine, &mut agent).await;
            }
        });
        while open.try_join_next().is_some() {}
    }
}
