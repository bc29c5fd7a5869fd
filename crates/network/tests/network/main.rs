//! Real packets between real namespaces. Every test has a network namespace of its own as its host: the bridges, the
//! firewall and the settings are that namespace's, and all of it goes with it.

mod firewall;
mod firewalld;
mod gateway_modes;
mod host;
mod ipv6;
mod macvlan;
mod networks;
mod publish;
mod reach;
mod recover;
mod storm;
