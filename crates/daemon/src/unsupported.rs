//! What dockerd has and this daemon does not, and what excludes one another: refused where to leave it out without a word
//! would do harm.

/// What was asked for.
#[derive(Debug, Default)]
pub(crate) struct Unsupported {
    pub(crate) no_rules_for_ipv6_alone: bool,
    /// `icc=false` with `iptables=false`.
    pub(crate) no_neighbours_without_rules: bool,
    /// `bridge` with `bip`.
    pub(crate) bridge_twice: bool,
    pub(crate) default_runtime: Option<String>,
    pub(crate) selinux: bool,
    pub(crate) storage_driver: Option<String>,
    pub(crate) storage_options: Vec<String>,
    pub(crate) userns_remap: Option<String>,
    pub(crate) authorization_plugins: Vec<String>,
}

impl Unsupported {
    /// # Errors
    /// The message for the user, for the first of it that there is.
    pub(crate) fn refuse(&self) -> Result<(), String> {
        if self.no_rules_for_ipv6_alone {
            return Err(
                "ip6tables=false is not supported alone: give iptables=false for a daemon without any rules, or leave it out"
                    .into(),
            );
        }
        if self.no_neighbours_without_rules {
            // dockerd's words.
            return Err(
                "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or \
                 --iptables to true"
                    .into(),
            );
        }
        if self.bridge_twice {
            // dockerd's words.
            return Err("You specified -b & --bip, mutually exclusive options. Please specify only one".into());
        }
        if let Some(runtime) = self.default_runtime.as_deref()
            && !matches!(runtime, "" | "runc" | "io.containerd.runc.v2" | "wharf")
        {
            return Err(format!(
                "default runtime '{runtime}' is not supported: this program runs containers itself, and would not isolate them \
                 as that does. Leave it out"
            ));
        }
        if self.selinux {
            return Err(
                "selinux-enabled is not supported: containers get no labels of their own. Leave it out, and give those that \
                 need one --security-opt label"
                    .into(),
            );
        }
        if let Some(driver) = &self.storage_driver
            && !matches!(driver.as_str(), "overlay2" | "overlayfs" | "")
        {
            return Err(format!("storage driver '{driver}' is not supported: give overlay2, or none"));
        }
        if let Some(option) = self.storage_options.iter().find(|option| option.contains("size=")) {
            return Err(format!(
                "storage option '{option}' is not supported: containers have no limit of their own on the disk. Leave it \
                 out; --storage-max-bytes bounds all together"
            ));
        }
        if let Some(remap) = self.userns_remap.as_deref().filter(|remap| !remap.is_empty()) {
            return Err(format!(
                "userns-remap '{remap}' is not supported: it would give all containers the same IDs. Leave it out, and run \
                 containers with `--userns auto`: each has IDs of its own, from what /etc/subuid and /etc/subgid give to \
                 wharf, dockremap or containers"
            ));
        }
        if let Some(plugin) = self.authorization_plugins.first() {
            return Err(format!(
                "authorization plugin '{plugin}' is not supported: without it everybody who reaches the socket may do all. \
                 Leave it out, and let clients in by TLS certificates (--tlsverify) or by the socket's group (--group)"
            ));
        }
        Ok(())
    }
}
