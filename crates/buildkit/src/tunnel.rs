//! A connection in a call: `Control.Session` carries a client's session as messages of bytes.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use crate::grpc::{Messages, Sender, Status};
use crate::proto::Piece;

/// Bytes that wait in each direction.
const BUFFER: usize = 64 << 10;

/// The end of such a connection, and the work of moving its bytes.
pub(crate) fn connection(
    mut messages: Messages,
    sender: Sender,
) -> (DuplexStream, impl Future<Output = Result<(), Status>> + Send + 'static) {
    let (ours, theirs) = tokio::io::duplex(BUFFER);
    let (mut from, mut to) = tokio::io::split(theirs);
    let working = async move {
        let coming = async {
            while let Some(piece) = messages.next::<Piece>().await? {
                if to.write_all(&piece.data).await.is_err() {
                    break;
                }
            }
            let _ = to.shutdown().await;
            Ok(())
        };
        let going = async {
            let mut buffer = vec![0; BUFFER / 2];
            while let Ok(count @ 1..) = from.read(&mut buffer).await {
                let data = Bytes::copy_from_slice(&buffer[..count]);
                if !sender.send(&Piece { data }).await {
                    break;
                }
            }
        };
        tokio::select! {
            done = coming => done,
            () = going => Ok(()),
        }
    };
    (ours, working)
}
