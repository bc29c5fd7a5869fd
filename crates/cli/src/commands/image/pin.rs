//! `wharf image pin` and `unpin`: which images no prune and no budget takes. Docker has no such commands.

use crate::app::App;
use crate::command::{Arity, Command};
use crate::each::each;
use crate::failure::Outcome;
use crate::parse::Matches;

pub(crate) static PIN: Command = Command::new(
    "IMAGE [IMAGE...]",
    "Keep one or more images from being pruned or evicted",
    Arity::AtLeast(1),
    |app, matches| Box::pin(pin(app, matches, "pin")),
);

pub(crate) static UNPIN: Command =
    Command::new("IMAGE [IMAGE...]", "Let one or more pinned images go again", Arity::AtLeast(1), |app, matches| {
        Box::pin(pin(app, matches, "unpin"))
    });

async fn pin(app: &App, matches: &Matches, verb: &'static str) -> Outcome<u8> {
    each(app, &matches.arguments, |client, name| async move {
        client.post(&format!("/images/{name}/{verb}")).send().await?;
        Ok(Some(name))
    })
    .await
}
