//! Measures a layer in both forms: `measure DIRECTORY TAR` imports an uncompressed tar, makes it again, reads all its files
//! through a view, and removes it.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FileType;
use wharf_rooted_path::RootDir;
use wharf_snapshot::{Layers, Storage};
use wharf_store::Store;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(dir), Some(tar)) = (arguments.next(), arguments.next()) else {
        return Err("usage: measure DIRECTORY TAR".into());
    };
    // From the page cache.
    io::copy(&mut File::open(&tar)?, &mut io::sink())?;
    for round in 0..3 {
        for form in [Storage::Dirs, Storage::Erofs] {
            let root = Path::new(&dir).join(format!("{form:?}-{round}"));
            let layers = Layers::open_as(Store::open(&root)?, Some(form))?;
            let mut clock = Clock::new(form);
            let mut input = BufReader::with_capacity(1 << 18, File::open(&tar)?);
            let layer = layers.import(&mut input, None)?;
            clock.tell("import");
            let id = layer.diff_id.clone();
            layers.write_tar(&id, &mut io::sink())?;
            clock.tell("tar");
            let view = layers.view(std::slice::from_ref(&id), None)?;
            clock.tell("mount");
            let bytes = read_all(&view)?;
            clock.tell("read");
            read_all(&view)?;
            clock.tell("read again");
            drop((view, layer));
            layers.remove(&id)?;
            clock.tell("remove");
            println!("{}, {} MiB of content", clock.text, bytes >> 20);
            drop(layers);
            std::fs::remove_dir_all(&root)?;
        }
    }
    Ok(())
}

fn read_all(root: &RootDir) -> Result<u64, Box<dyn std::error::Error>> {
    let mut left = vec![PathBuf::new()];
    let (mut piece, mut bytes) = (vec![0; 128 << 10], 0);
    while let Some(dir) = left.pop() {
        for name in root.read_dir(&dir)? {
            let path = dir.join(name);
            match FileType::from_raw_mode(root.metadata(&path, false)?.st_mode) {
                FileType::Directory => left.push(path),
                FileType::RegularFile => {
                    let mut file = root.open_file(&path)?;
                    while let count @ 1.. = file.read(&mut piece)? {
                        bytes += count as u64;
                    }
                }
                _ => {}
            }
        }
    }
    Ok(bytes)
}

struct Clock {
    text: String,
    since: Instant,
    processor: Duration,
}

impl Clock {
    fn new(form: Storage) -> Self {
        Self { text: format!("{form:?}:"), since: Instant::now(), processor: processor() }
    }

    /// Wall time, and the processor time that this process took.
    fn tell(&mut self, what: &str) {
        let (wall, took) = (self.since.elapsed(), processor() - self.processor);
        self.text.push_str(&format!(" {what} {:.3} ({:.2})", wall.as_secs_f64(), took.as_secs_f64()));
        (self.since, self.processor) = (Instant::now(), processor());
    }
}

/// User and system time of this process, in ticks of a hundredth of a second (proc_pid_stat(5)).
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
