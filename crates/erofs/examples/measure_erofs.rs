//! Writes 20,000 files of 4 KiB, and one of 1 GiB, as an image: beside `mkfs.erofs` on the same tree, and beside
//! `tar x` of the same files. Prints times, and how many times longer the others take; then what names take of memory.
//!
//!     cargo run --release --package wharf-erofs --example measure_erofs [DIRECTORY]
//!
//! The directory must have room for 5 GiB. All that is read is in the page cache.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use wharf_erofs::{Attributes, Writer};

const FILES: usize = 20_000;
const LARGE: u64 = 1 << 30;
const NAMES: u64 = 1_000_000;
const PIECE: usize = 128 << 10;
/// Of each, the best counts: what else the machine does only adds.
const ROUNDS: usize = 3;

fn main() -> io::Result<()> {
    let base = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = tempfile::tempdir_in(base)?;
    let many = dir.path().join("many");
    for number in 0..FILES {
        let folder = many.join(format!("{}", number / 200));
        if number % 200 == 0 {
            fs::create_dir_all(&folder)?;
        }
        fs::write(folder.join(format!("file-{number}")), [number as u8; 4096])?;
    }
    measure(dir.path(), &many, &format!("{FILES} files of 4 KiB"))?;
    fs::remove_dir_all(&many)?;
    let large = dir.path().join("large");
    fs::create_dir(&large)?;
    io::copy(&mut io::repeat(b'x').take(LARGE), &mut File::create(large.join("file"))?)?;
    measure(dir.path(), &large, "one file of 1 GiB")?;
    println!("peak memory: {} KiB", peak()?);
    names(&dir.path().join("image"))
}

/// What a million names take: they are in memory until the end.
fn names(image: &Path) -> io::Result<()> {
    let mut writer = Writer::new(File::create_new(image)?)?;
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let (begin, before) = (Instant::now(), peak()?);
    for number in 0..NAMES {
        let path = format!("usr/share/folder-{}/file-{number}", number / 100);
        writer.file(path.as_bytes(), &attributes, 0)?.finish()?;
    }
    let summary = writer.finish([1; 16])?;
    let memory = (peak()? - before) * 1024 / NAMES;
    println!(
        "\n{NAMES} empty files: {:.1} s, {memory} bytes of memory each, {summary:?}",
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

fn measure(dir: &Path, tree: &Path, what: &str) -> io::Result<()> {
    let archive = dir.join("archive.tar");
    run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(tree).arg("."))?;
    println!("\n{what}, the best of {ROUNDS}: until written, and until on the disk");
    let (image, unpacked) = (dir.join("image"), dir.join("unpacked"));
    let memory = best(|| {
        let _ = fs::remove_file(&image);
        timed(&image, || from_memory(&image, what.starts_with("one")))
    })?;
    let size = fs::metadata(&image)?.len();
    let ours = best(|| {
        let _ = fs::remove_file(&image);
        timed(&image, || from_tree(&image, tree))
    })?;
    let theirs = best(|| {
        let _ = fs::remove_file(&image);
        timed(&image, || run(Command::new("mkfs.erofs").arg("--quiet").arg(&image).arg(tree)))
    })?;
    let their_size = fs::metadata(&image)?.len();
    let tar = best(|| {
        let _ = fs::remove_dir_all(&unpacked);
        fs::create_dir(&unpacked)?;
        timed(&unpacked, || run(Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(&unpacked)))
    })?;
    let line = |name: &str, times: [Duration; 2], than: [Duration; 2]| {
        let [written, synced] = times.map(|time| time.as_secs_f64() * 1e3);
        let ratio = |at: usize| times[at].as_secs_f64() / than[at].as_secs_f64();
        println!("  {name:<28} {written:>8.1} ms {synced:>8.1} ms   {:>5.2} {:>5.2} times ours", ratio(0), ratio(1));
    };
    line("ours, contents from memory", memory, ours);
    line("ours, the tree read", ours, ours);
    line("mkfs.erofs", theirs, ours);
    line("tar x", tar, ours);
    println!("  image: {size} bytes, mkfs.erofs {their_size} bytes, {:.3} times ours", their_size as f64 / size as f64);
    fs::remove_file(image)?;
    fs::remove_dir_all(unpacked)?;
    fs::remove_file(archive)
}

/// The least of both times.
fn best(mut round: impl FnMut() -> io::Result<[Duration; 2]>) -> io::Result<[Duration; 2]> {
    let mut best = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        let times = round()?;
        best = [best[0].min(times[0]), best[1].min(times[1])];
    }
    Ok(best)
}

/// Until it is done, and until it is on the disk: one file by fdatasync, a tree by syncfs.
fn timed(output: &Path, work: impl FnOnce() -> io::Result<()>) -> io::Result<[Duration; 2]> {
    // What is there already is not for this round to write.
    rustix::fs::syncfs(File::open(output.parent().unwrap_or(output))?)?;
    let begin = Instant::now();
    work()?;
    let written = begin.elapsed();
    let file = File::open(output)?;
    if file.metadata()?.is_dir() {
        rustix::fs::syncfs(&file)?
    } else {
        file.sync_data()?
    }
    Ok([written, begin.elapsed()])
}

fn from_memory(image: &Path, large: bool) -> io::Result<()> {
    let mut writer = Writer::new(File::create_new(image)?).map_err(io::Error::from)?;
    let attributes = Attributes { mode: 0o644, ..Attributes::default() };
    let piece = vec![b'x'; PIECE];
    if large {
        let mut file = writer.file(b"file", &attributes, LARGE)?;
        for _ in 0..LARGE / PIECE as u64 {
            file.write_all(&piece)?;
        }
        file.finish()?;
    } else {
        for number in 0..FILES {
            let path = format!("{}/file-{number}", number / 200);
            let mut file = writer.file(path.as_bytes(), &attributes, 4096)?;
            file.write_all(&piece[..4096])?;
            file.finish()?;
        }
    }
    writer.finish([1; 16]).map_err(io::Error::from).map(drop)
}

fn from_tree(image: &Path, tree: &Path) -> io::Result<()> {
    let mut writer = Writer::new(File::create_new(image)?)?;
    let mut piece = vec![0; PIECE];
    let mut left = vec![tree.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                left.push(path);
                continue;
            }
            let mut content = File::open(&path)?;
            let size = content.metadata()?.len();
            let name = path.strip_prefix(tree).unwrap_or(&path).as_os_str().as_bytes();
            let mut file = writer.file(name, &Attributes { mode: 0o644, ..Attributes::default() }, size)?;
            loop {
                match content.read(&mut piece)? {
                    0 => break,
                    count => file.write_all(&piece[..count])?,
                }
            }
            file.finish()?;
        }
    }
    writer.finish([1; 16])?;
    Ok(())
}

fn run(command: &mut Command) -> io::Result<()> {
    let status = command.status().map_err(|error| io::Error::new(error.kind(), format!("{command:?}: {error}")))?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("{command:?}: {status}"))) }
}

/// The most memory that this process had at once, in KiB.
fn peak() -> io::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    Ok(line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default())
}
