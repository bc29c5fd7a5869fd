//! Networks.

use std::collections::BTreeMap;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_engine::EngineError;
use wharf_engine::spec::EndpointSettings;
use wharf_network::{CreateNetwork, IpamRequest, NetworkError, NetworkRecord, PoolRequest};

use super::{Call, Result, blocking, dry_run, prune_stream, pruned_event};
use crate::filters::Filters;
use crate::http::{ApiError, empty, json_answer, no_content, ok, read_json};
use crate::render::network::{network as render, status};

pub(super) fn list(call: &Call) -> Result {
    let filters = Filters::of(&call.query, &["driver", "type", "id", "label", "name", "scope", "dangling"])?;
    let engine = &call.api.engine;
    let dangling = is_dangling(&filters)?;
    let (ids, names) = (filters.patterns("id"), filters.patterns("name"));
    if let Some(bad) = filters.get("type").into_iter().flatten().find(|t| !["builtin", "custom"].contains(&t.as_str()))
    {
        return Err(ApiError::bad(format!("invalid filter: 'type'='{bad}'")));
    }
    let fits = |n: &NetworkRecord| {
        filters.any("driver", |driver| n.driver == driver)
            && ids.fit(&n.id)
            && names.fit(&n.name)
            && filters.any("scope", |scope| scope == "local")
            && filters.any("type", |kind| (kind == "builtin") == n.predefined)
            && dangling.is_none_or(|wanted| wanted == (!n.predefined && engine.network_users(&n.name).is_empty()))
            && filters.labels(Some(&n.labels))
    };
    // Older clients have who is on each in the list, too.
    let shown = |network: &NetworkRecord| {
        let users = (call.version < (1, 28)).then(|| engine.network_users(&network.name));
        render(network, users.as_deref())
    };
    let all: Vec<Value> = engine.networks().list().iter().filter(|n| fits(n)).map(shown).collect();
    Ok(ok(&all))
}

/// What `dangling` asks for, with Docker's words for what it cannot be.
fn is_dangling(filters: &Filters) -> std::result::Result<Option<bool>, ApiError> {
    match filters.get("dangling").unwrap_or_default() {
        [] => Ok(None),
        [one] if matches!(one.as_str(), "1" | "true") => Ok(Some(true)),
        [one] if matches!(one.as_str(), "0" | "false") => Ok(Some(false)),
        [_] => Err(ApiError::bad(
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        )),
        _ => Err(ApiError::bad("got more than one value for filter key \"dangling\"")),
    }
}

pub(super) fn inspect(call: &Call, id: &str) -> Result {
    let engine = &call.api.engine;
    if let Some(text) = call.query.get("verbose").filter(|text| !is_bool(text)) {
        let why = format!("strconv.ParseBool: parsing {text:?}: invalid syntax");
        return Err(ApiError::bad(format!("invalid value for verbose: {text}: {why}")));
    }
    if call.query.get("scope").is_some_and(|scope| scope != "local") {
        return Err(ApiError::new(StatusCode::NOT_FOUND, format!("network {id} not found")));
    }
    let network = engine.networks().resolve(id).map_err(EngineError::from)?;
    let users = engine.network_users(&network.name);
    let mut answer = render(&network, Some(&users));
    if call.version >= (1, 52) {
        let endpoints = engine.networks().endpoints(&network.id);
        answer["Status"] =
            status(&network, &endpoints.iter().flat_map(|endpoint| endpoint.addresses()).collect::<Vec<_>>());
    }
    Ok(ok(&answer))
}

/// As Go's `strconv.ParseBool`; nothing is false there, too.
fn is_bool(text: &str) -> bool {
    let known = ["", "1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"];
    known.contains(&text)
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Create {
    name: String,
    driver: String,
    internal: bool,
    attachable: bool,
    ingress: bool,
    scope: String,
    config_only: bool,
    config_from: ConfigFrom,
    #[serde(rename = "EnableIPv4")]
    enable_ipv4: Option<bool>,
    #[serde(rename = "EnableIPv6")]
    enable_ipv6: Option<bool>,
    #[serde(rename = "IPAM")]
    ipam: Ipam,
    options: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ConfigFrom {
    network: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Ipam {
    driver: String,
    options: BTreeMap<String, String>,
    config: Vec<Pool>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Pool {
    subnet: String,
    #[serde(rename = "IPRange")]
    ip_range: String,
    gateway: String,
    #[serde(rename = "AuxiliaryAddresses")]
    aux_addresses: BTreeMap<String, String>,
}

pub(super) async fn create(mut call: Call) -> Result {
    let create: Create = read_json(&mut call.request, "network.CreateRequest").await?;
    let pool = |p: Pool| PoolRequest {
        subnet: p.subnet,
        ip_range: p.ip_range,
        gateway: p.gateway,
        aux_addresses: p.aux_addresses,
    };
    let request = CreateNetwork {
        name: create.name,
        driver: create.driver,
        internal: create.internal,
        attachable: create.attachable,
        labels: create.labels,
        options: create.options,
        ipam: IpamRequest {
            driver: create.ipam.driver,
            options: create.ipam.options,
            config: create.ipam.config.into_iter().map(pool).collect(),
        },
        ipv4: create.enable_ipv4,
        ipv6: create.enable_ipv6,
        config_only: create.config_only,
        config_from: create.config_from.network,
        ingress: create.ingress,
        scope: create.scope,
    };
    let engine = call.api.engine.clone();
    let made = blocking(move || Ok(engine.networks().create(&request).map_err(EngineError::from)?)).await?;
    call.api.engine.tell_of("network", "create", &made.id, &[("name", &made.name), ("type", &made.driver)]);
    Ok(json_answer(StatusCode::CREATED, &json!({ "Id": made.id, "Warning": "" })))
}

pub(super) async fn remove(call: Call, id: &str) -> Result {
    call.api.engine.remove_network(id).await?;
    Ok(no_content())
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Connect {
    container: String,
    endpoint_config: EndpointSettings,
    force: bool,
}

pub(super) async fn connect(mut call: Call, id: &str) -> Result {
    let request: Connect = read_json(&mut call.request, "network.ConnectRequest").await?;
    call.api.engine.connect_network(id, &request.container, request.endpoint_config).await?;
    Ok(empty(StatusCode::OK))
}

pub(super) async fn disconnect(mut call: Call, id: &str) -> Result {
    let request: Connect = read_json(&mut call.request, "network.DisconnectRequest").await?;
    call.api.engine.disconnect_network(id, &request.container, request.force).await?;
    Ok(empty(StatusCode::OK))
}

pub(super) async fn prune(call: Call) -> Result {
    let filters = Filters::of(&call.query, &["until", "label", "label!"])?;
    let (until, gone) = (filters.until()?, dry_run::gone(&call, &filters)?);
    let engine = call.api.engine.clone();
    let unwanted = move |n: &NetworkRecord| {
        let created: Option<jiff::Timestamp> = n.created.parse().ok();
        // A container that is stopped will want its network again.
        let named = engine.list().iter().any(|c| c.networks.contains_key(&n.name) && !gone.contains(&c.id));
        // A configuration is there for networks to come, as with Docker.
        !n.predefined
            && n.configuration.is_none()
            && !named
            && until.is_none_or(|until| created.is_some_and(|created| created < until))
            && filters.labels(Some(&n.labels))
    };
    let engine = call.api.engine.clone();
    if dry_run::is_asked(&call) {
        let idle = move |n: &NetworkRecord| engine.networks().endpoints(&n.id).is_empty() && unwanted(n);
        let all = call.api.engine.networks().list();
        let names: Vec<String> = all.into_iter().filter(idle).map(|network| network.name).collect();
        return Ok(ok(&json!({ "DryRun": true, "NetworksDeleted": names })));
    }
    prune_stream::answer(&call, |told| async move {
        let (own, told) = (engine.clone(), told);
        let gone = blocking(move || {
            // Each is asked about when it is its turn.
            let unwanted = |network: &NetworkRecord| unwanted(network);
            let mut gone = Vec::new();
            for network in own.networks().list() {
                if !unwanted(&network) {
                    continue;
                }
                match own.networks().remove(&network.id) {
                    Ok(network) => {
                        told.deleted(&network.name);
                        gone.push(network.name);
                    }
                    // In use, or removed by somebody else.
                    Err(NetworkError::InUse { .. } | NetworkError::NotFound(_)) => {}
                    Err(error) => return Err(EngineError::from(error).into()),
                }
            }
            Ok(gone)
        })
        .await?;
        pruned_event(&engine, "network", 0);
        Ok(json!({ "NetworksDeleted": if gone.is_empty() { Value::Null } else { json!(gone) } }))
    })
    .await
}
