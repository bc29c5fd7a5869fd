//! Work that waits for clients: an archive that comes, or goes, as slowly as they like.
//!
//! The runtime has so many threads for what waits, and whatever looks at the disk needs one for a moment: as many
//! clients that send or read nothing would hold up everybody. So what waits for a client has a thread of its own.

use std::thread;

use hyper::StatusCode;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use crate::http::ApiError;

/// So much of it goes on at once; more waits its turn, and nothing else does.
const MOST: usize = 1024;

static PLACES: Semaphore = Semaphore::const_new(MOST);

/// Does `work`, whether or not somebody waits for it.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) {
    tokio::spawn(async move {
        let Ok(place) = PLACES.acquire().await else { return };
        let runtime = Handle::current();
        let made = thread::Builder::new().name("for-a-client".into()).spawn(move || {
            let (_context, _place) = (runtime.enter(), place);
            work();
        });
        if let Err(error) = made {
            // Dropped with all that it has: the client sees the end.
            tracing::error!("cannot make a thread for a client: {error}");
        }
    });
}

/// Does `work` and waits for it.
///
/// # Errors
/// Those of `work`; 500 when it panicked, or could not begin.
pub(crate) async fn patiently<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let (sender, done) = oneshot::channel();
    spawn(move || {
        let _ = sender.send(work());
    });
    match done.await {
        Ok(done) => done,
        Err(_) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the request's work was broken off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_does_not_wait_for_clients() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).max_blocking_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let (sender, receiver) = std::sync::mpsc::channel::<()>();
            let receiver = std::sync::Arc::new(std::sync::Mutex::new(receiver));
            let waiting: Vec<_> = (0..8)
                .map(|number| {
                    let receiver = std::sync::Arc::clone(&receiver);
                    tokio::spawn(patiently(move || {
                        assert!(Handle::try_current().is_ok());
                        let _ = receiver.lock().unwrap().recv();
                        Ok(number)
                    }))
                })
                .collect();
            assert_eq!(tokio::task::spawn_blocking(|| 1).await.unwrap(), 1);
            drop(sender);
            for (number, waited) in waiting.into_iter().enumerate() {
                assert_eq!(waited.await.unwrap().unwrap(), number);
            }
        });
    }
}
