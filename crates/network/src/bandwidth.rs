//! How much a container may send and receive in a second.
//!
//! Each end of its link sends no faster than it may: the container's what it sends, the host's what it receives. Both
//! queues are token buckets and go with the link. The container's end is in its own network namespace: a container with
//! `CAP_NET_ADMIN` can take the limit off what it sends.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use rustix::io::Errno;
use wharf_netlink::namespace;
use wharf_netlink::route::{Batch, Connection, TokenBucket};

use crate::{NetworkError, NetworkRecord, Networks, Result};

/// What a container sends; an option of networks and of endpoints.
pub const UP: &str = "dev.wharf.bandwidth.up";
/// What a container receives; an option of networks and of endpoints.
pub const DOWN: &str = "dev.wharf.bandwidth.down";

/// What goes at once after a pause: that of ten milliseconds, within these bounds.
const BURSTS_PER_SECOND: u64 = 100;
const SMALLEST_BURST: u64 = 16 << 10;
const LARGEST_BURST: u64 = 4 << 20;
/// What waits is sent within fifty milliseconds; what comes on top of that is dropped.
const WAITS_PER_SECOND: u64 = 20;
/// What the kernel counts of a packet beyond the link's MTU: the headers of Ethernet and of a VLAN.
const HEADERS: u64 = 18;

/// A limit in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// As fast as it goes.
    Unlimited,
    BytesPerSecond(NonZeroU64),
}

impl FromStr for Limit {
    type Err = String;

    /// Reads `10mbit`, `1.5gbit`, `800kbit`, `9600bit`: bits in a second, thousands of them, and so on; `0` and
    /// `unlimited` are no limit.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let invalid = || {
            format!(
                "invalid bandwidth `{text}`: write a number with bit, kbit, mbit or gbit (in a second), as in 10mbit, or \
                 `unlimited`"
            )
        };
        let lower = text.trim().to_ascii_lowercase();
        if matches!(lower.as_str(), "0" | "unlimited") {
            return Ok(Self::Unlimited);
        }
        let scales: [(&str, f64); 4] = [("kbit", 1e3), ("mbit", 1e6), ("gbit", 1e9), ("bit", 1.0)];
        let (number, scale) =
            scales.iter().find_map(|(unit, scale)| Some((lower.strip_suffix(unit)?, scale))).ok_or_else(invalid)?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(invalid());
        }
        let bits = number.parse::<f64>().map_err(|_| invalid())? * scale;
        // The largest that the kernel can count with has some room.
        if !(0.0..=8e12).contains(&bits) {
            return Err(format!("invalid bandwidth `{text}`: it is more than 8000gbit"));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bytes = (bits / 8.0) as u64;
        match NonZeroU64::new(bytes) {
            Some(bytes) => Ok(Self::BytesPerSecond(bytes)),
            None => Err(format!("invalid bandwidth `{text}`: it is less than 8bit")),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::BytesPerSecond(bytes) => write!(f, "{}bit", u128::from(bytes.get()) * 8),
        }
    }
}

/// Limits in both directions. What is not said is the network's, and else unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bandwidth {
    pub up: Option<Limit>,
    pub down: Option<Limit>,
}

impl Bandwidth {
    /// What options of a network or an endpoint say.
    ///
    /// # Errors
    /// With a text for the user, when a value is no limit.
    pub fn of(options: &BTreeMap<String, String>) -> std::result::Result<Self, String> {
        let read = |key: &str| {
            let text = options.get(key).filter(|text| !text.is_empty());
            text.map(|text| text.parse()).transpose().map_err(|error| format!("{key}: {error}"))
        };
        Ok(Self { up: read(UP)?, down: read(DOWN)? })
    }

    /// What there is to it on a network.
    pub(crate) fn on(self, record: &NetworkRecord) -> Result<Self> {
        let default = Self::of(&record.options).map_err(NetworkError::Invalid)?;
        let both = Self { up: self.up.or(default.up), down: self.down.or(default.down) };
        both.check(record)?;
        Ok(both)
    }

    /// Refuses what a network cannot have.
    pub(crate) fn check(self, record: &NetworkRecord) -> Result<()> {
        if record.parent.is_some() && matches!(self.down, Some(Limit::BytesPerSecond(_))) {
            return Err(NetworkError::Invalid(format!(
                "what containers on the macvlan network {} receive cannot be limited: their links have no end on the \
                 host; limit `up` alone",
                record.name
            )));
        }
        Ok(())
    }
}

fn bucket(rate: NonZeroU64, mtu: u32) -> TokenBucket {
    let rate = rate.get();
    let smallest = SMALLEST_BURST.max(u64::from(mtu) + HEADERS);
    let burst = (rate / BURSTS_PER_SECOND).clamp(smallest, LARGEST_BURST);
    let limit = burst + rate / WAITS_PER_SECOND;
    let short = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX);
    TokenBucket { rate, burst: short(burst), limit: short(limit) }
}

/// Sets what the link of this name sends; with `old` also when it is to have no limit (any more).
pub(crate) fn set(route: &Connection, name: &str, limit: Option<Limit>, old: bool) -> Result<()> {
    let mut batch = Batch::new();
    match limit {
        Some(Limit::BytesPerSecond(rate)) => {
            let link = route.link(name)?.ok_or_else(|| NetworkError::NotFound(format!("interface {name}")))?;
            batch.set_token_bucket(link.index, bucket(rate, link.mtu));
            route.apply(batch).map_err(|error| match error.errno {
                Errno::NOENT | Errno::OPNOTSUPP => NetworkError::NotImplemented(
                    "cannot limit the bandwidth: this host's kernel has no token buckets (sch_tbf)".into(),
                ),
                _ => error.into(),
            })
        }
        _ if old => {
            let link = route.link(name)?.ok_or_else(|| NetworkError::NotFound(format!("interface {name}")))?;
            // The kernel's own is no limit.
            if route.root_queues()?.iter().any(|queue| queue.link == link.index && queue.kind == "tbf") {
                batch.delete_root_queue(link.index);
                route.apply(batch)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

impl Networks {
    /// Changes how much a container that runs may send and receive on a network (by its ID).
    ///
    /// # Errors
    /// `NotFound`, `NotConnected`, `Invalid` for what the network cannot have, and when the kernel refuses.
    pub fn limit(&self, network_id: &str, container: &str, netns: BorrowedFd<'_>, bandwidth: Bandwidth) -> Result<()> {
        let (record, endpoint) = {
            let state = self.inner.state();
            let network = state.resolve(network_id)?;
            let endpoint = network.endpoints.get(container).cloned();
            let missing =
                || NetworkError::NotConnected { container: container.to_owned(), network: network.record.name.clone() };
            (network.record.clone(), endpoint.ok_or_else(missing)?)
        };
        let wanted = bandwidth.on(&record)?;
        let inside = namespace::within(netns, Connection::open)??;
        set(&inside, &endpoint.interface, wanted.up, true)?;
        if endpoint.host_interface.is_empty() {
            return Ok(());
        }
        set(&Connection::open()?, &endpoint.host_interface, wanted.down, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &str) -> u64 {
        match text.parse().unwrap() {
            Limit::Unlimited => 0,
            Limit::BytesPerSecond(bytes) => bytes.get(),
        }
    }

    #[test]
    fn limits_are_bits_in_a_second() {
        assert_eq!([bytes("10mbit"), bytes("1.5Gbit"), bytes("800kbit")], [1_250_000, 187_500_000, 100_000]);
        assert_eq!([bytes("9600bit"), bytes("0"), bytes(" unlimited ")], [1200, 0, 0]);
        for bad in
            ["", "10", "10m", "10mb", "10mbps", "-1mbit", "mbit", "1e3mbit", "1bit", "0mbit", "9000gbit", "infbit"]
        {
            assert!(bad.parse::<Limit>().unwrap_err().starts_with("invalid bandwidth"), "{bad}");
        }
        assert_eq!("10mbit".parse::<Limit>().unwrap().to_string(), "10000000bit");
    }

    #[test]
    fn a_bucket_lets_a_whole_packet_through() {
        let of = |text: &str, mtu| bucket(NonZeroU64::new(bytes(text)).unwrap(), mtu);
        assert_eq!(of("8kbit", 1500).burst, 16 << 10);
        assert_eq!(of("8kbit", 65535).burst, 65553);
        assert_eq!(of("100mbit", 1500), TokenBucket { rate: 12_500_000, burst: 125_000, limit: 750_000 });
        assert_eq!(of("8000gbit", 1500).limit, u32::MAX);
    }

    #[test]
    fn an_endpoint_says_it_before_its_network() {
        let mut record = crate::record::sample();
        record.options = BTreeMap::from([(UP.into(), "1mbit".into()), (DOWN.into(), "2mbit".into())]);
        let own = Bandwidth { up: Some(Limit::Unlimited), down: None };
        let both = own.on(&record).unwrap();
        assert_eq!((both.up, both.down), (own.up, Some("2mbit".parse().unwrap())));
        record.parent = Some(crate::Parent { name: "dm-0".into(), mode: "bridge".into(), flag: String::new() });
        let message = own.on(&record).unwrap_err().to_string();
        assert!(message.contains("limit `up` alone"), "{message}");
    }
}
