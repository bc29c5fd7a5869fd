//! What a link sends no faster than it may: token buckets (tc-tbf(8)).

use super::{Batch, Connection};
use crate::Result;
use crate::message::{self, CREATE, DUMP, Messages, REPLACE};

// linux/rtnetlink.h
const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;

// linux/pkt_sched.h
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// The parent of what a link sends through (`TC_H_ROOT`).
const ROOT: u32 = u32::MAX;
/// Sizes are those on the wire of an Ethernet (`TC_LINKLAYER_ETHERNET`); the kernel needs no table for that.
const ETHERNET: u8 = 1;
/// Bytes of `struct tc_ratespec`, the last four of which are the rate; and of `struct tc_tbf_qopt`: two of those, and
/// limit, buffer and MTU.
const RATESPEC: usize = 12;
const TBF_QOPT: usize = 2 * RATESPEC + 12;

/// What a link may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenBucket {
    /// Bytes in a second.
    pub rate: u64,
    /// Bytes that go at once after a pause. One that is smaller than a packet lets none through.
    pub burst: u32,
    /// Bytes that wait; what comes on top of that is dropped.
    pub limit: u32,
}

/// What a link sends through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootQueue {
    /// Index of the link.
    pub link: u32,
    /// `noqueue`, `tbf`, `fq_codel`…
    pub kind: String,
    /// Bytes in a second, of a token bucket.
    pub rate: Option<u64>,
}

/// `struct tcmsg`.
fn header(link: u32, parent: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    bytes[4..8].copy_from_slice(&link.to_ne_bytes());
    bytes[12..16].copy_from_slice(&parent.to_ne_bytes());
    bytes
}

impl Batch {
    /// Lets the link with this index send no more than `bucket` says. One that it has already is changed.
    pub fn set_token_bucket(&mut self, link: u32, bucket: TokenBucket) -> &mut Self {
        let action = format!("limit link {link} to {} bytes a second", bucket.rate);
        self.messages.message(NEW_QDISC, CREATE | REPLACE, &header(link, ROOT), action, |m| {
            m.text(TCA_KIND, "tbf");
            m.nested(TCA_OPTIONS, |m| {
                let mut options = [0; TBF_QOPT];
                options[1] = ETHERNET;
                // What does not fit is in the long form below.
                let short = u32::try_from(bucket.rate).unwrap_or(u32::MAX);
                options[8..RATESPEC].copy_from_slice(&short.to_ne_bytes());
                options[2 * RATESPEC..2 * RATESPEC + 4].copy_from_slice(&bucket.limit.to_ne_bytes());
                m.attribute(TCA_TBF_PARMS, &options);
                m.attribute(TCA_TBF_RATE64, &bucket.rate.to_ne_bytes());
                m.u32(TCA_TBF_BURST, bucket.burst);
            });
        });
        self
    }

    /// Gives the link with this index back the queue that it had of the kernel.
    ///
    /// `ENOENT` when it has no other.
    pub fn delete_root_queue(&mut self, link: u32) -> &mut Self {
        let action = format!("take the limit off link {link}");
        self.messages.message(DELETE_QDISC, 0, &header(link, ROOT), action, |_| {});
        self
    }
}

impl Connection {
    /// What the links of this namespace send through.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn root_queues(&self) -> Result<Vec<RootQueue>> {
        let mut request = Messages::default();
        request.message(GET_QDISC, DUMP, &header(0, 0), "list queues".into(), |_| {});
        self.socket.ask(&request, |answer| root_queue(answer.kind, answer.payload))
    }
}

fn root_queue(kind: u16, payload: &[u8]) -> Option<RootQueue> {
    let (link, parent) = (message::u32_at(payload, 4)?, message::u32_at(payload, 12)?);
    let all = payload.get(20..).filter(|_| kind == NEW_QDISC && parent == ROOT)?;
    let kind = message::text(message::find(all, TCA_KIND)?);
    let rate = message::find(all, TCA_OPTIONS).filter(|_| kind == "tbf").and_then(|options| {
        let long =
            message::find(options, TCA_TBF_RATE64).and_then(|value| value.try_into().ok().map(u64::from_ne_bytes));
        let short = || message::u32_at(message::find(options, TCA_TBF_PARMS)?, 8).map(u64::from);
        long.or_else(short)
    });
    Some(RootQueue { link, kind, rate })
}
