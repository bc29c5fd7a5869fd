//! `system fsck` of a data root that no daemon has: after a crash the daemon may be what does not start.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wharf_engine::fsck::{Fsck, Problem};
use wharf_image::Images;
use wharf_report::chain;
use wharf_snapshot::Layers;
use wharf_store::{Store, StoreError};
use wharf_volume::Volumes;

use crate::options::{Options, Parsed};
use crate::rootless;

/// What `wharf system fsck` runs: `[--data-root DIR] [--deep] [--dry-run]`. Without a root it is the one that the
/// configuration has. The report is JSON on standard output, what keeps it from being made is on standard error.
pub(crate) fn main(args: &[OsString]) -> ExitCode {
    // What is an ordinary user's has owners that only its namespace knows.
    if let Some(code) = rootless::beside_daemon() {
        return code;
    }
    match rootless::arrive()
        .and_then(|()| parse(args))
        .and_then(|(root, mut fsck)| look(&root, &mut fsck).map(|()| fsck.report()))
    {
        Ok(report) => {
            crate::print(&report.to_string());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn parse(args: &[OsString]) -> Result<(PathBuf, Fsck), String> {
    let (mut root, mut dry_run, mut deep) = (None, false, false);
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("--data-root") => root = args.next().map(PathBuf::from),
            Some("--dry-run") => dry_run = true,
            Some("--deep") => deep = true,
            _ => return Err(format!("unknown argument {}", arg.display())),
        }
    }
    let root = match root {
        Some(root) => root,
        None => match Options::parse(&[])? {
            Parsed::Run(options) => options.data_root,
            Parsed::Say(text) => return Err(text),
        },
    };
    Ok((root, Fsck::new(dry_run, deep)))
}

/// The same looks as a daemon's, with the root's lock in hand.
fn look(root: &Path, fsck: &mut Fsck) -> Result<(), String> {
    let (store, damaged) = Store::open_to_check(root).map_err(|error| match error {
        StoreError::InUse { root, pid } => format!(
            "the data root `{}` is in use by process {pid}: a daemon that runs looks itself, by `system fsck` without \
             --data-root, and with -H where it does not listen on the default socket",
            root.display()
        ),
        other => chain(&other),
    })?;
    // What rows of its own a registry has nobody here knows: its blobs would be taken for nobody's.
    if !["engine-id", "containers"].iter().any(|name| root.join(name).exists()) {
        return Err(format!(
            "`{}` is no data root of a daemon: there is neither engine-id nor containers in it. That of a registry is looked \
             after by `wharf registry`",
            root.display()
        ));
    }
    fsck.look(0);
    if damaged {
        // Whoever opens it repairs it, or could not read it.
        fsck.mended(Problem::Damaged, "wharf.redb", "repaired, as its last whole state has it");
    }
    let layers = Layers::open_to_check(store.clone()).map_err(|e| chain(&e))?;
    let images = Images::open_to_check(store.clone(), layers.clone());
    let volumes = Volumes::open_to_check(store.clone()).map_err(|e| chain(&e))?;
    wharf_engine::fsck_without_engine(&store, &images, &volumes, fsck).map_err(|e| chain(&e))?;
    wharf_build::fsck(&store, &layers, fsck).map_err(|e| chain(&e))
}
