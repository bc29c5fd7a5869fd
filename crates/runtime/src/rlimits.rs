//! Resource limits of a process (runtime-spec, config, "rlimits"; getrlimit(2)).

use oci_spec::runtime::PosixRlimit;
use rustix::process::{Resource, Rlimit};

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
