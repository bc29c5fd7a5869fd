//! What daemons ask of the process.

use std::os::fd::OwnedFd;

use wharf_companion::Asked;

use crate::process::Process;
use crate::protocol::{Reply, Request};
use crate::records::Known;
use crate::token::Token;

impl Process {
    /// Goes on with a daemon's connection.
    pub(crate) fn control(&mut self, number: u64) {
        loop {
            match self.daemons.hear(number) {
                Asked::Nothing => break,
                Asked::Quit => self.ends = true,
                Asked::Own(request, fds) => {
                    let answer = self.serve(request, fds);
                    self.daemons.answer(number, answer);
                }
            }
        }
        self.daemons.wait_for(&self.poller, number, Token::Control(number));
    }

    fn serve(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Reply, String> {
        let mut reply = Reply::default();
        let zones = &mut self.resolver.zones;
        match request {
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
