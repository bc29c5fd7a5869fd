//! From which NUMA nodes a process's memory comes (runtime-spec 1.3, config-linux, "Memory Policy"; set_mempolicy(2)).

use oci_spec::runtime::{LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use crate::report::{Failure, Step};
use crate::scheduling::numbers;
use crate::{Result, RuntimeError};

/// As many nodes as a kernel may be built for (`CONFIG_NODES_SHIFT`).
const MAX_NODES: usize = 1024;

/// What is asked, as the kernel takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    /// With its flags.
    mode: i32,
    nodes: Vec<u64>,
}

impl MemoryPolicy {
    pub(crate) fn plan(asked: &LinuxMemoryPolicy) -> Result<Self> {
        let bad = |text: String| RuntimeError::Invalid(format!("memoryPolicy: {text}"));
        let (mode, takes_nodes, needs_nodes) = match asked.mode() {
            MemoryPolicyModeType::MpolDefault => (0, false, false),
            MemoryPolicyModeType::MpolPreferred => (1, true, false),
            MemoryPolicyModeType::MpolBind => (2, true, true),
            MemoryPolicyModeType::MpolInterleave => (3, true, true),
            MemoryPolicyModeType::MpolLocal => (4, false, false),
            MemoryPolicyModeType::MpolPreferredMany => (5, true, true),
            MemoryPolicyModeType::MpolWeightedInterleave => (6, true, true),
        };
        let list = asked.nodes().as_deref().map(str::trim).filter(|list| !list.is_empty());
        if needs_nodes && list.is_none() {
            return Err(bad(format!("{} needs nodes", asked.mode())));
        }
        if !takes_nodes && list.is_some() {
            return Err(bad(format!("{} takes no nodes", asked.mode())));
        }
        let mut nodes = Vec::new();
        if let Some(list) = list {
            nodes.resize(MAX_NODES / 64, 0u64);
            let all = numbers(list, MAX_NODES).ok_or_else(|| bad(format!("`{list}` is no list of nodes")))?;
            all.into_iter().for_each(|node| nodes[node / 64] |= 1 << (node % 64));
        }
        let flags = asked.flags().as_deref().unwrap_or_default();
        let has = |flag: MemoryPolicyFlagType| flags.contains(&flag);
        if has(MemoryPolicyFlagType::MpolFStaticNodes) && has(MemoryPolicyFlagType::MpolFRelativeNodes) {
            return Err(bad("nodes are either static or relative".into()));
        }
        // linux/mempolicy.h
        let flags = flags.iter().fold(0, |all, flag| {
            all | match flag {
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            }
        });
        Ok(Self { mode: mode | flags, nodes })
    }

    pub(crate) fn apply(&self) -> Step<()> {
        wharf_sys::scheduling::set_memory_policy(self.mode, &self.nodes)
            .map_err(Failure::at("set the memory policy (see set_mempolicy(2))"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn plan(policy: Value) -> Result<MemoryPolicy> {
        let policy = serde_json::from_value(policy).map_err(|error| RuntimeError::Invalid(error.to_string()))?;
        MemoryPolicy::plan(&policy)
    }

    #[test]
    fn modes_nodes_and_flags_are_the_kernel_s() {
        let bind = plan(json!({ "mode": "MPOL_BIND", "nodes": "0-1,64", "flags": ["MPOL_F_STATIC_NODES"] })).unwrap();
        assert_eq!((bind.mode, bind.nodes[0], bind.nodes[1]), (2 | 1 << 15, 3, 1));
        assert_eq!(plan(json!({ "mode": "MPOL_LOCAL" })).unwrap(), MemoryPolicy { mode: 4, nodes: Vec::new() });
    }

    #[test]
    fn contradictions_are_refused() {
        for wrong in [
            json!({ "mode": "MPOL_FROB" }),
            json!({ "mode": "MPOL_BIND" }),
            json!({ "mode": "MPOL_DEFAULT", "nodes": "0" }),
            json!({ "mode": "MPOL_BIND", "nodes": "1024" }),
            json!({ "mode": "MPOL_BIND", "nodes": "1-0" }),
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"] }),
            json!({ "mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_FROB"] }),
        ] {
            assert!(plan(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
