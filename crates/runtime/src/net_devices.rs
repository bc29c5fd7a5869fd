//! Network devices of the host's that a container gets (runtime-spec 1.3, config-linux, "Network Devices").
//!
//! A device is moved into the container's network namespace, keeps its permanent addresses of global scope, and is up
//! there. Until the program runs the devices are lent ([`LentDevices`]): whatever fails, they are given back, with the
//! names and addresses that they had, for with the namespace virtual ones would be gone. Then they are the container's,
//! and end with it.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::Linux;
use rustix::fs::{Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};
use wharf_netlink::NetlinkError;
use wharf_netlink::route::{Batch, Connection, Link, PermanentAddress};

use crate::birth::Home;
use crate::plan::Plan;
use crate::{Result, RuntimeError};

/// `IFNAMSIZ` (linux/if.h) without the NUL.
const MAX_NAME: usize = 15;
/// What the kernel numbers in a name.
const TEMPLATE: &str = "%d";
/// What a device is called that cannot have its name back, as the kernel calls one that comes home from a namespace.
const FALLBACK: &str = "dev%d";
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
    if identity(join.fd.as_fd())? == identity(Home::of("net")?.fd.as_fd())? {
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
///
/// # Errors
/// When there is no such process any more, or it is not the caller's to look into.
pub fn network_of(pid: i32) -> Result<OwnedFd> {
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
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LentDevice {
    /// In the container's network namespace. Its name there is anybody's to change.
    index: u32,
    kind: String,
    /// On the host, as all that follows.
    name: String,
    up: bool,
    master: Option<u32>,
    addresses: Vec<PermanentAddress>,
}

/// Devices that a container has got before its program runs. It is kept where create and start are two programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LentDevices {
    /// The network namespace that they are from, as fstat(2) tells it apart.
    host: (u64, u64),
    devices: Vec<LentDevice>,
}

impl LentDevices {
    /// Gives them back to the caller's network namespace from `netns`, the container's; the value is what could not be
    /// done, a line for each. Every step is tried whatever becomes of the others. The caller has one thread.
    pub fn give_back(&self, netns: BorrowedFd<'_>) -> Vec<String> {
        match self.try_all(netns) {
            Ok(left) => left,
            Err(error) => {
                let names: Vec<&str> = self.devices.iter().map(|device| device.name.as_str()).collect();
                vec![format!("network devices are not given back ({}): {error}", names.join(", "))]
            }
        }
    }

    fn try_all(&self, netns: BorrowedFd<'_>) -> Result<Vec<String>> {
        let home = Home::of("net")?;
        if identity(home.fd.as_fd())? != self.host {
            return Err(RuntimeError::Invalid("this is not the network namespace that they are from".into()));
        }
        let route = Connection::open().map_err(|error| failed("netlink", error))?;
        let here = Place { netns: home.fd.as_fd(), route };
        let there = Place::open(netns)?;
        let mut left = Vec::new();
        for device in self.devices.iter().rev() {
            device.give_back(&here, &there, &mut left);
        }
        Ok(left)
    }
}

impl LentDevice {
    fn give_back(&self, here: &Place<'_>, there: &Place<'_>, left: &mut Vec<String>) {
        let mut told = |what: &str| {
            left.push(format!("network device `{}`, which the container had got, {what}", self.name));
        };
        let link = match by_index(there, self.index) {
            Ok(Some(link)) if link.kind == self.kind => link,
            Ok(_) => return told("is not there any more and cannot be given back"),
            Err(error) => return told(&format!("cannot be found: {}", line(&error))),
        };
        let name = match bring_home(here, there, &link, &self.name) {
            Ok(name) => name,
            Err(error) => return told(&format!("cannot be given back: {}", line(&error))),
        };
        if name != self.name {
            told(&format!("comes back as `{name}`: its name was taken meanwhile"));
        }
        // The number may be another one here.
        let index = match here.route.link(&name) {
            Ok(Some(link)) => link.index,
            _ => return told("is not found again"),
        };
        let mut apply = |what: &str, fill: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::new();
            fill(&mut batch);
            if let Err(error) = here.route.apply(batch) {
                told(&format!("{what}: {}", line(&error)));
            }
        };
        for address in &self.addresses {
            apply("is without an address that it had", &|batch| {
                batch.restore_address(index, address, name != self.name);
            });
        }
        if self.up {
            apply("stays down", &|batch| {
                batch.set_up(index);
            });
        }
        if let Some(master) = self.master {
            apply("is no port of its bridge any more", &|batch| {
                batch.set_master(index, master);
            });
        }
    }
}

fn line(error: &NetlinkError) -> String {
    format!("{error}: {}", error.errno)
}

fn by_index(at: &Place<'_>, index: u32) -> wharf_netlink::Result<Option<Link>> {
    Ok(at.route.links()?.into_iter().find(|link| link.index == index))
}

/// Moves a link back under its name, or under the first of the kernel's own that is free: a device that has another
/// name is better than none.
fn bring_home(here: &Place<'_>, there: &Place<'_>, link: &Link, name: &str) -> wharf_netlink::Result<String> {
    let taken: HashSet<String> = here.route.links()?.into_iter().map(|link| link.name).collect();
    let fallbacks = (0_u32..).map(|number| FALLBACK.replacen(TEMPLATE, &number.to_string(), 1));
    let mut last = None;
    for name in [name.to_owned()].into_iter().chain(fallbacks).filter(|name| !taken.contains(name)).take(TRIES) {
        let mut batch = Batch::new();
        batch.move_link(link.index, &name, here.netns);
        match there.route.apply(batch) {
            Ok(()) => return Ok(name),
            // Somebody was faster. The kernel renames after the move: it may have come under the name that it had.
            Err(error) if error.errno == Errno::EXIST => {
                if by_index(there, link.index)?.is_none() {
                    return Ok(link.name.clone());
                }
                last = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let none = || NetlinkError { action: format!("find a name for `{name}`"), detail: None, errno: Errno::EXIST };
    Err(last.unwrap_or_else(none))
}

/// The devices of a container that is being made. Unless they are left there ([`MovedDevices::leave`]) they go back.
#[derive(Debug)]
pub(crate) struct MovedDevices {
    netns: OwnedFd,
    lent: LentDevices,
}

impl MovedDevices {
    /// Moves `devices` from the caller's network namespace to `netns`.
    ///
    /// # Errors
    /// When there is no such device, or what is asked cannot be done; then all are where they were.
    pub(crate) fn carry(devices: &[NetDevice], netns: OwnedFd) -> Result<Self> {
        let home = Home::of("net")?;
        let lent = LentDevices { host: identity(home.fd.as_fd())?, devices: Vec::new() };
        let mut all = Self { netns, lent };
        match all.carry_all(devices, &home) {
            Ok(()) => Ok(all),
            Err(error) => Err(error.with(all.give_back())),
        }
    }

    fn carry_all(&mut self, devices: &[NetDevice], home: &Home) -> Result<()> {
        let route = Connection::open().map_err(|error| failed("netlink", error))?;
        let here = Place { netns: home.fd.as_fd(), route };
        let there = Place::open(self.netns.as_fd())?;
        for device in devices {
            let fail = |error| failed(&device.name, error);
            let Some(before) = here.route.link(&device.name).map_err(fail)? else {
                let text = format!("netDevices: there is no network device `{}` to be moved", device.name);
                return Err(RuntimeError::Invalid(text));
            };
            let addresses = here.route.permanent_addresses(before.index).map_err(fail)?;
            let name = move_as(&here, &there, &before, &device.new_name)?;
            // The number may be another one there.
            let found = there.route.link(&name).map_err(fail)?.ok_or_else(|| {
                fail(NetlinkError { action: format!("find `{name}` again"), detail: None, errno: Errno::NODEV })
            })?;
            let mut batch = Batch::new();
            for address in &addresses {
                batch.restore_address(found.index, address, name != before.name);
            }
            batch.set_up(found.index);
            // From here on it must come back.
            let Link { name, kind, up, master, .. } = before;
            self.lent.devices.push(LentDevice { index: found.index, kind, name, up, master, addresses });
            there.route.apply(batch).map_err(fail)?;
        }
        Ok(())
    }

    /// The program runs, or somebody else keeps what is lent: the devices stay where they are.
    pub(crate) fn leave(mut self) {
        self.lent.devices.clear();
    }

    pub(crate) fn lent(&self) -> &LentDevices {
        &self.lent
    }

    /// Gives them back; what could not be done.
    pub(crate) fn give_back(mut self) -> Vec<String> {
        let lent = LentDevices { host: self.lent.host, devices: std::mem::take(&mut self.lent.devices) };
        lent.give_back(self.netns.as_fd())
    }
}

impl Drop for MovedDevices {
    fn drop(&mut self) {
        if !self.lent.devices.is_empty() {
            // There is a failure already that is told, of something else.
            let _ = self.lent.give_back(self.netns.as_fd());
        }
    }
}

fn identity(netns: BorrowedFd<'_>) -> Result<(u64, u64)> {
    let stat = fstat(netns).map_err(|errno| RuntimeError::host("look at", "network namespace", errno))?;
    Ok((stat.st_dev, stat.st_ino))
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
