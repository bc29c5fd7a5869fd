//! The engine's answers as Go's types have them: what a field is called in a template, and what it is when the engine
//! leaves it out.
//!
//! A type is a line: its name, then its fields. `Name`: a text. `Name:kind`: something else. `Name<json`: the JSON calls
//! it otherwise. `Name?`: JSON leaves it out when it is empty. `@Type`: an embedded struct. Kinds: `s` text, `i` whole number, `f` fraction, `b` truth, `t` moment, `d` span of time,
//! `any`, `empty` (a struct without fields), `[]kind`, `{}kind` (map), `{K}kind` (map with keys of type K), `*kind` (pointer), or a type of the same table.

use std::collections::HashMap;

use wharf_template::{Field, Type};

/// `docker inspect` of a container.
pub(crate) fn container() -> Type {
    table(CONTAINER, "container.InspectResponse")
}

/// `docker inspect` of an image.
pub(crate) fn image() -> Type {
    table(IMAGE, "image.InspectResponse")
}

/// `docker network inspect`.
pub(crate) fn network() -> Type {
    table(NETWORK, "network.Inspect")
}

/// `docker volume inspect`.
pub(crate) fn volume() -> Type {
    table(VOLUME, "volume.Volume")
}

/// `docker info`.
pub(crate) fn info() -> Type {
    table(INFO, "system.dockerInfo")
}

/// What `docker info` knows without an engine.
pub(crate) fn info_of_client() -> Type {
    table(INFO, "system.clientSide")
}

/// `docker version`.
pub(crate) fn version() -> Type {
    table(VERSION, "system.versionInfo")
}

/// `docker events`.
pub(crate) fn event() -> Type {
    table(EVENT, "*events.Message")
}

const CONTAINER: &str = "\
container.InspectResponse @*container.ContainerJSONBase Mounts:[]container.MountPoint Config:*container.Config \
NetworkSettings:*container.NetworkSettings ImageManifestDescriptor?:*any
container.ContainerJSONBase ID<Id Created Path Args:[]s State:*container.State Image ResolvConfPath HostnamePath HostsPath \
LogPath Name RestartCount:i Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs:[]s \
HostConfig:*container.HostConfig GraphDriver:storage.DriverData SizeRw?:*i SizeRootFs?:*i
container.State Status Running:b Paused:b Restarting:b OOMKilled:b Dead:b Pid:i ExitCode:i Error StartedAt FinishedAt \
Health?:*container.Health
container.Health Status FailingStreak:i Log:[]*container.HealthcheckResult
container.HealthcheckResult Start:t End:t ExitCode:i Output
container.MountPoint Type? Name? Source Destination Driver? Mode RW:b Propagation
storage.DriverData Data:{}s Name
container.Config Hostname Domainname User AttachStdin:b AttachStdout:b AttachStderr:b ExposedPorts?:{nat.Port}empty Tty:b OpenStdin:b \
StdinOnce:b Env:[]s Cmd:[]s Healthcheck?:*container.HealthConfig ArgsEscaped?:b Image Volumes:{}empty WorkingDir \
Entrypoint:[]s NetworkDisabled?:b MacAddress? OnBuild:[]s Labels:{}s StopSignal? StopTimeout?:*i Shell?:[]s
container.HealthConfig Test?:[]s Interval?:d Timeout?:d StartPeriod?:d StartInterval?:d Retries?:i
container.HostConfig Binds:[]s ContainerIDFile LogConfig:container.LogConfig NetworkMode PortBindings:{nat.Port}[]nat.PortBinding \
RestartPolicy:container.RestartPolicy AutoRemove:b VolumeDriver VolumesFrom:[]s ConsoleSize:[]i Annotations?:{}s CapAdd:[]s \
CapDrop:[]s CgroupnsMode DNS<Dns:[]s DNSOptions<DnsOptions:[]s DNSSearch<DnsSearch:[]s ExtraHosts:[]s GroupAdd:[]s IpcMode \
Cgroup Links:[]s OomScoreAdj:i PidMode Privileged:b PublishAllPorts:b ReadonlyRootfs:b SecurityOpt:[]s StorageOpt?:{}s \
Tmpfs?:{}s UTSMode UsernsMode ShmSize:i Sysctls?:{}s Runtime? Isolation @container.Resources Mounts?:[]mount.Mount \
MaskedPaths:[]s ReadonlyPaths:[]s Init?:*b
container.LogConfig Type Config:{}s
container.RestartPolicy Name MaximumRetryCount:i
nat.PortBinding HostIP<HostIp HostPort
mount.Mount Type? Source? Target? ReadOnly?:b Consistency? BindOptions?:any VolumeOptions?:any ImageOptions?:any \
TmpfsOptions?:any ClusterOptions?:any
container.Resources CPUShares<CpuShares:i Memory:i NanoCPUs<NanoCpus:i CgroupParent BlkioWeight:i BlkioWeightDevice:[]any \
BlkioDeviceReadBps:[]any BlkioDeviceWriteBps:[]any BlkioDeviceReadIOps:[]any BlkioDeviceWriteIOps:[]any \
CPUPeriod<CpuPeriod:i CPUQuota<CpuQuota:i CPURealtimePeriod<CpuRealtimePeriod:i CPURealtimeRuntime<CpuRealtimeRuntime:i \
CpusetCpus CpusetMems Devices:[]container.DeviceMapping DeviceCgroupRules:[]s DeviceRequests:[]container.DeviceRequest \
KernelMemory?:i KernelMemoryTCP?:i MemoryReservation:i MemorySwap:i MemorySwappiness:*i OomKillDisable:*b PidsLimit:*i \
Ulimits:[]*units.Ulimit CPUCount<CpuCount:i CPUPercent<CpuPercent:i IOMaximumIOps:i IOMaximumBandwidth:i
container.DeviceMapping PathOnHost PathInContainer CgroupPermissions
container.DeviceRequest Driver Count:i DeviceIDs:[]s Capabilities:[][]s Options:{}s
units.Ulimit Name Hard:i Soft:i
container.NetworkSettings @container.NetworkSettingsBase @container.DefaultNetworkSettings \
Networks:{}*network.EndpointSettings
container.NetworkSettingsBase Bridge SandboxID SandboxKey Ports:{nat.Port}[]nat.PortBinding HairpinMode:b LinkLocalIPv6Address \
LinkLocalIPv6PrefixLen:i SecondaryIPAddresses:[]any SecondaryIPv6Addresses:[]any
container.DefaultNetworkSettings EndpointID Gateway GlobalIPv6Address GlobalIPv6PrefixLen:i IPAddress IPPrefixLen:i \
IPv6Gateway MacAddress
network.EndpointSettings IPAMConfig:*network.EndpointIPAMConfig Links:[]s Aliases:[]s MacAddress DriverOpts:{}s \
GwPriority:i NetworkID EndpointID Gateway IPAddress IPPrefixLen:i IPv6Gateway GlobalIPv6Address GlobalIPv6PrefixLen:i \
DNSNames:[]s
network.EndpointIPAMConfig IPv4Address? IPv6Address? LinkLocalIPs?:[]s
";

const IMAGE: &str = "\
image.InspectResponse ID<Id RepoTags:[]s RepoDigests:[]s Parent Comment Created? DockerVersion Author \
Config:*v1.DockerOCIImageConfig Architecture Variant? Os OsVersion? Size:i VirtualSize?:i GraphDriver:storage.DriverData \
RootFS:image.RootFS Metadata:image.Metadata Descriptor?:*any Manifests?:[]any Container<- ContainerConfig<-:*any
storage.DriverData Data:{}s Name
image.RootFS Type? Layers?:[]s
image.Metadata LastTagTime:t
v1.DockerOCIImageConfig @v1.ImageConfig @v1.DockerOCIImageConfigExt
v1.ImageConfig User? ExposedPorts?:{}empty Env?:[]s Entrypoint?:[]s Cmd?:[]s Volumes?:{}empty WorkingDir? Labels?:{}s \
StopSignal? ArgsEscaped?:b
v1.DockerOCIImageConfigExt Healthcheck?:*v1.HealthcheckConfig OnBuild?:[]s Shell?:[]s
v1.HealthcheckConfig Test?:[]s Interval?:d Timeout?:d StartPeriod?:d StartInterval?:d Retries?:i
";

const NETWORK: &str = "\
network.Inspect Name ID<Id Created:t Scope Driver EnableIPv4:b EnableIPv6:b IPAM:network.IPAM Internal:b Attachable:b \
Ingress:b ConfigFrom:network.ConfigReference ConfigOnly:b Containers:{}network.EndpointResource Options:{}s Labels:{}s \
Peers?:[]any Services?:{}any
network.IPAM Driver Options:{}s Config:[]network.IPAMConfig
network.IPAMConfig Subnet? IPRange? Gateway? AuxAddress?<AuxiliaryAddresses:{}s
network.ConfigReference Network
network.EndpointResource Name EndpointID MacAddress IPv4Address IPv6Address
";

const VOLUME: &str = "\
volume.Volume ClusterVolume?:*any CreatedAt? Driver Labels:{}s Mountpoint Name Options:{}s Scope Status?:{}any \
UsageData?:*volume.UsageData
volume.UsageData RefCount:i Size:i
";

const INFO: &str = "\
system.clientSide ClientInfo?:*system.clientInfo
system.dockerInfo @*system.Info ServerErrors?:[]s UserName<- ClientInfo?:*system.clientInfo ClientErrors?:[]s
system.Info ID Containers:i ContainersRunning:i ContainersPaused:i ContainersStopped:i Images:i Driver DriverStatus:[][]s \
SystemStatus?:[][]s Plugins:system.PluginsInfo MemoryLimit:b SwapLimit:b KernelMemory?:b KernelMemoryTCP?:b \
CPUCfsPeriod<CpuCfsPeriod:b CPUCfsQuota<CpuCfsQuota:b CPUShares:b CPUSet:b PidsLimit:b IPv4Forwarding:b Debug:b NFd:i \
OomKillDisable:b NGoroutines:i SystemTime LoggingDriver CgroupDriver CgroupVersion? NEventsListener:i KernelVersion \
OperatingSystem OSVersion OSType Architecture IndexServerAddress RegistryConfig:*registry.ServiceConfig NCPU:i MemTotal:i \
GenericResources:[]any DockerRootDir HTTPProxy<HttpProxy HTTPSProxy<HttpsProxy NoProxy Name Labels:[]s ExperimentalBuild:b \
ServerVersion Runtimes:{}system.RuntimeWithStatus DefaultRuntime Swarm:swarm.Info LiveRestoreEnabled:b Isolation InitBinary \
ContainerdCommit:system.Commit RuncCommit:system.Commit InitCommit:system.Commit SecurityOptions:[]s ProductLicense? \
DefaultAddressPools?:[]system.NetworkAddressPool FirewallBackend?:any CDISpecDirs:[]s DiscoveredDevices?:[]any \
Containerd?:any Warnings:[]s
system.PluginsInfo Volume:[]s Network:[]s Authorization:[]s Log:[]s
registry.ServiceConfig IndexConfigs:{}registry.IndexInfo InsecureRegistryCIDRs:[]s Mirrors:[]s
registry.IndexInfo Mirrors:[]s Name Official:b Secure:b
system.RuntimeWithStatus @system.Runtime Status?<status:{}s
system.Runtime Path?<path Args?<runtimeArgs:[]s Type?<runtimeType Options?<options:{}any
swarm.Info NodeID NodeAddr LocalNodeState ControlAvailable:b Error RemoteManagers:[]any Nodes?:i Managers?:i Cluster?:any \
Warnings?:[]s
system.Commit ID Expected?
system.NetworkAddressPool Base Size:i
system.clientInfo Debug:b @system.clientVersion Plugins:[]any Warnings:[]s
system.clientVersion Platform?:*system.platformInfo Version? APIVersion?<ApiVersion DefaultAPIVersion? GitCommit? GoVersion? \
Os? Arch? BuildTime? Context
system.platformInfo Name?
";

const VERSION: &str = "\
system.versionInfo Client:system.clientVersion Server:*types.Version
system.clientVersion Platform?:*system.platformInfo Version? APIVersion?<ApiVersion DefaultAPIVersion? GitCommit? GoVersion? \
Os? Arch? BuildTime? Context
system.platformInfo Name?
types.Version Platform:types.platform Components?:[]types.ComponentVersion Version APIVersion<ApiVersion MinAPIVersion? \
GitCommit GoVersion Os Arch KernelVersion? Experimental?:b BuildTime?
types.platform Name
types.ComponentVersion Name Version Details?:{}s
";

const EVENT: &str = "\
*events.Message Status?<status ID?<id From?<from Type Action Actor:events.Actor Scope?<scope Time?<time:i TimeNano?<timeNano:i
events.Actor ID Attributes:{}s
";

fn table(text: &'static str, root: &str) -> Type {
    let lines: HashMap<&'static str, Vec<&'static str>> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.collect()))
        })
        .collect();
    named(&lines, root)
}

fn named(lines: &HashMap<&'static str, Vec<&'static str>>, name: &str) -> Type {
    let words = lines.get(name).map(Vec::as_slice).unwrap_or_default();
    Type::object(name, words.iter().map(|word| field(lines, word)).collect())
}

fn field(lines: &HashMap<&'static str, Vec<&'static str>>, word: &'static str) -> Field {
    if let Some(embedded) = word.strip_prefix('@') {
        let target = embedded.trim_start_matches('*');
        let name = target.rsplit('.').next().unwrap_or(target);
        return Field { name, json: "", omit_empty: false, kind: named(lines, target) };
    }
    let (names, kind_word) = word.split_once(':').unwrap_or((word, "s"));
    let (name, json) = names.split_once('<').unwrap_or((names, names));
    let (name, omit_empty) = name.strip_suffix('?').map_or((name, false), |name| (name, true));
    Field { name, json: json.trim_end_matches('?'), omit_empty, kind: kind(lines, kind_word) }
}

fn kind(lines: &HashMap<&'static str, Vec<&'static str>>, word: &'static str) -> Type {
    if let Some(rest) = word.strip_prefix("[]") {
        return Type::list(kind(lines, rest));
    }
    if let Some((key, rest)) = word.strip_prefix('{').and_then(|word| word.split_once('}')) {
        let element = kind(lines, rest);
        return if key.is_empty() { Type::map(element) } else { Type::keyed(key, element) };
    }
    if let Some(rest) = word.strip_prefix('*') {
        return Type::pointer(kind(lines, rest));
    }
    match word {
        "s" => Type::String,
        "i" => Type::Int,
        "f" => Type::Float,
        "b" => Type::Bool,
        "t" => Type::Time,
        "d" => Type::Duration,
        "any" => Type::Any,
        name => named(lines, name),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wharf_template::Template;

    use super::*;

    #[test]
    fn what_go_would_print() {
        let container = json!({
            "Id": "abc",
            "State": {"Status": "running", "Running": true},
            "Config": {"Env": ["A=b"], "Labels": {"x": "y"}},
            "NetworkSettings": {"IPAddress": "1.2.3.4", "Ports": {"80/tcp": [{"HostIp": "", "HostPort": "81"}]}},
            "HostConfig": {"NetworkMode": "bridge", "CpuShares": 5}
        });
        let probed = json!({ "Config": { "Healthcheck": { "Test": ["CMD", "a"], "Interval": 90_500_000_000_i64, "Timeout": 1500 } } });
        for (template, printed) in [
            ("{{.Config.Healthcheck.Interval}} {{.Config.Healthcheck.StartPeriod}}", "1m30.5s 0s"),
            ("{{.Config.Healthcheck}}", "{[CMD a] 1m30.5s 1.5µs 0s 0s 0}"),
            ("{{.Config.Healthcheck.Interval.Seconds}} {{gt .Config.Healthcheck.Interval 5}}", "90.5 true"),
            ("{{printf \"%d %s\" .Config.Healthcheck.Timeout .Config.Healthcheck.Timeout}}", "1500 1.5µs"),
            ("{{json .Config.Healthcheck}}", "{\"Test\":[\"CMD\",\"a\"],\"Interval\":90500000000,\"Timeout\":1500}"),
        ] {
            let value = super::container().view(&probed);
            assert_eq!(Template::parse(template).unwrap().execute(&value).as_deref(), Ok(printed), "{template}");
        }
        for (template, printed) in [
            ("{{.ID}} {{.State.Status}} {{.State.Health}} {{.State.Pid}}", "abc running <nil> 0"),
            (
                "{{.Config.Env}} {{.Config.Cmd}} {{.Config.Labels}} {{.Config.Labels.no}}",
                "[A=b] [] map[x:y] <no value>",
            ),
            ("{{index .Config.Labels \"no\"}}|{{.HostConfig.CPUShares}}|{{.Name}}|", "|5||"),
            (
                "{{range $port, $places := .NetworkSettings.Ports}}{{$port}}={{(index $places 0).HostPort}}{{end}}",
                "80/tcp=81",
            ),
            (
                "{{.NetworkSettings.IPAddress}} {{json .HostConfig.LogConfig}}",
                "1.2.3.4 {\"Type\":\"\",\"Config\":null}",
            ),
            (
                "{{json .State.Health}} {{json .NetworkSettings.Ports}}",
                "null {\"80/tcp\":[{\"HostIp\":\"\",\"HostPort\":\"81\"}]}",
            ),
        ] {
            let value = super::container().view(&container);
            assert_eq!(Template::parse(template).unwrap().execute(&value).as_deref(), Ok(printed), "{template}");
        }
        // Its keys are no plain texts: `inspect` looks at the JSON then.
        let keyed = Template::parse("{{index .NetworkSettings.Ports \"80/tcp\"}}").unwrap();
        let failure = keyed.execute(&super::container().view(&container)).unwrap_err();
        assert!(failure.to_string().ends_with("value has type string; should be nat.Port"), "{failure}");
        let failure = Template::parse("{{.Nope}}").unwrap().execute(&super::container().view(&container)).unwrap_err();
        assert!(
            failure.to_string().ends_with("can't evaluate field Nope in type container.InspectResponse"),
            "{failure}"
        );
    }

    #[test]
    fn every_table_can_be_read() {
        for kind in [image(), network(), volume(), info(), version(), event()] {
            assert!(matches!(kind, Type::Struct(_)));
        }
    }
}
