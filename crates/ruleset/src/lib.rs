//! What the rules of a host's nftables would do with the first packet of a connection, and which of them.
//!
//! No packet is sent: the rules are read ([`wharf_netlink::nft::Ruleset`]) and gone through as the kernel does
//! (net/netfilter/nf_tables_core.c), those that `iptables-nft` has written too. What is not known of the packet, such as
//! who exactly sends it, or of a rule, is said and not guessed: [`Course`] has the rules that let only some through, and
//! those that keep some out.
//!
//! - [`Packet`], [`Link`]: what is looked at. [`Walk`]: goes through a hook's chains. [`Course`]: what came of it.
//! - [`Cause`]: a rule, or the policy of a chain, in nft's words.

mod matching;
mod packet;
mod registers;
mod text;
mod walk;
mod xtables;

pub use packet::{Link, Packet};
pub use text::rule as rule_text;
pub use walk::{Cause, Course, Fate, Limit, Walk};
