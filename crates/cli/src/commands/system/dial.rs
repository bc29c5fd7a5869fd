//! `docker system dial-stdio`: standard input and output become a connection to the engine. Whoever reaches this machine
//! by other means (ssh) speaks to the engine through it.

use std::io::Write as _;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wharf_client::ClientError;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::parse::Matches;
use crate::stream;

pub(crate) static COMMAND: Command = Command::new(
    "",
    "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
    Arity::None,
    |app, matches| Box::pin(run(app, matches)),
);

/// Here it is the system's words that count.
fn reason(error: ClientError) -> String {
    match error {
        ClientError::Unreachable { address, source } => {
            let (network, place) = address.split_once("://").unwrap_or(("", &address));
            format!("dial {network} {place}: connect: {}", wharf_report::os(&source))
        }
        error => error.to_string(),
    }
}

async fn run(app: &App, _: &Matches) -> Outcome<u8> {
    // Starts a daemon where one is due.
    let client = app.client().await?;
    let connection =
        client.dial().await.map_err(|error| format!("failed to open the raw stream connection: {}", reason(error)))?;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let input = async {
        let mut chunks = stream::stdin_chunks();
        while let Some(chunk) = chunks.recv().await {
            if writer.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    };
    let output = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let count = reader.read(&mut buffer).await?;
            if count == 0 {
                return Ok::<(), std::io::Error>(());
            }
            let mut stdout = std::io::stdout().lock();
            stdout.write_all(&buffer[..count])?;
            stdout.flush()?;
        }
    };
    tokio::pin!(input, output);
    tokio::select! {
        done = &mut output => done?,
        () = &mut input => output.await?,
    }
    Ok(0)
}
