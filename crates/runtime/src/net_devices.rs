//! Network devices of the host's that a container gets (runtime-spec 1.3, config-linux, "Network Devices").
//!
//! A device is moved into the container's network namespace, keeps its permanent addresses of global scope, and is up
//! there. Whatever fails in create, the devices are given back, with the names and addresses that they had: with the
//! namespace virtual ones would be gone, as they are when a container that was created ends.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Linux;
use rustix::fs::{Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use wharf_netlink::NetlinkError;
use wharf_netlink::route::{Batch, Connection, Link, PermanentAddress};

use crate::birth::Home;
use crate::plan::Plan;
use crate::{Result, RuntimeError};

/// `IFNAMSIZ` (linux/if.h) without the NUL.
const MAX_NAME: usize = 15;
/// What the kernel numbers in a name.
const TEMPLATE: &str = "%d";
/// How often the next number is tried when somebody else has taken it meanwhile.
const TRIES: usize = 16;

/// A device that a configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NetDevice {
    /// On the host.
    name: String,
    /// In the container; may have [`TEMPLATE`] in it.
    new_name: String,
}

/// The devices of a configuration, in the order of their names. Nothing is looked at.
pub(crate) fn plan(linux: &Linux) -> Result<Vec<NetDevice>> {
    let mut devices = Vec::new();
    for (name, device) in linux.net_devices().iter().flatten() {
        if !is_name(name) {
            return Err(RuntimeError::Invalid(format!("netDevices: `{name}` is no name of a network device")));
        }
        let new_name = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(name);
        if !is_name(&new_name.replacen(TEMPLATE, "0", 1)) {
            return Err(RuntimeError::Invalid(format!("netDevices: `{name}` cannot be named `{new_name}`")));
        }
        devices.push(NetDevice { name: name.clone(), new_name: new_name.to_owned() });
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    let mut taken = HashSet::new();
    for device in devices.iter().filter(|device| !device.new_name.contains(TEMPLATE)) {
        if !taken.insert(&device.new_name) {
            return Err(RuntimeError::Invalid(format!("netDevices: two would be named `{}`", device.new_name)));
        }
    }
    Ok(devices)
}

/// As the kernel has it (`dev_valid_name`); `%` is for templates only.
fn is_name(name: &str) -> bool {
    let bad = |c: char| c.is_ascii_whitespace() || matches!(c, '\0' | '\x0b' | '/' | ':' | '%');
    !matches!(name, "" | "." | "..") && name.len() <= MAX_NAME && !name.contains(bad)
}

/// The network namespace of others that the container joins, where there are devices to be moved; `None` where it gets
/// a new one.
///
/// # Errors
/// When devices cannot be moved at all: nothing has been made by then.
pub(crate) fn joined(plan: &Plan) -> Result<Option<OwnedFd>> {
    if plan.net_devices.is_empty() {
        return Ok(None);
    }
    if plan.unprivileged {
        let text = "netDevices without privileges: the host's devices are not this user's to move";
        return Err(RuntimeError::Unsupported(text.into()));
    }
    // The last one that is joined counts.
    let Some(join) = plan.joins.iter().rev().find(|join| join.kind == "net") else {
        if plan.namespaces.network {
            return Ok(None);
        }
        return Err(no_namespace());
    };
    let id = |fd: BorrowedFd<'_>| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    if id(join.fd.as_fd()).is_ok_and(|there| Home::of("net").is_ok_and(|home| id(home.fd.as_fd()) == Ok(there))) {
        return Err(no_namespace());
    }
    let fd = join.fd.try_clone().map_err(|_| RuntimeError::host("duplicate", "network namespace", Errno::MFILE))?;
    Ok(Some(fd))
}

fn no_namespace() -> RuntimeError {
    RuntimeError::Invalid(
        "unable to move network devices without a NET namespace: add one of the container's own, or leave netDevices out"
            .into(),
    )
}

/// The network namespace of a process.
pub(crate) fn network_of(pid: i32) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/ns/net");
    rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| RuntimeError::host("open", Path::new(&path), errno))
}

/// A network namespace with a way to change what is in it.
#[derive(Debug)]
struct Place<'a> {
    netns: BorrowedFd<'a>,
    route: Connection,
}

impl<'a> Place<'a> {
    /// The caller has one thread, so nothing else happens in that namespace while it is there.
    fn open(netns: BorrowedFd<'a>) -> Result<Self> {
        let home = Home::of("net")?;
        move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))
            .map_err(|errno| RuntimeError::host("enter", "network namespace", errno))?;
        let opened = Connection::open();
        home.back()?;
        Ok(Self { netns, route: opened.map_err(|error| failed("netlink", error))? })
    }
}

fn failed(device: &str, error: NetlinkError) -> RuntimeError {
    RuntimeError::NetDevice { device: device.to_owned(), error }
}

/// A device that was moved, and how it was before.
#[derive(Debug)]
struct Moved {
    before: Link,
    addresses: Vec<PermanentAddress>,
    /// What it is called in the container.
    name: String,
}

/// The devices of a container that is being made. Unless they are left there ([`MovedDevices::leave`]) they go back.
#[derive(Debug)]
pub(crate) struct MovedDevices {
    home: Home,
    netns: OwnedFd,
    moved: Vec<Moved>,
}

impl MovedDevices {
    /// Moves `devices` from the caller's network namespace to `netns`.
    ///
    /// # Errors
    /// When there is no such device, or what is asked cannot be done; then all are where they were.
    pub(crate) fn carry(devices: &[NetDevice], netns: OwnedFd) -> Result<Self> {
        let mut all = Self { home: Home::of("net")?, netns, moved: Vec::new() };
        let route = Connection::open().map_err(|error| failed("netlink", error))?;
        let here = Place { netns: all.home.fd.as_fd(), route };
        let there = Place::open(all.netns.as_fd())?;
        for device in devices {
            let fail = |error| failed(&device.name, error);
            let Some(before) = here.route.link(&device.name).map_err(fail)? else {
                let text = format!("netDevices: there is no network device `{}` to be moved", device.name);
                return Err(RuntimeError::Invalid(text));
            };
            let addresses = here.route.permanent_addresses(before.index).map_err(fail)?;
            let name = move_as(&here, &there, &before, &device.new_name)?;
            // From here on it must come back.
            all.moved.push(Moved { before, addresses, name });
            let Some(moved) = all.moved.last() else { continue };
            settle(&there, &moved.name, moved, true).map_err(fail)?;
        }
        Ok(all)
    }

    /// The container is there: the devices are its own.
    pub(crate) fn leave(mut self) {
        self.moved.clear();
    }

    /// Gives one back; best effort, for there is a failure already that is told.
    fn give_back(here: &Place<'_>, there: &Place<'_>, moved: &Moved) -> wharf_netlink::Result<()> {
        let Some(link) = there.route.link(&moved.name)? else { return Ok(()) };
        let mut batch = Batch::new();
        batch.move_link(link.index, &moved.before.name, here.netns);
        there.route.apply(batch)?;
        settle(here, &moved.before.name, moved, moved.before.up)?;
        let (Some(master), Some(link)) = (moved.before.master, here.route.link(&moved.before.name)?) else {
            return Ok(());
        };
        let mut batch = Batch::new();
        batch.set_master(link.index, master);
        here.route.apply(batch)
    }
}

impl Drop for MovedDevices {
    fn drop(&mut self) {
        if self.moved.is_empty() {
            return;
        }
        let Ok(route) = Connection::open() else { return };
        let here = Place { netns: self.home.fd.as_fd(), route };
        let Ok(there) = Place::open(self.netns.as_fd()) else { return };
        for moved in self.moved.iter().rev() {
            // The next one is tried all the same.
            let _ = Self::give_back(&here, &there, moved);
        }
    }
}

/// Moves a link to `there` as `name`, and gives the name that it has then.
fn move_as(here: &Place<'_>, there: &Place<'_>, link: &Link, name: &str) -> Result<String> {
    for _ in 0..TRIES {
        let fail = |error| failed(&link.name, error);
        let taken: HashSet<String> = there.route.links().map_err(fail)?.into_iter().map(|link| link.name).collect();
        let free = if name.contains(TEMPLATE) {
            let mut numbered = (0_u32..).map(|number| name.replacen(TEMPLATE, &number.to_string(), 1));
            numbered.find(|name| !taken.contains(name)).unwrap_or_else(|| name.to_owned())
        } else {
            name.to_owned()
        };
        if !is_name(&free) {
            return Err(RuntimeError::Invalid(format!("netDevices: `{free}` is too long a name for `{}`", link.name)));
        }
        let conflict = || {
            RuntimeError::Invalid(format!(
                "netDevices: there is a network device `{free}` in the container's network namespace already: give `{}` another name",
                link.name
            ))
        };
        if taken.contains(&free) {
            return Err(conflict());
        }
        let mut batch = Batch::new();
        batch.move_link(link.index, &free, there.netns);
        match here.route.apply(batch) {
            Ok(()) => return Ok(free),
            // Somebody was faster.
            Err(error) if error.errno == Errno::EXIST && free != name => {}
            Err(error) if error.errno == Errno::EXIST => return Err(conflict()),
            Err(error) => return Err(fail(error)),
        }
    }
    let text = format!("netDevices: every name that `{name}` gives is taken by somebody else at once");
    Err(RuntimeError::Invalid(text))
}

/// Gives a link that has moved its addresses again, and takes it up.
fn settle(at: &Place<'_>, name: &str, moved: &Moved, up: bool) -> wharf_netlink::Result<()> {
    // The number may be another one here.
    let Some(link) = at.route.link(name)? else {
        return Err(NetlinkError { action: format!("find `{name}` again"), detail: None, errno: Errno::NODEV });
    };
    let mut batch = Batch::new();
    for address in &moved.addresses {
        batch.restore_address(link.index, address, name != moved.before.name);
    }
    if up {
        batch.set_up(link.index);
    }
    at.route.apply(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(json: &str) -> Result<Vec<NetDevice>> {
        plan(&serde_json::from_str(&format!(r#"{{"netDevices":{json}}}"#)).unwrap())
    }

    #[test]
    fn names_are_those_that_the_kernel_takes() {
        let two = planned(r#"{"eth1":{"name":"net%d"},"eth0":{}}"#).unwrap();
        let names: Vec<_> = two.iter().map(|device| (device.name.as_str(), device.new_name.as_str())).collect();
        assert_eq!(names, [("eth0", "eth0"), ("eth1", "net%d")]);
        assert_eq!(planned(r#"{"a":{"name":""}}"#).unwrap()[0].new_name, "a");
        assert_eq!(planned(r#"{"a":{"name":"%d"}}"#).unwrap()[0].new_name, "%d");
        assert!(planned("{}").unwrap().is_empty());
        for wrong in [
            r#"{"":{}}"#,
            r#"{"..":{}}"#,
            r#"{"a b":{}}"#,
            r#"{"a/b":{}}"#,
            r#"{"a:1":{}}"#,
            r#"{"eth%d":{}}"#,
            r#"{"sixteen_letters_":{}}"#,
            r#"{"a":{"name":"a b"}}"#,
            r#"{"a":{"name":"x%s"}}"#,
            r#"{"a":{"name":"x%d%d"}}"#,
            r#"{"a":{"name":"fifteen_letters%d"}}"#,
            r#"{"a":{"name":"c"},"b":{"name":"c"}}"#,
            r#"{"a":{"name":"b"},"b":{}}"#,
        ] {
            assert!(matches!(planned(wrong), Err(RuntimeError::Invalid(_))), "{wrong}");
        }
    }
}
