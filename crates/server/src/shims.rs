//! What requests of older clients mean.

use serde_json::{Map, Value, json};

use crate::http::ApiError;
use crate::objects::wrong_type;

/// Brings the body of `POST /containers/create` to the newest version.
///
/// Answers with warnings for who sends it.
///
/// # Errors
/// 400 when it names two addresses for one endpoint, or asks for a mount that its version does not know.
pub(crate) fn create(request: &mut Value, version: (u32, u32)) -> Result<Vec<String>, ApiError> {
    let mut warnings = Vec::new();
    let Some(request) = request.as_object_mut() else { return Ok(warnings) };
    endpoints(request, version)?;
    if version < (1, 52) {
        warnings.extend(container_wide_address(request, version)?);
    } else {
        // One for each endpoint since then.
        request.remove("MacAddress");
    }
    if version < (1, 44)
        && let Some(check) = request.get_mut("Healthcheck").and_then(Value::as_object_mut)
    {
        check.remove("StartInterval");
    }
    let endpoints = request.get("NetworkingConfig").map(|all| &all["EndpointsConfig"]).and_then(Value::as_object);
    if let Some((name, _)) = endpoints.into_iter().flatten().find(|(_, settings)| settings.is_null()) {
        return Err(ApiError::bad(format!("invalid config for network {name}: EndpointsConfig is nil")));
    }
    let host = request.entry("HostConfig").or_insert_with(|| json!({}));
    let Some(host) = host.as_object_mut() else { return Ok(warnings) };
    for mount in host.get_mut("Mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        old_mount(mount, version)?;
    }
    for (since, key) in [((1, 25), "AutoRemove"), ((1, 42), "ConsoleSize"), ((1, 43), "Annotations")] {
        if version < since {
            host.remove(key);
        }
    }
    // The defaults of then.
    for (since, key, value) in [((1, 41), "CgroupnsMode", "host"), ((1, 40), "IpcMode", "shareable")] {
        let said = host.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        if version < since && !said {
            host.insert(key.into(), value.into());
        }
    }
    Ok(warnings)
}

/// What a mount's fields mean to a client that may not know all of them: what would be another mount without a field is refused.
fn old_mount(mount: &mut Value, version: (u32, u32)) -> Result<(), ApiError> {
    if version < (1, 48) && mount["Type"] == "image" {
        return Err(ApiError::bad("Mount type \"Image\" needs API v1.48 or newer"));
    }
    let is_set = |value: &Value| !matches!(value, Value::Null | Value::Bool(false)) && value != "";
    if version < (1, 45) && is_set(&mount["VolumeOptions"]["Subpath"]) {
        return Err(ApiError::bad("VolumeOptions.Subpath needs API v1.45 or newer"));
    }
    if version < (1, 44) && is_set(&mount["BindOptions"]["ReadOnlyForceRecursive"]) {
        return Err(ApiError::bad("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer"));
    }
    let kind = mount["Type"].as_str().unwrap_or_default().to_owned();
    let Some(mount) = mount.as_object_mut() else { return Ok(()) };
    if version < (1, 42) {
        // What goes with another type was not looked at.
        for (own, key) in [("volume", "VolumeOptions"), ("tmpfs", "TmpfsOptions")] {
            if kind != own {
                mount.remove(key);
            }
        }
    }
    if let Some(options) = mount.get_mut("BindOptions").and_then(Value::as_object_mut) {
        for (since, key) in [((1, 40), "NonRecursive"), ((1, 42), "CreateMountpoint")] {
            if version < since {
                options.remove(key);
            }
        }
    }
    Ok(())
}

/// What was never taken of endpoints.
fn endpoints(request: &Map<String, Value>, version: (u32, u32)) -> Result<(), ApiError> {
    let asked = request.get("NetworkingConfig").and_then(|config| config["EndpointsConfig"].as_object());
    let Some(asked) = asked else { return Ok(()) };
    if let Some((name, _)) = asked.iter().find(|(_, settings)| settings.is_null()) {
        return Err(ApiError::bad(format!("invalid config for network {name}: EndpointsConfig is nil")));
    }
    if version < (1, 44) && asked.len() > 1 {
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        return Err(ApiError::bad(format!(
            "Container cannot be created with multiple network endpoints: {}",
            names.join(", ")
        )));
    }
    Ok(())
}

const OLD_ADDRESS: &str =
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.";

/// One address for the whole container, from before API 1.44: that of the endpoint in its main network. Since then there
/// is a warning (moby, `handleMACAddressBC`).
fn container_wide_address(request: &mut Map<String, Value>, version: (u32, u32)) -> Result<Option<String>, ApiError> {
    let mac = match request.remove("MacAddress") {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(mac)) if mac.is_empty() => return Ok(None),
        Some(Value::String(mac)) => mac,
        Some(other) => {
            return Err(ApiError::bad(format!("invalid JSON: {}", wrong_type(&other, ".MacAddress", "string"))));
        }
    };
    let warning = (version >= (1, 44)).then(|| OLD_ADDRESS.to_owned());
    let mode = request.get("HostConfig").and_then(|host| host["NetworkMode"].as_str()).unwrap_or_default();
    if mode == "host" || mode == "none" || mode.starts_with("container:") {
        return match warning {
            Some(_) => Ok(warning),
            None => Err(ApiError::bad("conflicting options: mac-address and the network mode")),
        };
    }
    let main = if mode.is_empty() { "default".to_owned() } else { mode.to_owned() };
    let mut at = request;
    for key in ["NetworkingConfig", "EndpointsConfig", &main] {
        at = match at.entry(key).or_insert_with(|| json!({})).as_object_mut() {
            Some(inner) => inner,
            None => return Err(ApiError::bad(format!("invalid JSON: {key} is no object"))),
        };
    }
    match at.get("MacAddress").and_then(Value::as_str).filter(|own| !own.is_empty()) {
        Some(own) if own != mac => Err(ApiError::bad(
            "the container-wide MAC address must match the endpoint-specific MAC address for \
             the main network, or be left empty",
        )),
        Some(_) => Ok(warning),
        None => {
            at.insert("MacAddress".into(), mac.into());
            Ok(warning)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(mut request: Value, version: (u32, u32)) -> Value {
        create(&mut request, version).unwrap();
        request
    }

    #[test]
    fn a_container_s_address_is_its_main_endpoint_s() {
        let mac = "02:42:ac:11:00:09";
        let made = created(json!({ "MacAddress": mac }), (1, 43));
        assert_eq!(made["NetworkingConfig"]["EndpointsConfig"]["default"]["MacAddress"], mac);
        let own = json!({
            "MacAddress": mac, "HostConfig": { "NetworkMode": "net" },
            "NetworkingConfig": { "EndpointsConfig": { "net": { "Aliases": ["a"] } } },
        });
        let endpoint = created(own, (1, 51))["NetworkingConfig"]["EndpointsConfig"]["net"].clone();
        assert_eq!(endpoint, json!({ "Aliases": ["a"], "MacAddress": mac }));
        let mut other = json!({
            "MacAddress": mac, "HostConfig": { "NetworkMode": "net" },
            "NetworkingConfig": { "EndpointsConfig": { "net": { "MacAddress": "02:42:ac:11:00:08" } } },
        });
        assert!(create(&mut other, (1, 51)).is_err());
        assert!(create(&mut json!({ "MacAddress": mac, "HostConfig": { "NetworkMode": "host" } }), (1, 43)).is_err());
        assert!(create(&mut json!({ "MacAddress": mac, "NetworkingConfig": [] }), (1, 43)).is_err());
        let wrong = create(&mut json!({ "MacAddress": 1 }), (1, 51)).unwrap_err();
        assert!(wrong.message.contains("cannot unmarshal number into Go struct field .MacAddress of type string"));
        let mut host = json!({ "MacAddress": mac, "HostConfig": { "NetworkMode": "host" } });
        assert_eq!(create(&mut host, (1, 44)).unwrap(), [OLD_ADDRESS]);
        assert_eq!(host, json!({ "HostConfig": { "NetworkMode": "host" } }));
        assert!(create(&mut json!({ "MacAddress": mac }), (1, 43)).unwrap().is_empty());
    }

    #[test]
    fn old_defaults_are_kept() {
        let host =
            |version, mode: &str| created(json!({ "HostConfig": { "IpcMode": mode } }), version)["HostConfig"].clone();
        assert_eq!(host((1, 39), ""), json!({ "IpcMode": "shareable", "CgroupnsMode": "host" }));
        assert_eq!(host((1, 39), "private")["IpcMode"], "private");
        assert_eq!(host((1, 41), ""), json!({ "IpcMode": "" }));
        assert_eq!(created(json!({}), (1, 51)), json!({ "HostConfig": {} }));
    }

    #[test]
    fn old_clients_name_one_network() {
        let request = || json!({ "NetworkingConfig": { "EndpointsConfig": { "one": {}, "two": {} } } });
        let refused = create(&mut request(), (1, 43)).unwrap_err();
        assert!(refused.message.contains("Container cannot be created with multiple network endpoints: one, two"));
        create(&mut request(), (1, 44)).unwrap();
    }

    #[test]
    fn what_was_not_known_then_is_not_meant() {
        let request = json!({
            "Healthcheck": { "StartInterval": 5, "Interval": 6 },
            "HostConfig": {
                "Annotations": { "a": "b" },
                "AutoRemove": true,
                "ConsoleSize": [1, 2],
                "Mounts": [{
                    "Type": "bind",
                    "BindOptions": { "CreateMountpoint": true, "NonRecursive": true },
                    "TmpfsOptions": {},
                }],
            },
        });
        let old = created(request.clone(), (1, 43));
        assert_eq!(old["Healthcheck"], json!({ "Interval": 6 }));
        assert_eq!(old["HostConfig"], request["HostConfig"]);
        let old = created(request.clone(), (1, 41));
        let bind = json!({ "Type": "bind", "BindOptions": { "NonRecursive": true } });
        assert_eq!(old["HostConfig"], json!({ "AutoRemove": true, "Mounts": [bind] }));
        let old = created(request.clone(), (1, 24));
        assert_eq!(old["HostConfig"]["Mounts"][0]["BindOptions"], json!({}));
        assert_eq!(old["HostConfig"]["AutoRemove"], json!(null));
        assert_eq!(created(request.clone(), (1, 51)), request);
    }

    #[test]
    fn what_would_be_another_mount_is_refused() {
        let mut part = json!({ "HostConfig": { "Mounts": [{ "VolumeOptions": { "Subpath": "a" } }] } });
        let refused = create(&mut part, (1, 44)).unwrap_err();
        assert_eq!(refused.message, "VolumeOptions.Subpath needs API v1.45 or newer");
        create(&mut part, (1, 45)).unwrap();
        let mut none = json!({ "HostConfig": { "Mounts": [{ "VolumeOptions": { "Subpath": "" } }] } });
        create(&mut none, (1, 24)).unwrap();
    }

    #[test]
    fn a_mount_of_an_image_needs_a_version_that_knows_it() {
        let mut request = json!({ "HostConfig": { "Mounts": [{ "Type": "bind" }, { "Type": "image" }] } });
        assert!(create(&mut request, (1, 47)).is_err());
        assert!(create(&mut request, (1, 48)).is_ok());
    }
}
