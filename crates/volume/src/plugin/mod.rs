//! Drivers of volumes that are programs of others: Docker's protocol `VolumeDriver` on sockets (docs.docker.com,
//! "Docker volume plugins").

mod found;
mod http;
mod tls;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::Lookup;
use http::Address;

/// Where Docker looks for plugins.
const DIRS: &[&str] = &["/run/docker/plugins", "/etc/docker/plugins", "/usr/lib/docker/plugins"];
/// For what may make something, or reach a server (moby, `volume/drivers/proxy.go`).
const LONG: Duration = Duration::from_secs(120);
/// For all else.
const SHORT: Duration = Duration::from_secs(60);
/// For what somebody asks of all plugins: one that hangs must not hide the others' volumes for long.
const OF_ALL: Duration = Duration::from_secs(10);

/// By name where a plugin listens, and its scope.
type Known = HashMap<String, (Address, Option<String>)>;

/// The plugins of this host. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plugins {
    dirs: Arc<[PathBuf]>,
    /// Where those listen that have said that they are drivers of volumes, and their scopes once they have said them.
    known: Arc<Mutex<Known>>,
    lookup: Lookup,
}

impl Default for Plugins {
    fn default() -> Self {
        Self::in_dirs(DIRS.iter().map(PathBuf::from).collect())
    }
}

/// What a plugin says of a volume.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Told {
    #[serde(deserialize_with = "or_default")]
    pub(crate) name: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) mountpoint: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) created_at: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) status: Map<String, Value>,
}

/// Go writes `null` for what is empty.
fn or_default<'de, T: Default + Deserialize<'de>, D: serde::Deserializer<'de>>(input: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}

/// A driver that answers.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    name: String,
    address: Address,
    plugins: Plugins,
    timeout: Option<Duration>,
}

impl Plugins {
    /// Those in folders other than Docker's.
    pub fn in_dirs(dirs: Vec<PathBuf>) -> Self {
        Self { dirs: dirs.into(), known: Arc::default(), lookup: Lookup::default() }
    }

    /// With somebody who looks up names of hosts.
    pub(crate) fn looking_up(self, lookup: Lookup) -> Self {
        Self { lookup, ..self }
    }

    /// The driver `name`, or why there is none.
    pub(crate) fn driver(&self, name: &str) -> Result<Driver, String> {
        self.driver_within(name, None)
    }

    fn driver_within(&self, name: &str, timeout: Option<Duration>) -> Result<Driver, String> {
        let missing = |why: String| format!("error looking up volume plugin {name}: {why}");
        let address = found::find(&self.dirs, name).map_err(missing)?;
        let address = address.ok_or_else(|| missing(format!("plugin \"{name}\" not found")))?;
        let address = match address {
            Address::Host(host, port) => Address::Tcp((self.lookup.address(&host).map_err(missing)?, port).into()),
            Address::Tls { host, port, tls, .. } => {
                let own = host.parse().map_or_else(|_| self.lookup.address(&host).map_err(missing), Ok)?;
                Address::Tls { host, port, tls, place: Some((own, port).into()) }
            }
            address => address,
        };
        let driver = Driver { name: name.to_owned(), address, plugins: self.clone(), timeout };
        if self.known().get(name).map(|(address, _)| address) != Some(&driver.address) {
            let answer = driver.call("Plugin.Activate", None, SHORT).map_err(missing)?;
            let implements = answer["Implements"].as_array();
            if !implements.is_some_and(|all| all.iter().any(|one| one == "VolumeDriver")) {
                return Err(missing("plugin does not implement VolumeDriver".into()));
            }
            self.known().insert(name.to_owned(), (driver.address.clone(), None));
        }
        Ok(driver)
    }

    /// All drivers that are there and answer, and the reasons why others do not.
    pub(crate) fn drivers(&self) -> (Vec<Driver>, Vec<String>) {
        let (mut drivers, mut silent) = (Vec::new(), Vec::new());
        for name in found::names(&self.dirs) {
            match self.driver_within(&name, Some(OF_ALL)) {
                Ok(driver) => drivers.push(driver),
                // A plugin of another kind is nobody's mistake.
                Err(why) if why.ends_with("does not implement VolumeDriver") => {}
                Err(why) => silent.push(why),
            }
        }
        (drivers, silent)
    }

    /// The names of all drivers of volumes that answer, sorted.
    pub fn names(&self) -> Vec<String> {
        self.drivers().0.into_iter().map(|driver| driver.name).collect()
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Driver {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn create(&self, volume: &str, options: &BTreeMap<String, String>) -> Result<(), String> {
        self.ask("Create", &json!({ "Name": volume, "Opts": options }), LONG).map(drop)
    }

    pub(crate) fn remove(&self, volume: &str) -> Result<(), String> {
        self.ask("Remove", &json!({ "Name": volume }), SHORT).map(drop)
    }

    /// Gives the path where the volume is now. `user` is who will say [`Self::unmount`].
    pub(crate) fn mount(&self, volume: &str, user: &str) -> Result<PathBuf, String> {
        let answer = self.ask("Mount", &json!({ "Name": volume, "ID": user }), LONG)?;
        let path = PathBuf::from(answer["Mountpoint"].as_str().unwrap_or_default());
        if !path.is_absolute() {
            return Err(format!("VolumeDriver.Mount: the plugin gave no absolute path: {:?}", path.display()));
        }
        Ok(path)
    }

    pub(crate) fn unmount(&self, volume: &str, user: &str) -> Result<(), String> {
        self.ask("Unmount", &json!({ "Name": volume, "ID": user }), SHORT).map(drop)
    }

    pub(crate) fn path(&self, volume: &str) -> Result<PathBuf, String> {
        let answer = self.ask("Path", &json!({ "Name": volume }), SHORT)?;
        Ok(PathBuf::from(answer["Mountpoint"].as_str().unwrap_or_default()))
    }

    pub(crate) fn list(&self) -> Result<Vec<Told>, String> {
        let mut answer = self.ask("List", &json!({}), SHORT)?;
        let list: Option<Vec<Told>> = serde_json::from_value(answer["Volumes"].take()).map_err(|e| e.to_string())?;
        Ok(list.unwrap_or_default())
    }

    /// `None` when the plugin has no such volume, or says nothing of it.
    pub(crate) fn get(&self, volume: &str) -> Result<Option<Told>, String> {
        let mut answer = self.ask("Get", &json!({ "Name": volume }), SHORT)?;
        let told: Option<Told> = serde_json::from_value(answer["Volume"].take()).map_err(|e| e.to_string())?;
        Ok(told.filter(|told| told.name == volume))
    }

    /// `local` or `global`. A plugin of the first version does not know the question.
    pub(crate) fn scope(&self) -> String {
        if let Some((_, Some(known))) = self.plugins.known().get(&self.name) {
            return known.clone();
        }
        let answer = self.ask("Capabilities", &json!({}), SHORT);
        let is_told = answer.is_ok();
        let answer = answer.unwrap_or_default();
        let scope = answer["Capabilities"]["Scope"].as_str().unwrap_or_default().to_lowercase();
        let scope = if scope == "global" { scope } else { "local".into() };
        if is_told && let Some((_, known)) = self.plugins.known().get_mut(&self.name) {
            *known = Some(scope.clone());
        }
        scope
    }

    fn ask(&self, method: &str, body: &Value, timeout: Duration) -> Result<Value, String> {
        self.call(&format!("VolumeDriver.{method}"), Some(body), timeout)
    }

    fn call(&self, method: &str, body: Option<&Value>, timeout: Duration) -> Result<Value, String> {
        let text = body.map(Value::to_string).unwrap_or_default();
        let timeout = self.timeout.map_or(timeout, |limit| limit.min(timeout));
        let (status, answer) = self.address.call(method, text.as_bytes(), timeout).map_err(|error| {
            // Another one may listen there the next time.
            self.plugins.known().remove(&self.name);
            format!("{method}: plugin \"{}\" does not answer: {error}", self.name)
        })?;
        let answer = if answer.iter().all(u8::is_ascii_whitespace) { b"{}".to_vec() } else { answer };
        // What follows the answer is nobody's, as for Go's decoder.
        let parsed = serde_json::Deserializer::from_slice(&answer).into_iter().next().unwrap_or(Ok(Value::Null));
        if status != 200 {
            let said = parsed.as_ref().ok().and_then(|json| json["Err"].as_str()).map(str::to_owned);
            let said = said.unwrap_or_else(|| String::from_utf8_lossy(&answer).trim().chars().take(1000).collect());
            return Err(format!("{method}: {said}"));
        }
        let parsed = parsed.map_err(|error| format!("{method}: plugin \"{}\" gave no JSON: {error}", self.name))?;
        match parsed["Err"].as_str() {
            None | Some("") => Ok(parsed),
            Some(said) => Err(format!("{method}: {said}")),
        }
    }
}
