//! The same request for several things: at the same time, answered in the order they were named.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wharf_client::Client;

use crate::app::App;
use crate::failure::{Failure, Outcome};

/// More requests than this do not run at once.
const PARALLEL: usize = 50;

/// Does the work for each name and prints what it gives. The failures are said together, at the end.
pub(crate) async fn each<F, Work>(app: &App, names: &[String], work: F) -> Outcome<u8>
where
    F: Fn(Client, String) -> Work,
    Work: Future<Output = Outcome<Option<String>>> + Send + 'static,
{
    let client = app.client().await?;
    let slots = Arc::new(Semaphore::new(PARALLEL));
    let mut running = Vec::with_capacity(names.len());
    for name in names {
        let (work, slots) = (work(client.clone(), name.clone()), slots.clone());
        running.push(tokio::spawn(async move {
            let _slot = slots.acquire().await;
            work.await
        }));
    }
    let mut failures: Vec<String> = Vec::new();
    for task in running {
        match task.await.map_err(|error| error.to_string())? {
            Ok(Some(line)) => app.say(&line)?,
            Ok(None) => {}
            Err(failure) => failures.push(failure.text),
        }
    }
    if failures.is_empty() { Ok(0) } else { Err(Failure::new(failures.join("\n"))) }
}
