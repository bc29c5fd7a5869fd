//! A connection to the engine of another machine: `ssh` runs `docker system dial-stdio` there.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use wharf_sys::disposition::tied_and_ignoring;

/// What a terminal or a caller sends to all of a process group. Who waits for a container passes it on to it, over this connection.
/// In a session of its own ssh could not ask for a password. It ends with this process, however that ends.
const PASSING: &[Signal] = &[Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::TSTP];

/// The streams of a running `ssh`. Dropped: it ends.
#[derive(Debug)]
pub(crate) struct SshStream {
    _child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
}

/// Starts ssh; it asks for what it needs (passwords, host keys) by itself. `socket` is the engine's there.
pub(crate) fn connect(
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
    socket: Option<&str>,
) -> io::Result<SshStream> {
    let mut command = Command::new("ssh");
    command.args(["-o", "ConnectTimeout=30", "-T"]);
    if let Some(user) = user {
        command.args(["-l", user]);
    }
    if let Some(port) = port {
        command.args(["-p", &port.to_string()]);
    }
    command.args(["--", host, &dial(socket)]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    tied_and_ignoring(command.as_std_mut(), PASSING);
    let mut child = command.spawn()?;
    let missing = || io::Error::other("ssh has no streams");
    let (input, output) = (child.stdin.take().ok_or_else(missing)?, child.stdout.take().ok_or_else(missing)?);
    Ok(SshStream { _child: child, input: Some(input), output })
}

/// What runs there, as its shell reads it.
fn dial(socket: Option<&str>) -> String {
    match socket {
        Some(socket) => format!("docker '--host=unix://{}' system dial-stdio", socket.replace('\'', "'\\''")),
        None => "docker system dial-stdio".into(),
    }
}

impl AsyncRead for SshStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SshStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Closes the program's input, which is all of our direction.
    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_one_word_of_the_shell_there() {
        assert_eq!(dial(None), "docker system dial-stdio");
        assert_eq!(dial(Some("/run/x.sock")), "docker '--host=unix:///run/x.sock' system dial-stdio");
        assert_eq!(dial(Some("/a'; b")), r"docker '--host=unix:///a'\''; b' system dial-stdio");
    }
}
