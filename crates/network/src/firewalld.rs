//! Getting along with firewalld: what is in none of its zones may not be sent on by the host. So our bridges are put into
//! its zone `trusted`, which accepts all, as Docker puts its own into one like that: our table has decided on what
//! comes and goes there.
//!
//! They are put there in what runs alone, and nothing is written to its configuration; whenever it has made its table anew they
//! are told to it again. A bridge that somebody has put into another zone stays there.

use std::path::Path;
use std::time::Duration;

use wharf_dbus::{Body, Connection, Method, Refusal};
use wharf_netlink::nft::{self, Family, Table};

/// Its table, by which it is known that it runs.
const TABLE: Table<'static> = Table { family: Family::Inet, name: "firewalld" };
const ZONE: &str = "trusted";
const PATIENCE: Duration = Duration::from_secs(5);
/// firewalld.dbus(5).
const ZONES: Method<'_> = Method {
    destination: "org.fedoraproject.FirewallD1",
    path: "/org/fedoraproject/FirewallD1",
    interface: "org.fedoraproject.FirewallD1.zone",
    member: "",
};

/// The number of its table, which is another whenever that has been made anew; `None` when it does not run.
pub(crate) fn table(nft: &nft::Connection) -> wharf_netlink::Result<Option<u64>> {
    nft.table_handle(TABLE)
}

/// Puts bridges into the zone.
///
/// # Errors
/// When it cannot be asked, in words.
pub(crate) fn let_pass(bus: &Path, bridges: &[&str]) -> Result<(), String> {
    change(bus, "addInterface", bridges, &["ZONE_ALREADY_SET", "ZONE_CONFLICT"])
}

/// Takes a bridge that goes out of the zone.
pub(crate) fn forget(bus: &Path, bridge: &str) -> Result<(), String> {
    change(bus, "removeInterface", &[bridge], &["UNKNOWN_INTERFACE", "ZONE_CONFLICT"])
}

/// `fine` are refusals that say that it is as it should be, or as somebody else wants it.
fn change(bus: &Path, member: &str, bridges: &[&str], fine: &[&str]) -> Result<(), String> {
    let mut bus = Connection::open(bus, true, PATIENCE).map_err(|error| error.to_string())?;
    for bridge in bridges {
        let body = Body::default().text(ZONE).text(bridge);
        match bus.call(Method { member, ..ZONES }, &body).map_err(|error| error.to_string())? {
            Err(Refusal { text, .. }) if fine.iter().any(|code| text.starts_with(code)) => {
                tracing::debug!("firewalld: {bridge}: {text}");
            }
            Err(Refusal { text, .. }) => return Err(format!("{bridge}: {text}")),
            Ok(_) => {}
        }
    }
    Ok(())
}
