//! Images that nobody would build: any tree, any configuration.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use wharf_reference::Digest;

use crate::canary::say;
use crate::kit::{Daemon, Said};

/// Loads an image made of the tests' busybox: `tree` changes its files, `change` its configuration.
pub(crate) fn load(d: &Daemon, name: &str, tree: impl FnOnce(&Path), change: impl FnOnce(&mut Value)) -> Said {
    let dir = d.path().join(format!("image-{name}"));
    let root = dir.join("root");
    std::fs::create_dir_all(&dir).unwrap();
    run(Command::new("cp").arg("-a").arg(d.path().join("root")).arg(&root));
    tree(&root);
    let archive = pack(&dir, name, &root, change);
    std::fs::remove_dir_all(&root).unwrap();
    say(d, &["load", "-i", &archive.to_string_lossy()])
}

fn pack(dir: &Path, name: &str, root: &Path, change: impl FnOnce(&mut Value)) -> PathBuf {
    let layer = dir.join("layer.tar");
    run(Command::new("tar").arg("-cf").arg(&layer).arg("-C").arg(root).arg("."));
    let mut config = json!({
        "architecture": std::env::consts::ARCH.replace("x86_64", "amd64").replace("aarch64", "arm64"),
        "os": "linux",
        "config": { "Cmd": ["sh"], "Env": ["PATH=/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [Digest::sha256(&std::fs::read(&layer).unwrap()).to_string()] },
    });
    change(&mut config);
    let config = config.to_string();
    let file = format!("{}.json", Digest::sha256(config.as_bytes()).hex());
    std::fs::write(dir.join(&file), config).unwrap();
    let manifest = json!([{ "Config": file, "RepoTags": [format!("{name}:latest")], "Layers": ["layer.tar"] }]);
    std::fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = dir.join("image.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(dir).args([
        "manifest.json",
        "layer.tar",
        file.as_str(),
    ]));
    archive
}

fn run(command: &mut Command) {
    assert!(command.status().unwrap().success(), "{command:?}");
}

/// A link in a tree, in the place of whatever is there.
pub(crate) fn link(root: &Path, name: &str, target: &Path) {
    let path = root.join(name);
    match std::fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(&path).unwrap(),
        Ok(_) => std::fs::remove_file(&path).unwrap(),
        Err(_) => std::fs::create_dir_all(path.parent().unwrap()).unwrap(),
    }
    std::os::unix::fs::symlink(target, path).unwrap();
}
