//! Reads and writes of block devices.

use oci_spec::runtime::{LinuxBlockIo, LinuxResources, LinuxThrottleDevice, LinuxWeightDevice};
use rustix::io::Errno;

use super::{Controller, MAX};
use crate::group::Group;
use crate::{CgroupError, Result};

const RATE: &str = "a limit on a device";
const WEIGHT: &str = "a block IO weight";

pub(super) fn apply(group: &Group, resources: &LinuxResources) -> Result<()> {
    let Some(io) = resources.block_io() else { return Ok(()) };
    throttles(group, io)?;
    weights(group, io)?;
    let leaf = io.leaf_weight().is_some_and(|weight| weight > 0)
        || io.weight_device().iter().flatten().any(|device| device.leaf_weight().is_some_and(|weight| weight > 0));
    if leaf {
        return Err(CgroupError::Unsupported(
            "leafWeight of blockIO: no kernel since Linux 5.0 has it, as its IO scheduler CFQ has gone",
        ));
    }
    Ok(())
}

fn throttles(group: &Group, io: &LinuxBlockIo) -> Result<()> {
    let none: &[LinuxThrottleDevice] = &[];
    let all = [
        ("blkio.throttle.read_bps_device", "rbps", io.throttle_read_bps_device()),
        ("blkio.throttle.write_bps_device", "wbps", io.throttle_write_bps_device()),
        ("blkio.throttle.read_iops_device", "riops", io.throttle_read_iops_device()),
        ("blkio.throttle.write_iops_device", "wiops", io.throttle_write_iops_device()),
    ];
    for (file, key, devices) in all {
        for device in devices.as_deref().unwrap_or(none) {
            let controller = Controller::of(group, "blkio", RATE)?;
            let name = format!("{}:{}", device.major(), device.minor());
            if controller.v2 {
                controller.write("io.max", &format!("{name} {key}={}", rate(device.rate())), RATE)?;
            } else {
                controller.write(file, &format!("{name} {}", device.rate()), RATE)?;
            }
        }
    }
    Ok(())
}

/// On v1 0 is no limit; v2 has a word for it.
fn rate(rate: u64) -> String {
    if rate == 0 { MAX.into() } else { rate.to_string() }
}

fn weights(group: &Group, io: &LinuxBlockIo) -> Result<()> {
    let weight = io.weight().filter(|weight| *weight > 0);
    let none: &[LinuxWeightDevice] = &[];
    let devices: Vec<(String, u16)> = io
        .weight_device()
        .as_deref()
        .unwrap_or(none)
        .iter()
        .filter_map(|device| Some((format!("{}:{}", device.major(), device.minor()), device.weight()?)))
        .collect();
    if weight.is_none() && devices.is_empty() {
        return Ok(());
    }
    let controller = Controller::of(group, "blkio", WEIGHT)?;
    let (file, device_file, scale) = weight_files(&controller).ok_or(CgroupError::Unsupported(
        "a block IO weight needs an IO scheduler with weights, which this kernel does not have",
    ))?;
    if let Some(weight) = weight {
        controller.write(file, &scale.of(weight).to_string(), WEIGHT)?;
    }
    for (name, weight) in devices {
        // 0 is none of its own.
        let weight = if weight == 0 { "default".to_owned() } else { scale.of(weight).to_string() };
        controller.write(device_file, &format!("{name} {weight}"), WEIGHT).map_err(without_weights)?;
    }
    Ok(())
}

/// The kernel takes a weight of a device only while a scheduler that has weights is the device's.
fn without_weights(error: CgroupError) -> CgroupError {
    match &error {
        CgroupError::File { source, .. } if source.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {
            CgroupError::Unsupported(
                "a block IO weight of a device needs an IO scheduler with weights on it, as BFQ: choose it in the \
                 device's `queue/scheduler` (/sys/block), or leave out the weight",
            )
        }
        _ => error,
    }
}

/// Where a group's weight and those of single devices are: what the scheduler BFQ has, or else v2's own cost model and
/// v1's old name.
fn weight_files(controller: &Controller) -> Option<(&'static str, &'static str, Scale)> {
    let files = if controller.v2 {
        [("io.bfq.weight", "io.bfq.weight", Scale::Same), ("io.weight", "io.weight", Scale::V2)]
    } else {
        [
            ("blkio.bfq.weight", "blkio.bfq.weight_device", Scale::Same),
            ("blkio.weight", "blkio.weight_device", Scale::Same),
        ]
    };
    files.into_iter().find(|(file, ..)| controller.has(file))
}

/// Whether a group can have a weight among others.
pub(crate) fn weighs(group: &Group) -> bool {
    Controller::of(group, "blkio", WEIGHT).is_ok_and(|controller| weight_files(&controller).is_some())
}

/// Whether single devices can have weights.
pub(crate) fn weighs_devices(group: &Group) -> bool {
    let controller = Controller::of(group, "blkio", WEIGHT).ok();
    controller.is_some_and(|controller| weight_files(&controller).is_some_and(|(_, file, _)| controller.has(file)))
}

#[derive(Clone, Copy)]
enum Scale {
    /// 10 to 1000 as v1 has it; BFQ takes it as it is.
    Same,
    /// 1 to 10000.
    V2,
}

impl Scale {
    fn of(self, weight: u16) -> u64 {
        match self {
            Self::Same => weight.into(),
            // The formula of runc and crun.
            Self::V2 => 1 + u64::from(weight.saturating_sub(10)) * 9_999 / 990,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_spread_over_the_other_range() {
        for (weight, v2) in [(10, 1), (500, 4950), (1000, 10_000), (5, 1)] {
            assert_eq!(Scale::V2.of(weight), v2);
            assert_eq!(Scale::Same.of(weight), u64::from(weight));
        }
    }

    #[test]
    fn no_rate_is_no_limit() {
        assert_eq!((rate(0), rate(1_048_576)), ("max".to_owned(), "1048576".to_owned()));
    }
}
