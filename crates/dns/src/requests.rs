//! What daemons ask of the process.

use std::os::fd::OwnedFd;

use crate::control::Closed;
use crate::poll::Token;
use crate::process::Process;
use crate::protocol::{Reply, Request, VERSION};
use crate::records::Known;

impl Process {
    /// Goes on with a daemon's connection.
    pub(crate) fn control(&mut self, number: u64) {
        if self.exchange(number).is_err() {
            self.controls.remove(&number);
        }
    }

    fn exchange(&mut self, number: u64) -> Result<(), Closed> {
        loop {
            let Some(control) = self.controls.get_mut(&number) else { return Ok(()) };
            control.flush()?;
            let Some((bytes, fds)) = control.receive()? else { break };
            let reply = match serde_json::from_slice(&bytes) {
                Ok(request) => self.serve(request, fds),
                Err(error) => Err(format!("the request is not understood: {error}")),
            };
            let reply = reply.unwrap_or_else(|error| Reply { error: Some(error), ..Reply::default() });
            if let Some(control) = self.controls.get_mut(&number) {
                control.send(&reply)?;
            }
        }
        let Some(control) = self.controls.get(&number) else { return Ok(()) };
        self.poller.change(control, Token::Control(number), control.interest()).map_err(|_| Closed)
    }

    fn serve(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, String> {
        let mut reply = Reply::default();
        let zones = &mut self.resolver.zones;
        match request {
            Request::Hello => {
                reply.version = Some(VERSION.into());
                reply.pid = Some(rustix::process::getpid().as_raw_nonzero().get());
            }
            Request::Quit => self.ends = true,
            Request::Known => {
                reply.known = Some(Known { networks: zones.ids(), containers: self.containers.ids() });
            }
            Request::PutNetwork(network) => zones.put(network),
            Request::RemoveNetwork { id } => zones.remove(&id),
            Request::PutMember { network, member } => {
                if !zones.put_member(&network, member) {
                    return Err(format!("network {network} is not known"));
                }
            }
            Request::RemoveMember { network, container } => zones.remove_member(&network, &container),
            Request::PutContainer(put) => {
                if let Some(old) = self.containers.put(&self.poller, put, fds)? {
                    self.close_clients_of(old);
                }
            }
            Request::RemoveContainer { id } => {
                if let Some(number) = self.containers.number(&id) {
                    self.remove_container(number);
                }
            }
        }
        Ok(reply)
    }
}
