//! Names of the API's fields, by which a request's keys are known however they are written: Go compares them without
//! regard to case.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// All names that requests have.
#[rustfmt::skip]
const NAMES: &[&str] = &[
    // Containers and images.
    "AttachStderr", "AttachStdin", "AttachStdout", "Cmd", "Domainname", "Entrypoint", "Env", "ExposedPorts",
    "Healthcheck", "HostConfig", "Hostname", "Image", "Labels", "MacAddress", "NetworkDisabled",
    "NetworkingConfig", "OnBuild", "OpenStdin", "ArgsEscaped", "Shell", "StdinOnce", "StopSignal", "StopTimeout",
    "Tty", "User", "Volumes", "WorkingDir",
    "Interval", "Retries", "StartInterval", "StartPeriod", "Test", "Timeout",
    // Host configuration.
    "Annotations", "AutoRemove", "Binds", "CapAdd", "CapDrop", "Cgroup", "CgroupnsMode", "ConsoleSize",
    "ContainerIDFile", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "GroupAdd", "HealthOnFailure", "Init",
    "IpcMode", "Isolation", "Links", "LogConfig", "MaskedPaths", "Mounts", "NetworkMode", "OomScoreAdj", "PidMode",
    "PortBindings", "Privileged", "PublishAllPorts", "ReadonlyPaths", "ReadonlyRootfs", "RestartPolicy", "Runtime",
    "SecurityOpt", "ShmSize", "StorageOpt", "Sysctls", "Tmpfs", "UTSMode", "UsernsMode", "VolumeDriver",
    "VolumesFrom",
    "BlkioDeviceReadBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteBps", "BlkioDeviceWriteIOps", "BlkioWeight",
    "BlkioWeightDevice", "CgroupParent", "CpuCount", "CpuPercent", "CpuPeriod", "CpuQuota", "CpuRealtimePeriod",
    "CpuRealtimeRuntime", "CpuShares", "CpusetCpus", "CpusetMems", "DeviceCgroupRules", "DeviceRequests", "Devices",
    "IOMaximumBandwidth", "IOMaximumIOps", "KernelMemory", "KernelMemoryTCP", "Memory", "MemoryReservation",
    "MemorySwap", "MemorySwappiness", "NanoCpus", "OomKillDisable", "PidsLimit", "Ulimits",
    "CgroupPermissions", "PathInContainer", "PathOnHost", "Path", "Rate", "Weight", "Hard", "Soft", "HostIp",
    "HostPort", "MaximumRetryCount", "Name", "Type", "Config", "Capabilities", "Count", "DeviceIDs", "Driver",
    "Options",
    "Secrets", "SecretData", "Umask", "UID", "GID", "ID",
    // Mounts and volumes.
    "BindOptions", "Consistency", "ReadOnly", "Source", "Target", "TmpfsOptions", "VolumeOptions", "ImageOptions",
    "CreateMountpoint", "IDMap", "NonRecursive", "Propagation", "ReadOnlyForceRecursive", "ReadOnlyNonRecursive",
    "DriverConfig", "NoCopy", "Subpath", "Mode", "SizeBytes", "DriverOpts", "ClusterVolumeSpec",
    // Networks.
    "Attachable", "CheckDuplicate", "ConfigFrom", "ConfigOnly", "EnableIPv4", "EnableIPv6", "IPAM", "Ingress",
    "Internal", "Scope", "AuxiliaryAddresses", "Gateway", "IPRange", "Subnet",
    "Aliases", "DNSNames", "EndpointID", "EndpointsConfig", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "GwPriority",
    "IPAMConfig", "IPAddress", "IPPrefixLen", "IPv4Address", "IPv6Address", "IPv6Gateway", "LinkLocalIPs",
    "NetworkID", "Container", "EndpointConfig", "Force",
    // Execs.
    "Detach", "DetachKeys",
    // Credentials.
    "auth", "email", "identitytoken", "password", "registrytoken", "serveraddress", "username",
];

static BY_LOWER: LazyLock<BTreeMap<String, &'static str>> =
    LazyLock::new(|| NAMES.iter().map(|name| (name.to_lowercase(), *name)).collect());

/// The field that a key means, if there is one.
pub(crate) fn canonical(key: &str) -> Option<&'static str> {
    BY_LOWER.get(&key.to_lowercase()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_request_is_known_by_its_own_name() {
        let all = serde_json::json!([
            wharf_engine::CreateRequest::default(),
            wharf_engine::spec::ExecConfig::default(),
            wharf_engine::spec::MountRequest::default(),
            wharf_engine::spec::EndpointSettings::default(),
            wharf_engine::spec::Ulimit::default(),
            wharf_engine::spec::DeviceMapping::default(),
        ]);
        for object in all.as_array().unwrap() {
            for key in object.as_object().unwrap().keys() {
                assert_eq!(canonical(key), Some(key.as_str()));
            }
        }
        let host = serde_json::to_value(wharf_engine::spec::HostConfig::default()).unwrap();
        for key in host.as_object().unwrap().keys() {
            assert_eq!(canonical(key), Some(key.as_str()));
        }
        assert_eq!(NAMES.len(), BY_LOWER.len());
    }
}
