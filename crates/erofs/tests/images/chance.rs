//! Trees by chance.

use std::fs::{self, File};
use std::path::Path;

use wharf_erofs::{Summary, Writer};

use crate::model::Model;
use crate::operations::Choices;
use crate::{kernel, reading, seen};

/// Writes what chance says, the same for the same seed.
fn write(path: &Path, seed: u64, operations: u64) -> (Summary, Model) {
    let mut writer = Writer::new(File::create_new(path).unwrap()).unwrap();
    let (mut model, mut choices) = (Model::new(), Choices::random(seed));
    for _ in 0..operations {
        let operation = choices.operation();
        let (done, expected) = (operation.apply(&mut writer), model.apply(&operation));
        assert_eq!(done.is_ok(), expected.is_ok(), "seed {seed}: {operation:?}: {done:?}");
    }
    (writer.finish([9; 16]).unwrap(), model)
}

#[test]
fn trees_by_chance_are_what_all_readers_see() {
    let base = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seeds from {base}");
    let dir = kernel::scratch();
    for number in 0..24 {
        // One ends with an inode that fills its block.
        let seed = if number == 9 { 1_795_713_937_919_075_772 } else { base.wrapping_add(number) };
        let path = dir.path().join(format!("image-{number}"));
        let operations = [0, 1, 5, 40, 400, 1500][number as usize % 6];
        let (summary, model) = write(&path, seed, operations);
        let what = |reader: &str| format!("seed {seed}, {operations} operations, {reader}");
        let image = fs::read(&path).unwrap();
        assert_eq!(summary.bytes, image.len() as u64);
        let expected = model.tree();
        seen::assert_same(&what("our reader"), &reading::tree(&image), &expected);
        kernel::fsck(&path);
        if let Some(root) = kernel::mount(&path) {
            seen::assert_same(&what("the kernel"), &kernel::tree(root), &expected);
        }
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_same_calls_give_the_same_bytes() {
    let dir = kernel::scratch();
    for seed in [1, 2, 3] {
        let (one, two) = (dir.path().join(format!("{seed}-1")), dir.path().join(format!("{seed}-2")));
        write(&one, seed, 300);
        write(&two, seed, 300);
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "seed {seed}");
    }
}
