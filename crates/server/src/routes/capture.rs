//! `GET /networks/{name}/capture`: ours. The name of a container does, too.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use wharf_engine::CaptureRequest;

use super::{Call, Result, blocking};
use crate::http::{ApiError, stream};
use crate::patient;

/// How often is looked whether somebody still reads.
const LOOK: Duration = Duration::from_millis(200);
/// Pieces that may wait for the client; what comes meanwhile waits in the kernel.
const WAITING: usize = 16;

pub(super) async fn capture(call: Call, name: &str) -> Result {
    let query = &call.query;
    let protocol = query.get("protocol").filter(|text| !text.is_empty());
    let request = CaptureRequest {
        container: query.get("container").filter(|text| !text.is_empty()).map(str::to_owned),
        port: query.number("port")?,
        protocol: protocol.map(str::parse).transpose().map_err(ApiError::bad)?,
        snaplen: query.number("snaplen")?,
    };
    let mut left: u64 = query.number("count")?.filter(|count| *count > 0).unwrap_or(u64::MAX);
    let (engine, name) = (call.api.engine.clone(), name.to_owned());
    let own = name.clone();
    let mut capturing = blocking(move || Ok(engine.capture(&own, &request)?)).await?;
    let (chunks, body) = mpsc::channel(WAITING);
    patient::spawn(move || {
        let mut going = chunks.blocking_send(Bytes::from(capturing.header())).is_ok();
        while going && left > 0 && !chunks.is_closed() {
            going = match capturing.read(LOOK, left) {
                Ok(Some((_, 0))) => true,
                Ok(Some((records, taken))) => {
                    left -= taken;
                    chunks.blocking_send(Bytes::from(records)).is_ok()
                }
                Ok(None) => false,
                Err(error) => {
                    tracing::warn!("the capture of {name} was broken off: {error}");
                    false
                }
            };
        }
        let lost = capturing.lost();
        if lost > 0 {
            tracing::warn!("the capture of {name} misses {lost} packets: they came faster than they were read");
        }
    });
    Ok(stream("application/vnd.tcpdump.pcap", body))
}
