//! Signals that go on to the container.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use wharf_client::Client;

/// The signals that are passed on, by the names of the API. Those that say something about this process alone (its
/// children, its pipes, its faults, its terminal job) are not among them.
const FORWARDED: &[(i32, &str)] = &[
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (20, "TSTP"),
    (24, "XCPU"),
    (25, "XFSZ"),
    (26, "VTALRM"),
    (27, "PROF"),
    (29, "IO"),
    (30, "PWR"),
];

/// Somebody who insists this often wants us gone.
const INSISTENT: usize = 3;

/// Passes every signal on to the container until dropped.
#[derive(Debug)]
pub(crate) struct Forward(Vec<JoinHandle<()>>);

impl Forward {
    /// Starts to catch signals. Those that come before the container runs are passed on as soon as it can take them.
    pub(crate) fn start(client: &Client, container: &str) -> Self {
        let (sender, mut caught) = mpsc::unbounded_channel();
        let mut tasks = Vec::new();
        for &(number, name) in FORWARDED {
            let Ok(mut stream) = signal(SignalKind::from_raw(number)) else { continue };
            let sender = sender.clone();
            tasks
                .push(tokio::spawn(async move { while stream.recv().await.is_some() && sender.send(name).is_ok() {} }));
        }
        let (client, path) = (client.clone(), format!("/containers/{container}/kill"));
        tasks.push(tokio::spawn(async move {
            let mut insisted = 0;
            while let Some(name) = caught.recv().await {
                insisted += usize::from(matches!(name, "INT" | "TERM"));
                if insisted >= INSISTENT {
                    eprintln!("\ngot {INSISTENT} SIGTERM/SIGINTs, forcefully exiting");
                    std::process::exit(1);
                }
                let _ = client.post(&path).query("signal", name).send().await;
            }
        }));
        Self(tasks)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Tells the container the size of our terminal, now and whenever it changes; until dropped.
#[derive(Debug)]
pub(crate) struct Resize(JoinHandle<()>);

/// How often the first size is tried: the process may not be there yet.
const TRIES: u32 = 10;

impl Resize {
    /// `path` is the API's path of the thing that has the terminal.
    pub(crate) fn start(client: &Client, path: String) -> Self {
        let client = client.clone();
        Self(tokio::spawn(async move {
            let changes = signal(SignalKind::window_change());
            for attempt in 1..=TRIES {
                if tell(&client, &path).await {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10) * attempt).await;
            }
            let Ok(mut changes) = changes else { return };
            while changes.recv().await.is_some() {
                tell(&client, &path).await;
            }
        }))
    }
}

async fn tell(client: &Client, path: &str) -> bool {
    let (rows, columns) = crate::terminal::size();
    if rows == 0 && columns == 0 {
        return true;
    }
    client.post(path).query("h", rows).query("w", columns).send().await.is_ok()
}

impl Drop for Resize {
    fn drop(&mut self) {
        self.0.abort();
    }
}
