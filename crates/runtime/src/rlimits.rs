//! Resource limits of a process (runtime-spec, config, "rlimits"; getrlimit(2)).

use oci_spec::runtime::PosixRlimit;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::report::{Failure, Step};
use crate::{Result, RuntimeError};

/// Each as the kernel takes it; one that is given twice is a contradiction.
pub(crate) fn rlimits(limits: &[PosixRlimit]) -> Result<Vec<(Resource, Rlimit)>> {
    let mut all: Vec<(Resource, Rlimit)> = Vec::new();
    for limit in limits {
        let (resource, values) = rlimit(limit)?;
        if all.iter().any(|(other, _)| *other == resource) {
            return Err(RuntimeError::Invalid(format!("resource limit {} is given twice", limit.typ())));
        }
        all.push((resource, values));
    }
    Ok(all)
}

fn rlimit(limit: &PosixRlimit) -> Result<(Resource, Rlimit)> {
    let name = limit.typ().to_string();
    let resource = match name.as_str() {
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_STACK" => Resource::Stack,
        other => return Err(RuntimeError::Invalid(format!("unknown resource limit `{other}`"))),
    };
    if limit.soft() > limit.hard() {
        return Err(RuntimeError::Invalid(format!("the soft limit of {name} is above its hard limit")));
    }
    // All bits set is RLIM_INFINITY, for rustix the absence of a limit.
    let value = |n: u64| (n != u64::MAX).then_some(n);
    Ok((resource, Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) }))
}

/// As many fds as the making of a process takes, besides those that it inherits.
const OWN_FDS: u64 = 32;

/// Sets the limits of this process.
pub(crate) fn apply(limits: &[(Resource, Rlimit)]) -> Step<()> {
    limits.iter().try_for_each(|(resource, limit)| set(*resource, *limit))
}

/// Sets the limits of a process that the caller is still to make, and that will have no right to raise one: with room
/// for the caller itself where it counts too. The rest is for that process, by [`apply`]. `fds`: how many it inherits.
pub(crate) fn apply_ahead(limits: &[(Resource, Rlimit)], fds: u32) -> Step<()> {
    for (resource, limit) in limits {
        let room = |value: Option<u64>| match resource {
            Resource::Nproc => value.map(|value| value.saturating_add(1)),
            Resource::Nofile => value.map(|value| value.max(OWN_FDS + u64::from(fds))),
            _ => value,
        };
        let wide = Rlimit { current: room(limit.current), maximum: room(limit.maximum) };
        match setrlimit(*resource, wide) {
            // Who may not raise it as far goes without the room.
            Err(Errno::PERM) if wide != *limit => set(*resource, *limit)?,
            done => done.map_err(refused(*resource))?,
        }
    }
    Ok(())
}

fn set(resource: Resource, limit: Rlimit) -> Step<()> {
    setrlimit(resource, limit).map_err(refused(resource))
}

fn refused(resource: Resource) -> impl FnOnce(Errno) -> Failure {
    Failure::at(format!("set the resource limit RLIMIT_{}", format!("{resource:?}").to_uppercase()))
}
