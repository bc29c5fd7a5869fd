//! Getting along with `iptables`.
//!
//! A packet must be accepted by every table. Docker, ufw and others set the policy of the chain `FORWARD` of
//! iptables' table `filter` to drop; then nothing of ours would pass, whatever our own table says. So where that
//! chain is, we put rules at its head that let our bridges pass: our table has decided on them. They are in the form
//! that `iptables` itself writes, so that it goes on to understand its table.
//!
//! Tables of the old kind (`iptables-legacy`) and chains of other names are not touched: who drops there has to let
//! our bridges pass (`iifname "wharf0" accept`, `oifname "wharf0" accept`).

use wharf_netlink::nft::{
    Batch, Comparison, Connection, Expression, Family, Hook, Meta, Policy, Register, Table, Verdict,
};

use crate::Result;

/// Rules for each bridge: for what comes out of it, and what goes into it.
const RULES: usize = 2;
const FILTER: &str = "filter";
const FORWARD: &str = "FORWARD";

/// Makes the rules at the head of `FORWARD`, of iptables or ip6tables, those for `bridges`. Where the chain is not there,
/// nothing is done.
pub(crate) fn let_pass(nft: &Connection, family: Family, mark: &str, bridges: &[&str]) -> Result<()> {
    let filter = Table { family, name: FILTER };
    let chains = nft.chains(family)?;
    let is_there = chains.iter().any(|chain| chain.table == FILTER && chain.name == FORWARD);
    let own = chains.iter().filter(|chain| !(chain.table == FILTER && chain.name == FORWARD));
    // What tables for both families say is said once.
    let both = if family == Family::Ip { nft.chains(Family::Inet)? } else { Vec::new() };
    for chain in own.chain(&both) {
        if chain.hook == Some(Hook::Forward) && chain.policy == Some(Policy::Drop) {
            tracing::warn!(
                "chain `{}` of nftables' table `{}` drops what is forwarded: let our bridges pass in it",
                chain.name,
                chain.table
            );
        }
    }
    if !is_there {
        return Ok(());
    }
    let mut batch = Batch::new();
    for rule in nft.rules(filter, FORWARD)? {
        if rule.comment.as_deref() == Some(mark) {
            batch.delete_rule(filter, FORWARD, rule.handle);
        }
    }
    let register = Register(0);
    for bridge in bridges {
        let name = [bridge.as_bytes(), &[0]].concat();
        for meta in [Meta::OutputName, Meta::InputName] {
            let rule = [
                Expression::LoadMeta(meta, register),
                Expression::Compare(Comparison::Equal, register, &name),
                Expression::Counter,
                Expression::Verdict(Verdict::Accept),
            ];
            batch.insert_rule(filter, FORWARD, mark, &rule);
        }
    }
    Ok(nft.apply(batch)?)
}

/// Whether rules for some of `bridges` bridges are missing from a `FORWARD` that is there: somebody has loaded it anew.
pub(crate) fn is_incomplete(nft: &Connection, family: Family, mark: &str, bridges: usize) -> Result<bool> {
    let filter = Table { family, name: FILTER };
    let ours = nft.rules(filter, FORWARD)?.iter().filter(|rule| rule.comment.as_deref() == Some(mark)).count();
    if ours == bridges * RULES {
        return Ok(false);
    }
    Ok(nft.chains(family)?.iter().any(|chain| chain.table == FILTER && chain.name == FORWARD))
}
