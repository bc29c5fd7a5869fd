//! The body of the fuzz target `erofs_writer`, which is an ordinary test as well.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};

use wharf_erofs::Writer;

use crate::model::Model;
use crate::operations::Choices;
use crate::{reading, seen};

/// More operations of one input try nothing more.
const MOST: usize = 60;

/// Bytes as operations make an image that reads back as the model of them; what the one refuses the other does too.
pub(crate) fn check(data: &[u8]) {
    let (image, model) = image(data);
    seen::assert_same("read back", &reading::tree(&image), &model.tree());
}

/// The image that bytes as operations make, and what should be in it.
pub(crate) fn image(data: &[u8]) -> (Vec<u8>, Model) {
    let mut file = scratch();
    let mut writer = Writer::new(file.try_clone().expect("a file")).expect("a writer");
    let (mut model, mut choices) = (Model::new(), Choices::given(data));
    for _ in 0..MOST {
        if choices.is_over() {
            break;
        }
        let operation = choices.operation();
        let (done, expected) = (operation.apply(&mut writer), model.apply(&operation));
        assert_eq!(done.is_ok(), expected.is_ok(), "{operation:?}: {done:?}");
    }
    writer.finish([7; 16]).expect("an image");
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("the image");
    (bytes, model)
}

/// A file without a name.
fn scratch() -> File {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("wharf-erofs-{}-{number}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).expect("a file");
    std::fs::remove_file(path).expect("its name goes");
    file
}

#[cfg(test)]
#[path = "../../../../fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate;

    #[test]
    fn what_is_near_the_seeds_reads_back_as_it_was_told() {
        let seeds = mutate::seeds("erofs_writer");
        assert!(!seeds.is_empty());
        for seed in &seeds {
            super::check(seed);
        }
        for number in 0..400 {
            super::check(&mutate::mutated(&seeds, number));
        }
    }
}
