//! What hooks need: a bundle to find the container's configuration and its root in.

use std::fs;
use std::path::PathBuf;

use oci_spec::runtime::Hooks;
use serde_json::{Value, json};
use wharf_runtime::HookSet;

use crate::error::{LaunchError, Result};
use crate::launch::Launch;

/// The hooks of a container that is made. The bundle is in its volatile directory, and goes with that.
#[derive(Debug)]
pub(crate) struct Hooked<'a> {
    hooks: &'a Hooks,
    state: Value,
    /// Where they see the root; the directory itself stays empty.
    pub(crate) root: PathBuf,
}

impl<'a> Hooked<'a> {
    pub(crate) fn prepare(launch: &Launch, hooks: &'a Hooks) -> Result<Self> {
        let bundle = launch.dir.join("bundle");
        let root = bundle.join("rootfs");
        let fail = |what: &str, why: &dyn std::fmt::Display| LaunchError::Failed {
            message: format!("cannot {what} for hooks: {why}"),
            code: 125,
        };
        fs::create_dir_all(&root).map_err(|error| fail("make a bundle", &error))?;
        let config = serde_json::to_vec(&launch.spec).map_err(|error| fail("write a configuration", &error))?;
        fs::write(bundle.join("config.json"), config).map_err(|error| fail("write a configuration", &error))?;
        let mut state = json!({ "ociVersion": launch.spec.version(), "id": launch.id, "bundle": bundle });
        if let Some(annotations) = launch.spec.annotations().as_ref().filter(|all| !all.is_empty()) {
            state["annotations"] = json!(annotations);
        }
        Ok(Self { hooks, state, root })
    }

    pub(crate) fn set(&self) -> HookSet<'_> {
        HookSet { hooks: self.hooks, state: &self.state }
    }
}
