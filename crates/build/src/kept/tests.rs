//! What is kept, when it counts, and what bounds it.

use super::*;

fn mark(size: u64, changed: i64) -> Mark {
    Mark { size, modified: (1, 5), changed: (changed, 7), place: (1, 2) }
}

/// A build that lists these files, and sends those that are not known; which it sent.
fn build(contexts: &Arc<KeptContexts>, files: &[(&str, Mark)]) -> Vec<String> {
    build_of(contexts, files, true)
}

/// The same, of all files that there are or only of these.
fn build_of(contexts: &Arc<KeptContexts>, files: &[(&str, Mark)], all: bool) -> Vec<String> {
    let kept = contexts.open(b"key", "/src").unwrap();
    if all {
        kept.lists_all();
    }
    let mut sent = Vec::new();
    for (number, (path, mark)) in files.iter().enumerate() {
        let number = number as u32;
        if kept.known(number, path.as_bytes(), *mark, (1000, 0)).is_none() {
            let content = vec![number as u8; mark.size as usize];
            let xattrs = vec![("security.capability".into(), vec![number as u8])];
            kept.inline(number, Content { xattrs, bytes: &content }).unwrap();
            sent.push((*path).to_owned());
        }
    }
    sent
}

#[test]
fn only_what_has_changed_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = Arc::new(KeptContexts::new(dir.path().to_owned()));
    let files = [("a", mark(3, 10)), ("b", mark(4, 10)), ("racy", mark(5, 1000))];
    assert_eq!(build(&contexts, &files), ["a", "b", "racy"]);
    // One that was changed in the same moment may have been changed since.
    assert_eq!(build(&contexts, &files), ["racy"]);
    let touched = [("a", mark(3, 11)), ("b", mark(4, 10))];
    assert_eq!(build(&contexts, &touched), ["a"]);
    // A process that comes after a crash, with half a transfer behind the end.
    let again = Arc::new(KeptContexts::new(dir.path().to_owned()));
    let id = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let contents = id.join("contents-0");
    let end = fs::metadata(&contents).unwrap().len();
    File::options().append(true).open(&contents).unwrap().set_len(end + 100).unwrap();
    fs::write(id.join("index.new"), "half").unwrap();
    assert_eq!(build(&again, &touched), Vec::<String>::new());
    assert!(!id.join("index.new").exists() && fs::metadata(&contents).unwrap().len() == end);
    // One whose contents are not whole is nothing.
    File::options().write(true).open(&contents).unwrap().set_len(1).unwrap();
    assert_eq!(build(&again, &touched), ["a", "b"]);
    fs::write(id.join("index"), "damaged").unwrap();
    assert_eq!(build(&again, &touched), ["a", "b"]);
}

#[test]
fn what_nobody_needs_any_more_is_copied_away_from() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = Arc::new(KeptContexts::new(dir.path().to_owned()));
    build(&contexts, &[("small", mark(10, 10)), ("large", mark(MOST_UNUSED + 1, 10))]);
    let size = || contexts.list()[0].1.size;
    assert!(size() > MOST_UNUSED);
    assert_eq!(build(&contexts, &[("small", mark(10, 10)), ("new", mark(6, 10))]), ["new"]);
    assert!(size() < MOST_UNUSED);
    let kept = contexts.open(b"key", "/src").unwrap();
    let place = kept.known(0, b"new", mark(6, 10), (1000, 0)).unwrap();
    let mut content = [0; 6];
    kept.file().read_exact_at(&mut content, place.offset).unwrap();
    assert_eq!(content, [1; 6]);
    assert_eq!(place.xattrs, [("security.capability".into(), vec![1])]);
    // One in use stays.
    let names = [contexts.list()[0].0.clone()];
    assert_eq!(contexts.remove(&names).unwrap(), (Vec::new(), 0));
    drop((kept, content));
    assert_eq!(contexts.remove(&names).unwrap().0, names);
    assert!(contexts.list().is_empty());
}

#[test]
fn builds_at_the_same_time_share_a_context() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = Arc::new(KeptContexts::new(dir.path().to_owned()));
    let outer = contexts.open(b"key", "/src").unwrap();
    assert!(outer.known(0, b"a", mark(1, 10), (1000, 0)).is_none());
    outer.inline(0, Content { xattrs: Vec::new(), bytes: b"x" }).unwrap();
    assert_eq!(build(&contexts, &[("a", mark(1, 10)), ("b", mark(2, 10))]), ["b"]);
    drop(outer);
    assert_eq!(build(&contexts, &[("a", mark(1, 10)), ("b", mark(2, 10))]), Vec::<String>::new());
}

#[test]
fn what_another_dockerfile_names_is_kept_beside() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = Arc::new(KeptContexts::new(dir.path().to_owned()));
    let names: Vec<String> = (0..2000).map(|number| format!("f{number:04}")).collect();
    let many: Vec<(&str, Mark)> = names.iter().map(|name| (name.as_str(), mark(1, 10))).collect();
    assert_eq!(build_of(&contexts, &many, false).len(), 2000);
    assert_eq!(build_of(&contexts, &[("other", mark(2, 10))], false), ["other"]);
    assert_eq!(build_of(&contexts, &many, false), Vec::<String>::new());
    assert_eq!(build_of(&contexts, &[("other", mark(2, 10))], false), Vec::<String>::new());
    // What is written again and again is copied away from all the same.
    for round in 0..3 {
        build_of(&contexts, &[("large", mark(MOST_UNUSED / 2, 20 + round))], false);
    }
    let size = contexts.list()[0].1.size;
    assert!(size < MOST_UNUSED * 2, "{size}");
    assert_eq!(build_of(&contexts, &many, false), Vec::<String>::new());
    // Who lists everything knows that the rest has gone.
    assert_eq!(build(&contexts, &[("other", mark(2, 10))]), Vec::<String>::new());
    assert_eq!(build_of(&contexts, &many, false).len(), 2000);
}

#[test]
fn what_has_no_key_is_kept_for_one_build() {
    let dir = tempfile::tempdir().unwrap();
    let contexts = Arc::new(KeptContexts::new(dir.path().to_owned()));
    let kept = contexts.open(b"", "x").unwrap();
    let other = contexts.open(b"", "x").unwrap();
    let count = || std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(count(), 2, "each has its own");
    drop(kept);
    assert_eq!(count(), 1);
    // What a killed process has left goes at the next start.
    std::mem::forget(other);
    KeptContexts::new(dir.path().to_owned());
    assert_eq!(count(), 0);
}
