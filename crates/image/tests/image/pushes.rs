//! Images of several platforms on their way to a registry: all of them, one, or what is here.

use serde_json::Value;
use tokio::sync::mpsc;
use wharf_image::{ErrorKind, Form, Pushed, Remove};
use wharf_reference::{Digest, Reference};

use crate::Place;
use crate::platforms::{architectures, clean, for_each, pull_all, remove, shelve, some};
use crate::registry::{Shelf, client, pull, push};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_takes_all_platforms_or_one() {
    let (shelf, here, there) = (Shelf::new(), Place::new(), Place::new());
    let name = shelf.name("many:1");
    let (_, ids) = shelve(&client().repository(&name, None), "1", "").await;
    pull_all(&here.images, &name).await;
    let copy = shelf.name("other:all");
    here.images.tag(&name.familiar(), &copy.familiar()).unwrap();
    let (pushed, lines) = push(&here.images, &copy).await;
    let pushed = pushed.unwrap();
    assert_eq!(lines.iter().filter(|line| line.ends_with(": Preparing")).count(), 3, "{lines:#?}");
    assert_eq!(lines.last().unwrap(), &format!("all: digest: {} size: {}", pushed.digest, pushed.size));
    let all = pull_all(&there.images, &copy).await;
    assert_eq!(all.iter().map(|image| image.id.clone()).collect::<Vec<_>>(), ids);
    assert_eq!(here.images.resolve(&copy.familiar()).unwrap().repo_digests.len(), 2);
    // One of them, as an image of one platform.
    let platform = format!("linux/{}", architectures()[1]);
    let one = shelf.name("other:one");
    here.images.tag(&name.familiar(), &one.familiar()).unwrap();
    let sender = mpsc::unbounded_channel().0;
    here.images.push(&one, Some(&platform), None, &client(), None, sender).await.unwrap();
    assert_eq!(pull(&there.images, &one, None).await.0.unwrap().id, ids[1]);
    let sender = mpsc::unbounded_channel().0;
    let error = here.images.push(&one, Some("linux/mips64le"), None, &client(), None, sender).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    for place in [&here, &there] {
        clean(place);
    }
}

/// Pushes, and gives what that tells programs.
async fn push_and_hear(place: &Place, name: &Reference) -> (wharf_image::Result<Pushed>, Vec<Value>) {
    let (sender, mut messages) = mpsc::unbounded_channel();
    let pushed = place.images.push(name, None, None, &client(), None, sender).await;
    let mut heard = Vec::new();
    while let Some(message) = messages.recv().await {
        heard.extend(message.aux);
    }
    (pushed, heard)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_index_that_is_not_all_here_one_image_goes() {
    let shelf = Shelf::new();
    let name = shelf.name("many:1");
    let (index, _) = shelve(&client().repository(&name, None), "1", "").await;
    let [own, second, third] = architectures().map(|one| format!("linux/{one}"));
    let copy = shelf.name("other:only");
    for (platforms, goes) in [
        (vec![&second], Some(&second)),
        (vec![&own, &third], Some(&own)),
        // None of them is this host's, and nobody has said which.
        (vec![&second, &third], None),
    ] {
        let place = Place::new();
        for platform in platforms {
            pull(&place.images, &name, Some(platform)).await.0.unwrap();
        }
        place.images.tag(&name.familiar(), &copy.familiar()).unwrap();
        let (pushed, heard) = push_and_hear(&place, &copy).await;
        let Some(platform) = goes else {
            let error = pushed.unwrap_err();
            assert_eq!((error.kind(), heard.len()), (ErrorKind::Conflict, 0), "{error}");
            continue;
        };
        let pushed = pushed.unwrap();
        assert_ne!(pushed.digest, index);
        assert_eq!(heard[0]["ManifestPushedInsteadOfIndex"], true);
        assert_eq!(heard[0]["OriginalIndex"]["digest"], index.as_str());
        assert_eq!(heard[0]["SelectedManifest"]["digest"], pushed.digest.as_str());
        let fetched = client().repository(&copy, None).manifest("only").await.unwrap();
        let wharf_distribution::Manifest::Image(fetched) = fetched.parse().unwrap() else { panic!("an index") };
        assert_eq!(fetched.config.digest, place.images.resolve_for(&copy.familiar(), Some(platform)).unwrap().id);
        clean(&place);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_digest_of_a_push_leads_to_what_was_pushed() {
    let (shelf, place) = (Shelf::new(), Place::new());
    let name = shelf.name("many:1");
    let (came_with, ids) = shelve(&client().repository(&name, None), "1", "").await;
    let platforms = architectures().map(|one| format!("linux/{one}"));
    pull_all(&place.images, &name).await;
    let copy = shelf.name("other:1");
    place.images.tag(&name.familiar(), &copy.familiar()).unwrap();
    let sender = mpsc::unbounded_channel().0;
    let one = place.images.push(&copy, Some(&platforms[1]), None, &client(), None, sender).await.unwrap();
    let by_digest = |digest: &Digest| copy.clone().with_digest(digest.clone()).familiar();
    assert_eq!(place.images.resolve(&by_digest(&one.digest)).unwrap().id, ids[1]);
    assert_eq!(place.images.resolve(&copy.familiar()).unwrap().id, ids[0]);
    assert_eq!(place.images.summaries().unwrap().iter().filter(|image| image.part).count(), 2, "one line is shown");
    assert!(place.images.prune(true, &|_| false, &|_| true).unwrap().is_empty());
    // With other blobs, it is another index than it came with.
    let sender = mpsc::unbounded_channel().0;
    let all = place.images.push(&copy, None, None, &client(), Some(Form::Zstd), sender).await.unwrap();
    let shown = place.images.index(&by_digest(&all.digest)).unwrap().unwrap();
    assert_eq!((&shown.digest, shown.manifests.len()), (&all.digest, 3));
    assert_ne!(all.digest, came_with);
    assert_eq!(for_each(&place.images, &by_digest(&all.digest)), some(&ids));
    clean(&place);
    // A platform goes from all that the repository has.
    let options = Remove { force: false, prune: true };
    let text = [platforms[1].clone()];
    place.images.remove_platforms(&copy.familiar(), &text, options, &|_| Vec::new()).unwrap();
    assert_eq!(for_each(&place.images, &by_digest(&all.digest)), [Some(ids[0].clone()), None, Some(ids[2].clone())]);
    pull(&place.images, &copy, Some(&platforms[1])).await.0.unwrap();
    let sender = mpsc::unbounded_channel().0;
    place.images.push(&copy, Some(&platforms[1]), None, &client(), None, sender).await.unwrap();
    // And with the last tag all of its digests.
    remove(&place, &name.familiar());
    remove(&place, &copy.familiar());
    assert!(place.images.summaries().unwrap().is_empty(), "{:#?}", place.images.summaries());
    place.images.collect(&Vec::new).unwrap();
    assert!(place.blobs().is_empty(), "{:?}", place.blobs());
}
