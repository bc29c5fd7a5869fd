//! The command line of `wharf daemon`: dockerd's flags, where they mean something here.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command, value_parser};

/// dockerd's options whose effect is always so here, or that are about programs that Wharf does without. They are taken, so
/// that a host's units and files go on to work, and the log says that they do nothing.
pub(crate) const WITHOUT_EFFECT: &[&str] = &[
    "add-runtime",
    "allow-direct-routing",
    "containerd",
    "containerd-namespace",
    "containerd-plugins-namespace",
    "cpu-rt-period",
    "cpu-rt-runtime",
    "exec-opt",
    "feature",
    "init-path",
    "network-control-plane-mtu",
    "node-generic-resource",
    "swarm-default-advertise-addr",
    "userland-proxy-path",
];

/// The same, of those that are switches.
pub(crate) const SWITCHES_WITHOUT_EFFECT: &[&str] =
    &["cri-containerd", "experimental", "ip-forward-no-drop", "raw-logs"];

fn without_effect() -> Vec<Arg> {
    let values = WITHOUT_EFFECT.iter().map(|name| Arg::new(*name).long(*name).num_args(1).action(ArgAction::Append));
    let switches = SWITCHES_WITHOUT_EFFECT
        .iter()
        .map(|name| Arg::new(*name).long(*name).num_args(0..=1).require_equals(true).default_missing_value("true"));
    values.chain(switches).map(|arg| arg.hide(true)).collect()
}

pub(crate) fn command() -> Command {
    let value = |name: &'static str, help: &'static str| Arg::new(name).long(name).help(help).num_args(1);
    let list = |name: &'static str, help: &'static str| value(name, help).action(ArgAction::Append);
    // `--init`, `--init=false`.
    let switch = |name: &'static str, help: &'static str| {
        let parse = |text: &str| text.parse::<bool>().map_err(|_| "true or false");
        value(name, help).num_args(0..=1).require_equals(true).default_missing_value("true").value_parser(parse)
    };
    Command::new("wharf daemon")
        // Of an option that is given twice the last one counts, as in dockerd.
        .args_override_self(true)
        .version(env!("CARGO_PKG_VERSION"))
        .about("A self-sufficient engine for containers")
        .arg(list("host", "Daemon socket(s) to listen on").short('H'))
        .arg(switch("tls", "Use TLS for tcp:// sockets; implied by --tlsverify"))
        .arg(switch("tlsverify", "Use TLS and verify the clients' certificates"))
        .arg(
            value("tlscacert", "Trust certs signed only by this CA (default ~/.docker/ca.pem)")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("tlscert", "Path to TLS certificate file (default ~/.docker/cert.pem)")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(value("tlskey", "Path to TLS key file (default ~/.docker/key.pem)").value_parser(value_parser!(PathBuf)))
        .arg(switch("insecure-tcp", "Let everybody who reaches a tcp:// socket in: they are root on this host then"))
        .arg(list("tcp-name", "Names by which clients of --insecure-tcp call this host, besides its own"))
        .arg(value("metrics-addr", "Address and port to serve /metrics on for everybody (default port 9323)"))
        .arg(value("group", "Group for the unix socket").short('G'))
        .arg(value("data-root", "Root directory of persistent state").short('g').value_parser(value_parser!(PathBuf)))
        .arg(value("exec-root", "Root directory for execution state files").value_parser(value_parser!(PathBuf)))
        .arg(value("pidfile", "Path to use for the daemon PID file").short('p').value_parser(value_parser!(PathBuf)))
        .arg(value("config-file", "Daemon configuration file").value_parser(value_parser!(PathBuf)))
        .arg(value("cgroup-parent", "Parent cgroup for all containers"))
        .arg(value("bip", "IP address and prefix of the default bridge"))
        .arg(value("bridge", "Device of the default bridge; none for no default network").short('b'))
        .arg(switch("ipv6", "Enable IPv6 on the default bridge"))
        .arg(value("fixed-cidr-v6", "IPv6 subnet of the default bridge (default one of the address pools)"))
        .arg(value("bip6", "IPv6 address and prefix of the default bridge"))
        .arg(list("default-network-opt", "Default options of networks (DRIVER=KEY=VALUE)"))
        .arg(list("host-gateway-ip", "Addresses that host-gateway in --add-host stands for (default the host's on the default network)"))
        .arg(list("cdi-spec-dir", "Directories of files of the Container Device Interface (default /etc/cdi and /var/run/cdi; empty for none)"))
        .arg(value("mtu", "MTU of the containers' networks").value_parser(value_parser!(u32)))
        .arg(list("default-address-pool", "Default address pools for networks (base=CIDR,size=N)"))
        .arg(switch("ip-forward", "Enable IP forwarding on the host (default true)"))
        .arg(value("publish-policy", "Who reaches published ports: docker (everybody) or host (loopback by default)"))
        .arg(list("dns", "DNS server to use"))
        .arg(list("dns-search", "DNS search domains to use"))
        .arg(list("dns-opt", "DNS options to use"))
        .arg(value("log-driver", "Default driver for container logs"))
        .arg(list("log-opt", "Default log driver options for containers"))
        .arg(list("default-ulimit", "Default ulimits for containers"))
        .arg(list("label", "Set key=value labels to the daemon"))
        .arg(list("insecure-registry", "Registries to talk to without TLS"))
        .arg(list("registry-mirror", "Preferred registry mirror"))
        .arg(
            list("certs-dir", "Folders with certificates and hosts.toml of registries (default /etc/wharf/certs.d and /etc/docker/certs.d)")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            list("plugin-dir", "Folders with the sockets of volume plugins (default /run/docker/plugins, /etc/docker/plugins and /usr/lib/docker/plugins)")
                .value_parser(value_parser!(PathBuf)),
        )
        .arg(
            value("max-concurrent-downloads", "Set the max concurrent downloads (default 3)")
                .value_parser(value_parser!(usize)),
        )
        .arg(
            value("max-concurrent-uploads", "Set the max concurrent uploads (default 5)")
                .value_parser(value_parser!(usize)),
        )
        .arg(
            value("max-download-attempts", "Set the max download attempts for each pull (default 5)")
                .value_parser(value_parser!(usize)),
        )
        .arg(value("http-proxy", "HTTP proxy URL to use for outgoing traffic"))
        .arg(value("https-proxy", "HTTPS proxy URL to use for outgoing traffic"))
        .arg(value("no-proxy", "Comma-separated list of hosts or IP addresses for which the proxy is skipped"))
        .arg(switch("init", "Run an init in the container to forward signals and reap processes"))
        .arg(value("log-level", "Set the logging level (debug, info, warn, error, fatal)").short('l'))
        .arg(value("log-format", "Set the logging format (text, json)"))
        .arg(switch("debug", "Enable debug mode").short('D'))
        .arg(value("shutdown-timeout", "Default shutdown timeout").value_parser(value_parser!(i64)))
        .arg(switch("live-restore", "Containers run on when the daemon ends: always so, the flag changes nothing"))
        .arg(switch("userland-proxy", "Publish ports on the host's IPv6 for containers with IPv4 alone, by one process (default true)"))
        .arg(switch("ip6tables", "The same for IPv6: false with --iptables=false alone"))
        .arg(switch("iptables", "Have nftables rules of the daemon's own (default true): without them published ports are relayed by a process, and nothing is translated or kept apart"))
        .arg(value("storage-driver", "Containers' files are an overlay: overlay2 or none given").short('s'))
        .arg(value("storage-layers", "How new layers are kept: erofs images, dirs, or what the kernel can (auto)"))
        .arg(value("storage-max-bytes", "Most bytes that the data root may take (such as 20GB; default no limit)"))
        .arg(switch(
            "remove-networks-on-exit",
            "Remove the networks' bridges and rules when the daemon is told to stop",
        ))
        .arg(switch("take-over", "Take the place of the daemon that has the data root: a live upgrade"))
        .arg(switch("rootless", "Run as an ordinary user, in a user namespace: always so for who is not root"))
        .arg(value("default-shm-size", "Default shm size for containers (default 64MiB)"))
        .arg(value("default-ipc-mode", "Default mode for containers ipc (shareable, private; default private)"))
        .arg(value("default-cgroupns-mode", "Default mode for containers cgroup namespace (host, private; default private)"))
        .arg(switch("no-new-privileges", "Set no-new-privileges by default for new containers"))
        .arg(value("seccomp-profile", "Path to seccomp profile; unconfined for none (default builtin)"))
        .arg(switch("icc", "Let containers on the default bridge reach one another (default true)"))
        .arg(switch("ip-masq", "Give what leaves the default bridge the host's address (default true)"))
        .arg(value("ip", "Host IP for port publishing from the default bridge network (default 0.0.0.0)"))
        .arg(value("fixed-cidr", "IPv4 subnet of the default bridge that its containers get addresses of"))
        .arg(value("default-gateway", "IPv4 address of the default bridge's gateway, if not the bridge's own"))
        .arg(value("default-gateway-v6", "IPv6 address of the default bridge's gateway, if not the bridge's own"))
        .args(without_effect())
        .arg(value("default-runtime", "Only runc, which is this program").hide(true))
        .arg(switch("selinux-enabled", "Not supported").hide(true))
        .arg(list("authorization-plugin", "Not supported").hide(true))
        .arg(list("storage-opt", "Not supported, but for what has no effect").hide(true))
        // dockerd's, known for its answer.
        .arg(value("userns-remap", "Not supported: give each container --userns auto").hide(true))
        .arg(
            Arg::new("validate")
                .long("validate")
                .help("Validate the configuration and exit")
                .action(ArgAction::SetTrue),
        )
}
