//! What a request would do, found without doing it: `dry-run`.
//!
//! The same checks speak against it as against the request itself.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use wharf_image::{ImageSummary, PrunePlan};
use wharf_reference::Digest;

use crate::create::{CreateRequest, Prepared};
use crate::engine::{Engine, blocking};
use crate::error::{EngineError, Result};
use crate::mounts::{self, Missing};
use crate::record::{Container, MountPoint};
use crate::remove::RemoveOptions;
use crate::{names, ports, secrets};

/// A container that would be made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreationPlan {
    pub dry_run: bool,
    /// Empty: one that the engine picks.
    pub name: String,
    pub image: String,
    #[serde(rename = "ImageID")]
    pub image_id: Digest,
    pub command: Vec<String>,
    pub networks: Vec<String>,
    /// As `[127.0.0.1:]8080->80/tcp`; port 0 is any free one.
    pub ports: Vec<String>,
    pub mounts: Vec<MountPoint>,
    /// Named volumes that would be made; those without a name are anonymous ones among the mounts.
    pub new_volumes: Vec<String>,
    /// Directories of the host that would be made, as sources of binds.
    pub new_directories: Vec<String>,
    /// Also what would keep it from starting.
    pub warnings: Vec<String>,
}

/// A container that would be removed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RemovalPlan {
    pub dry_run: bool,
    pub id: String,
    pub name: String,
    /// It would be killed first.
    pub running: bool,
    /// Anonymous volumes that would go with it.
    pub volumes: Vec<String>,
    /// The link that would go, and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Bytes of the container's own directory.
    pub space_reclaimed: u64,
}

impl Engine {
    /// What [`Self::create`] would make.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn plan_creation(
        &self,
        name: Option<&str>,
        platform: Option<&str>,
        request: CreateRequest,
    ) -> Result<CreationPlan> {
        if let Some(name) = name.map(names::check_name).transpose()? {
            self.inner.slots.is_free(name)?;
        }
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (engine, name, platform) = (self.clone(), own(name), own(platform));
        let (prepared, mounts, record) = blocking(move || {
            let prepared = engine.prepare(platform.as_deref(), request, Missing::Leave)?;
            let record = engine.record_of(name.as_deref().unwrap_or_default(), &prepared);
            let mut keep = engine.images().keep();
            let mounts = mounts::resolve(&engine, &record, Missing::Leave, &mut keep)?;
            Ok((prepared, mounts, record))
        })
        .await?;
        secrets::check_mounts(&Container { mounts: mounts.clone(), ..record.clone() })?;
        let Prepared { path, args, image, config, host, networks, mut warnings, .. } = prepared;
        warnings.extend(self.obstacles(&record)?);
        let new_volumes = mounts.iter().filter(|point| point.kind == "volume" && point.source.is_empty());
        let new_directories = mounts.iter().filter(|point| point.kind == "bind" && !Path::new(&point.source).exists());
        let address = |request: &wharf_network::PortRequest| {
            let ip = request.host_ip.map(|ip| format!("{ip}:")).unwrap_or_default();
            let port = match request.host_port {
                None => "0".into(),
                Some((first, last)) if first == last => first.to_string(),
                Some((first, last)) => format!("{first}-{last}"),
            };
            format!("{ip}{port}->{}/{}", request.container_port, request.protocol)
        };
        Ok(CreationPlan {
            dry_run: true,
            name: record.name.clone(),
            image: config.image.clone(),
            image_id: image.id.clone(),
            command: [path].into_iter().chain(args).collect(),
            networks: networks.into_keys().collect(),
            ports: ports::requests(&config, &host)?.iter().map(address).collect(),
            new_volumes: new_volumes.map(|point| point.name.clone()).filter(|name| !name.is_empty()).collect(),
            new_directories: new_directories.map(|point| point.source.clone()).collect(),
            mounts,
            warnings,
        })
    }

    /// What would keep a container from starting now, as far as it can be seen from here.
    fn obstacles(&self, record: &Container) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for name in record.networks.keys().filter(|name| self.networks().resolve(name).is_err()) {
            found.push(format!("it would not start: network {name} not found"));
        }
        let others = self.list();
        let running = others.iter().filter(|other| other.state.status.is_active());
        for other in running {
            for (port, binding) in
                other.ports.iter().flat_map(|(port, all)| all.iter().flatten().map(move |one| (port, one)))
            {
                let protocol = port.rsplit('/').next().unwrap_or_default();
                let taken = ports::requests(&record.config, &record.host)?.into_iter().any(|request| {
                    let anywhere = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
                    let ip = request.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
                    request.protocol.to_string() == protocol
                        && request
                            .host_port
                            .is_some_and(|(first, last)| first == last && first.to_string() == binding.host_port)
                        && (anywhere(&ip) || anywhere(&binding.host_ip) || ip == binding.host_ip)
                });
                if taken {
                    let (port, name) = (&binding.host_port, &other.name);
                    found.push(format!("it would not start: port {port}/{protocol} is published by container {name}"));
                }
            }
        }
        found.dedup();
        Ok(found)
    }

    /// What [`Self::remove`] would remove.
    ///
    /// # Errors
    /// As [`Self::remove`].
    pub async fn plan_removal(&self, name: &str, options: RemoveOptions) -> Result<RemovalPlan> {
        let slot = self.inner.slots.find(name)?;
        let record = slot.record();
        let mut plan = RemovalPlan {
            dry_run: true,
            id: record.id.clone(),
            name: record.name.clone(),
            running: record.state.status.is_active(),
            volumes: Vec::new(),
            link: None,
            space_reclaimed: 0,
        };
        if options.link {
            plan.link = Some(self.check_link(name)?);
            return Ok(plan);
        }
        if plan.running && !options.force {
            return Err(Self::still_active(name, &record));
        }
        if options.volumes {
            let anonymous = record.mounts.iter().filter(|point| point.kind == "volume" && point.anonymous);
            let own = |point: &&MountPoint| self.volume_users(&point.name).iter().all(|user| *user == record.id);
            plan.volumes = anonymous.filter(own).map(|point| point.name.clone()).collect();
        }
        let dir = self.dir(&record.id);
        plan.space_reclaimed = blocking(move || Ok(wharf_rooted_path::disk_usage(&dir))).await?;
        Ok(plan)
    }

    /// What [`Self::prune_containers`] would remove now, each with the bytes that it takes. Waits for the disk.
    pub fn prunable_containers(&self, choose: impl Fn(&Container) -> bool) -> Vec<(Arc<Container>, u64)> {
        let ended = self.list().into_iter().filter(|record| !record.state.status.is_active() && choose(record));
        let sized = |record: Arc<Container>| {
            let size = wharf_rooted_path::disk_usage(self.dir(&record.id));
            (record, size)
        };
        ended.map(sized).collect()
    }

    /// What [`Self::prune_images`] would remove if the containers `gone` were not there. Waits for the disk.
    ///
    /// # Errors
    /// When the store fails.
    pub fn plan_image_prune(
        &self,
        dangling_only: bool,
        choose: &dyn Fn(&ImageSummary) -> bool,
        gone: &BTreeSet<String>,
    ) -> Result<PrunePlan> {
        let in_use = |id: &Digest| self.users(id).iter().any(|(container, _)| !gone.contains(container));
        let mut pinned = self.container_layers(gone);
        pinned.extend(self.inner.pins.get().into_iter().flat_map(|pins| (pins.0)()));
        self.images().plan_prune(dangling_only, &in_use, choose, &pinned).map_err(EngineError::from)
    }

    /// The layers of all containers but those that are taken as gone.
    pub fn container_layers(&self, gone: &BTreeSet<String>) -> BTreeSet<Digest> {
        let staying = self.list();
        let staying = staying.iter().filter(|record| !gone.contains(&record.id));
        staying.flat_map(|record| record.all_layers().cloned().collect::<Vec<_>>()).collect()
    }
}
