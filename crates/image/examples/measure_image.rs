//! Measures one pull: `measure DATA_ROOT NAME` prints wall time, and the processor time that this process took.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use wharf_image::Images;
use wharf_image::registry::{Client, ClientOptions};
use wharf_reference::Reference;
use wharf_snapshot::Layers;
use wharf_store::Store;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(root), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: measure DATA_ROOT NAME".into());
    };
    let store = Store::open(Path::new(&root))?;
    let images = Images::open(store.clone(), Layers::open(store)?)?;
    let (sender, _listener) = mpsc::unbounded_channel();
    let client = Client::new(ClientOptions::default())?;
    let start = Instant::now();
    let image = images.pull(&Reference::parse(&name)?, None, None, &client, sender).await?;
    let wall = start.elapsed();
    let layers = image.diff_ids.len();
    println!("{} in {layers} layers, {} MiB", image.id, image.size >> 20);
    println!("wall {:.2} s, processor {:.2} s", wall.as_secs_f64(), processor().as_secs_f64());
    Ok(())
}

/// User and system time of this process, in ticks of a hundredth of a second (proc_pid_stat(5)).
fn processor() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
