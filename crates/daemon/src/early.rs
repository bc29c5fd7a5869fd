//! What a daemon listens on that takes the place of another: had before the other one hears of it, so that whatever cannot
//! be had is found while that one still runs.

use std::path::PathBuf;

use crate::bound::{self, Bound, SocketFile};
use crate::inherit::Inherited;
use crate::listen::{Place, TcpPolicy};

/// Sockets of places, each of which is listened on once.
#[derive(Debug, Default)]
pub(crate) struct Early {
    bound: Vec<(Place, Vec<Bound>)>,
    /// Names that the other one has and this one does not want.
    left: Vec<PathBuf>,
}

impl Early {
    /// Has those of `places`: what the other one listens on is shared with it, the rest is made.
    ///
    /// # Errors
    /// The message for the user; the other one has lost nothing then.
    pub(crate) fn new(mut other: Inherited, places: &[Place], owner: &str, tcp: &TcpPolicy) -> Result<Self, String> {
        let mut bound = Vec::new();
        for place in places {
            let sockets = match place {
                Place::Unix(path) => match other.unix(path) {
                    // Until it is told, the name is the other one's, and who may use it.
                    Some(socket) => vec![Bound::Unix(socket, None)],
                    None => vec![bound::unix(path, owner)?],
                },
                Place::Tcp(host, port) | Place::Metrics(host, port) => {
                    let address = bound::address(host, *port)?;
                    vec![other.tcp(address).map_or_else(|| bound::tcp(address), |socket| Ok(Bound::Tcp(socket)))?]
                }
                Place::Passed(which) => crate::activation::sockets(which.as_deref(), tcp)?,
            };
            bound.push((place.clone(), sockets));
        }
        Ok(Self { bound, left: other.left() })
    }

    /// The other one has ended: its names are this one's now.
    ///
    /// # Errors
    /// The message for the user.
    pub(crate) fn settle(&mut self, owner: &str) -> Result<(), String> {
        for (place, sockets) in &mut self.bound {
            let (Place::Unix(path), [Bound::Unix(_, file @ None)]) = (place, sockets.as_mut_slice()) else { continue };
            if path.symlink_metadata().is_ok() {
                *file = Some(SocketFile::new(path));
                bound::open_to_group(path, owner)?;
            } else {
                // It has taken the name with it, as older ones do.
                *sockets = vec![bound::unix(path, owner)?];
            }
        }
        for path in self.left.drain(..) {
            let is_dead = std::os::unix::net::UnixStream::connect(&path)
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
            if is_dead {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// The sockets of a place, if it was had before.
    pub(crate) fn take(&mut self, place: &Place) -> Option<Vec<Bound>> {
        let at = self.bound.iter().position(|(its, _)| its == place)?;
        Some(self.bound.swap_remove(at).1)
    }
}
