//! Volumes that a plugin has: made, mounted and removed by it, and known here by a row.

use std::path::PathBuf;

use wharf_store::Table;

use crate::plugin::{Driver, Told};
use crate::record::{LOCAL, Row};
use crate::volumes::{TABLE, make_dir};
use crate::{CreateVolume, Result, Volume, VolumeError, Volumes};

/// For whom a plugin has mounted which volume: `VOLUME/USER`, which no name of a volume can be taken for. Written before the plugin is asked, and deleted after it was told of the end.
const MOUNTED: Table = Table::new("volume-mounts");

impl Volumes {
    pub(crate) fn driver(&self, action: &'static str, name: &str, driver: &str) -> Result<Driver> {
        let found = self.plugins().driver(driver);
        found.map_err(|why| VolumeError::NoDriver { action, name: name.to_owned(), why })
    }

    fn driver_of(&self, action: &'static str, volume: &Volume) -> Result<Driver> {
        self.driver(action, &volume.name, &volume.driver)
    }

    /// Whether a plugin that answers says that it does not have a volume which is noted as its own.
    pub(crate) fn is_lost(&self, volume: &Volume) -> bool {
        !volume.is_local()
            && self.driver_of("get", volume).is_ok_and(|driver| !matches!(driver.get(&volume.name), Ok(Some(_))))
    }

    /// The caller has the volume's lock.
    pub(crate) fn create_by_plugin(&self, name: &str, request: &CreateVolume, anonymous: bool) -> Result<Volume> {
        let driver = self.driver("create", name, &request.driver)?;
        // Plugins answer a question for what they do not have with an error, or with nothing.
        let there = driver.get(name).ok().flatten();
        if there.is_none() {
            let made = driver.create(name, &request.options);
            made.map_err(|why| VolumeError::Plugin { action: "create", name: name.to_owned(), why })?;
        }
        let row = Row {
            driver: request.driver.clone(),
            created: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            labels: request.labels.clone(),
            options: request.options.clone(),
            anonymous,
            scope: driver.scope(),
            snapshots: Default::default(),
            from_dir: None,
            limit: None,
        };
        make_dir(&self.dir().join(name))?;
        // A crash before leaves a volume that the plugin lists.
        self.store().write::<_, VolumeError>(|tx| Ok(tx.put(TABLE, name, &row)?))?;
        let mut volume = row.shown(name.to_owned(), PathBuf::new());
        take_over(&mut volume, there.or_else(|| driver.get(name).ok().flatten()));
        if volume.mountpoint.as_os_str().is_empty() {
            volume.mountpoint = driver.path(name).unwrap_or_default();
        }
        Ok(volume)
    }

    /// A volume with what its plugin says of it, or one that only a plugin knows.
    ///
    /// # Errors
    /// `NotFound`, `NoDriver`, `Plugin`.
    pub fn inspect(&self, name: &str) -> Result<Volume> {
        match self.find(name)? {
            Some(volume) if volume.is_local() => Ok(volume),
            Some(mut volume) => {
                let driver = self.driver_of("get", &volume)?;
                let told = driver.get(name);
                let told = told.map_err(|why| VolumeError::Plugin { action: "get", name: name.to_owned(), why })?;
                // Its plugin has lost it.
                let told = told.ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
                take_over(&mut volume, Some(told));
                Ok(volume)
            }
            None => self.foreign(name)?.map(|(_, volume)| volume).ok_or_else(|| VolumeError::NotFound(name.to_owned())),
        }
    }

    /// All volumes by name, those that only plugins know too, and why some are not told of.
    ///
    /// # Errors
    /// When the database fails.
    pub fn list_all(&self) -> Result<(Vec<Volume>, Vec<String>)> {
        let mut volumes = self.list()?;
        let (drivers, mut warnings) = self.plugins().drivers();
        for driver in drivers {
            match driver.list() {
                Ok(list) => {
                    for told in list {
                        match volumes.iter_mut().find(|volume| volume.name == told.name) {
                            Some(volume) if volume.driver == driver.name() => take_over(volume, Some(told)),
                            Some(_) => {}
                            None => volumes.push(shown(driver.name(), told, None)),
                        }
                    }
                }
                Err(why) => warnings.push(format!("list {}: {why}", driver.name())),
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((volumes, warnings))
    }

    /// A volume that a plugin has and no row tells of.
    fn foreign(&self, name: &str) -> Result<Option<(Driver, Volume)>> {
        if crate::name::check(name).is_err() {
            return Ok(None);
        }
        for driver in self.plugins().drivers().0 {
            if let Ok(Some(told)) = driver.get(name) {
                let volume = shown(driver.name(), told, Some(driver.scope()));
                return Ok(Some((driver, volume)));
            }
        }
        Ok(None)
    }

    /// False when no plugin has it either.
    pub(crate) fn remove_foreign(&self, name: &str) -> Result<bool> {
        let Some((driver, _)) = self.foreign(name)? else { return Ok(false) };
        let removed = driver.remove(name);
        removed.map_err(|why| VolumeError::Plugin { action: "remove", name: name.to_owned(), why })?;
        Ok(true)
    }

    /// With `force` it is forgotten here whatever the plugin says.
    pub(crate) fn remove_by_plugin(&self, volume: &Volume, force: bool) -> Result<()> {
        let removed = self.driver_of("remove", volume).and_then(|driver| {
            let removed = driver.remove(&volume.name);
            removed.map_err(|why| VolumeError::Plugin { action: "remove", name: volume.name.clone(), why })
        });
        match removed {
            Err(error) if force => {
                tracing::warn!("volume {} is forgotten, although its plugin did not remove it: {error}", volume.name);
                Ok(())
            }
            removed => removed,
        }
    }

    pub(crate) fn mount_by_plugin(&self, volume: &Volume, user: &str) -> Result<PathBuf> {
        let before =
            self.users().get(&volume.name).filter(|used| used.users.contains(user)).map(|used| used.path.clone());
        if let Some(path) = before {
            return Ok(path);
        }
        let key = format!("{}/{user}", volume.name);
        let driver = self.driver_of("mount", volume)?;
        self.store().write::<_, VolumeError>(|tx| Ok(tx.put(MOUNTED, &key, &())?))?;
        let mounted = driver.mount(&volume.name, user);
        if mounted.is_err() {
            self.forget_mount(&key)?;
        }
        let action = "error while mounting volume";
        mounted.map_err(|why| VolumeError::Plugin { action, name: volume.name.clone(), why })
    }

    pub(crate) fn unmount_by_plugin(&self, volume: &Volume, user: &str) -> Result<()> {
        let driver = self.driver_of("unmount", volume)?;
        let done = driver.unmount(&volume.name, user);
        // Who has answered has heard of it.
        self.forget_mount(&format!("{}/{user}", volume.name))?;
        done.map_err(|why| VolumeError::Plugin { action: "unmount", name: volume.name.clone(), why })
    }

    fn forget_mount(&self, key: &str) -> Result<()> {
        self.store().write::<_, VolumeError>(|tx| Ok(tx.delete(MOUNTED, key).map(drop)?))
    }

    /// Tells plugins of the containers that have ended while there was no daemon.
    pub(crate) fn unmount_unused_by_plugins(&self) {
        let rows = self.store().read::<_, VolumeError>(|tx| Ok(tx.list::<()>(MOUNTED)?)).unwrap_or_default();
        for (key, _) in rows {
            let Some((name, user)) = key.split_once('/') else { continue };
            let done = self.locked(name, || {
                if self.users().get(name).is_some_and(|used| used.users.contains(user)) {
                    return Ok(());
                }
                match self.find(name)? {
                    Some(volume) if !volume.is_local() => self.unmount_by_plugin(&volume, user),
                    _ => self.forget_mount(&key),
                }
            });
            if let Err(error) = done {
                tracing::warn!("the plugin of volume {name} does not know that {user} has ended: {error}");
            }
        }
    }
}

/// What a plugin says counts more than what is known here.
fn take_over(volume: &mut Volume, told: Option<Told>) {
    let Some(told) = told else { return };
    if !told.mountpoint.is_empty() {
        volume.mountpoint = told.mountpoint.into();
    }
    if !told.created_at.is_empty() {
        volume.created = told.created_at;
    }
    volume.status = told.status;
}

fn shown(driver: &str, told: Told, scope: Option<String>) -> Volume {
    let mut volume = Volume {
        name: told.name.clone(),
        driver: driver.to_owned(),
        scope: scope.unwrap_or_else(|| LOCAL.into()),
        created: String::new(),
        labels: Default::default(),
        options: Default::default(),
        anonymous: false,
        mountpoint: PathBuf::new(),
        status: Default::default(),
        snapshots: Vec::new(),
        limit: None,
    };
    take_over(&mut volume, Some(told));
    volume
}
