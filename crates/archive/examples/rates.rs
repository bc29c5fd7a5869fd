//! How fast this machine can be: `rates FILE.gz` prints, as JSON, MB a second that one core inflates of the file and hashes,
//! by the libraries that layers go through. For `benches/suite/image.py`, which says how near to that it all is.

use std::io::{self, Cursor, Read, Write};
use std::time::Duration;

use wharf_archive::decompressed;
use wharf_reference::Hasher;

/// Long enough that a hiccup is a small part of it.
const TIME: Duration = Duration::from_millis(1500);

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: rates FILE.gz")?;
    let packed = std::fs::read(path)?;
    let inflate = rate(|| {
        let mut plain = decompressed(Cursor::new(&packed))?;
        let mut buffer = vec![0; 256 << 10];
        let mut count = 0;
        loop {
            match plain.read(&mut buffer)? {
                0 => return Ok(count),
                read => count += read as u64,
            }
        }
    })?;
    let sha256 = rate(|| {
        let mut hasher = Hasher::new();
        hasher.write_all(&packed)?;
        std::hint::black_box(hasher.finish());
        Ok(packed.len() as u64)
    })?;
    println!("{{\"inflate\": {inflate:.0}, \"sha256\": {sha256:.0}}}");
    Ok(())
}

/// MB in a second of a core, of what tells how many bytes it has done. Others may have the core in between.
fn rate(mut once: impl FnMut() -> io::Result<u64>) -> io::Result<f64> {
    let (began, mut bytes) = (processor()?, 0);
    loop {
        bytes += once()?;
        let took = processor()?.saturating_sub(began);
        if took >= TIME {
            return Ok(bytes as f64 / 1e6 / took.as_secs_f64());
        }
    }
}

/// User and system time of this process, in ticks of a hundredth of a second (proc_pid_stat(5)).
fn processor() -> io::Result<Duration> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
