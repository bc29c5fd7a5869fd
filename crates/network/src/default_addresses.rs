//! Which subnet the default bridge has, by what the daemon was told and by the addresses that are on the bridge already
//! (moby, `getDefaultBridgeIPAMConf` and `selectBIP`).

use crate::Ipv6Net;
use crate::ipam_request::Net;

/// What is to be for one family; what is `None` nobody has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Plan<N: Net> {
    pub(crate) subnet: Option<N>,
    /// The bridge's own address.
    pub(crate) gateway: Option<N::Address>,
    /// Containers get addresses of this part of the subnet only.
    pub(crate) range: Option<N>,
    /// What was to be the range is outside of the subnet that the user's bridge has.
    pub(crate) is_outside: bool,
}

/// Puts together `bip`, `fixed-cidr` and the addresses that are `there`, on a bridge that is ours or the user's.
pub(crate) fn plan<N: Net>(bip: Option<N>, fixed: Option<N>, there: &[N], is_users: bool) -> Plan<N> {
    let bridge = bip.or_else(|| choose(fixed, there, is_users));
    let range = fixed.map(Net::network);
    let subnet = bridge.map(Net::network).or(range);
    let is_outside = is_users
        && matches!((bridge, fixed), (Some(bridge), Some(fixed)) if !bridge.has(fixed.address()) || fixed.prefix() < bridge.prefix());
    let range = range.filter(|_| !is_outside);
    Plan { subnet, gateway: bridge.map(Net::address), range, is_outside }
}

/// The address of a bridge, with the prefix that it is to have: one whose subnet has the range, else one in the range, else any.
fn choose<N: Net>(fixed: Option<N>, there: &[N], is_users: bool) -> Option<N> {
    let mut chosen = *there.first()?;
    let Some(fixed) = fixed else { return Some(chosen) };
    for own in there {
        if own.has(fixed.address()) {
            chosen = *own;
            break;
        }
        if fixed.has(own.address()) && !fixed.has(chosen.address()) {
            chosen = *own;
        }
    }
    if is_users {
        return Some(chosen);
    }
    // What a daemon was told before does not bind this one.
    if fixed.prefix() < chosen.prefix() && fixed.has(chosen.address()) {
        return Some(chosen.resized(fixed.prefix()));
    }
    chosen.has(fixed.address()).then_some(chosen)
}

/// Whether an address is of the prefix that links give themselves addresses of.
pub(crate) fn is_link_local(net: Ipv6Net) -> bool {
    net.address().segments()[..4] == [0xfe80, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ipv4Net;

    /// The subnet, the range and the gateway, as `inspect` shows them.
    fn planned<N: Net>(bip: &str, fixed: &str, there: &[&str], is_users: bool) -> String {
        let net = |text: &str| text.parse::<N>().ok();
        let there: Vec<N> = there.iter().filter_map(|text| net(text)).collect();
        let plan = plan(net(bip), net(fixed), &there, is_users);
        let text = |net: Option<N>| net.map(|net| net.to_string()).unwrap_or_default();
        let gateway = plan.gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
        format!("{} {} {gateway}{}", text(plan.subnet), text(plan.range), if plan.is_outside { " outside" } else { "" })
    }

    #[test]
    fn a_bridge_of_ours_follows_what_the_daemon_is_told() {
        let four = |bip, fixed, there: &[&str]| planned::<Ipv4Net>(bip, fixed, there, false);
        assert_eq!(four("", "", &[]), "  ");
        assert_eq!(four("", "192.168.176.0/24", &[]), "192.168.176.0/24 192.168.176.0/24 ");
        assert_eq!(four("192.168.176.88/24", "", &[]), "192.168.176.0/24  192.168.176.88");
        assert_eq!(four("", "", &["192.168.176.88/24"]), "192.168.176.0/24  192.168.176.88");
        let within = four("", "192.168.176.0/24", &["192.168.176.88/20"]);
        assert_eq!(within, "192.168.176.0/20 192.168.176.0/24 192.168.176.88");
        let told = four("192.168.176.99/24", "192.168.176.0/24", &["192.168.176.88/20"]);
        assert_eq!(told, "192.168.176.0/24 192.168.176.0/24 192.168.176.99");
        let around = four("", "192.168.176.0/20", &["192.168.176.88/24"]);
        assert_eq!(around, "192.168.176.0/20 192.168.176.0/20 192.168.176.88");
        assert_eq!(four("", "192.168.177.0/24", &["192.168.176.88/24"]), "192.168.177.0/24 192.168.177.0/24 ");
        let six = planned::<Ipv6Net>("", "fd00:1:2::/64", &["fd00:1:2::88/56"], false);
        assert_eq!(six, "fd00:1:2::/56 fd00:1:2::/64 fd00:1:2::88");
    }

    #[test]
    fn a_bridge_of_the_user_s_is_what_it_is() {
        let four = |fixed, there: &[&str]| planned::<Ipv4Net>("", fixed, there, true);
        let three = ["192.168.160.88/20", "192.168.176.88/20", "192.168.192.88/20"];
        assert_eq!(four("", &["192.168.176.88/20"]), "192.168.176.0/20  192.168.176.88");
        assert_eq!(four("192.168.176.0/24", &three), "192.168.176.0/20 192.168.176.0/24 192.168.176.88");
        assert_eq!(four("192.168.177.0/24", &three), "192.168.176.0/20 192.168.177.0/24 192.168.176.88");
        assert_eq!(four("192.168.176.0/20", &["192.168.176.88/24"]), "192.168.176.0/24  192.168.176.88 outside");
        assert_eq!(four("192.168.176.0/24", &["192.168.160.88/20"]), "192.168.160.0/20  192.168.160.88 outside");
        assert_eq!(four("192.168.176.0/20", &["192.168.177.1/24"]), "192.168.177.0/24  192.168.177.1 outside");
        let six = ["fd00:1:2::8888/60", "fd00:1:2:10::8888/60", "fd00:1:2:20::8888/60"];
        let chosen = planned::<Ipv6Net>("", "fd00:1:2:11::8888/64", &six, true);
        assert_eq!(chosen, "fd00:1:2:10::/60 fd00:1:2:11::/64 fd00:1:2:10::8888");
    }
}
