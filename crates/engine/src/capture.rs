//! Capturing what goes over a network, or over the links of a container.

use std::os::fd::AsFd;
use std::time::Duration;

use wharf_network::{Capture, CaptureFilter, Protocol};

use crate::engine::Engine;
use crate::error::{EngineError, Result};
use crate::process::Process;

/// What is to be captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureRequest {
    /// Of a network: only what this container sends and receives there.
    pub container: Option<String>,
    pub port: Option<u16>,
    pub protocol: Option<Protocol>,
    /// Bytes that are kept of a packet.
    pub snaplen: Option<u32>,
}

/// A capture that goes on until its network or container has gone.
#[derive(Debug)]
pub struct Capturing {
    capture: Capture,
    /// Whose links they are: they would stay for as long as somebody listens to them.
    process: Option<Process>,
}

impl Engine {
    /// Begins to capture on the network of this name or ID, or else in the container. Blocking.
    ///
    /// # Errors
    /// `NotFound` when there is neither; `InvalidParameter` for a network without a bridge, a container that has the host's
    /// network, a container to filter by that is not on the network; `Conflict` for a container that does not run.
    pub fn capture(&self, name: &str, request: &CaptureRequest) -> Result<Capturing> {
        let snaplen = request.snaplen.filter(|bytes| *bytes > 0).unwrap_or(wharf_network::SNAPLEN);
        let snaplen = snaplen.min(wharf_network::SNAPLEN);
        let mut filter = CaptureFilter { mac: None, port: request.port, protocol: request.protocol, snaplen };
        if let Ok(network) = self.networks().resolve(name) {
            if let Some(name) = &request.container {
                let container = self.inspect(name)?;
                let endpoints = self.networks().endpoints(&network.id);
                let endpoint = endpoints.iter().find(|endpoint| endpoint.container == container.id);
                let missing = || {
                    EngineError::invalid(format!("container {} is not on network {} now", container.name, network.name))
                };
                filter.mac = Some(endpoint.ok_or_else(missing)?.mac);
            }
            return Ok(Capturing { capture: self.networks().capture(&network.id, filter)?, process: None });
        }
        let container = self.inspect(name).map_err(|mut error| {
            error.message = format!("no such network or container: {name}");
            error
        })?;
        if request.container.is_some() {
            return Err(EngineError::invalid("only what goes over a network can be filtered by a container"));
        }
        if container.host.network_mode == "host" {
            return Err(EngineError::invalid(format!(
                "container {} has the host's network: all of the host's packets would be captured",
                container.name
            )));
        }
        let process = Process::of(&container)?;
        let capture = Capture::within(process.namespace("net")?.as_fd(), filter)?;
        Ok(Capturing { capture, process: Some(process) })
    }
}

impl Capturing {
    /// The beginning of the capture file.
    pub fn header(&self) -> Vec<u8> {
        self.capture.header()
    }

    /// As [`Capture::read`]; `None` also when the container has ended.
    ///
    /// # Errors
    /// As there.
    pub fn read(&mut self, patience: Duration, count: u64) -> Result<Option<(Vec<u8>, u64)>> {
        let ends = self.process.as_ref().is_some_and(|process| process.lives().is_err());
        let patience = if ends { Duration::ZERO } else { patience };
        let read = self.capture.read(patience, count)?;
        Ok(read.filter(|(_, taken)| !ends || *taken > 0))
    }

    /// Packets that came faster than they were read, and are missing.
    pub fn lost(&mut self) -> u64 {
        self.capture.lost()
    }
}
