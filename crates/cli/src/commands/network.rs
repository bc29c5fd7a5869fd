//! `docker network`.

use std::net::IpAddr;

use serde_json::{Map, Value as Json, json};
use wharf_template::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::container::ls::labels;
use crate::dry_run::{self, Prune};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::{text, texts};
use crate::options::{bandwidth, checks, env};
use crate::parse::Matches;
use crate::{natural, units};

pub(crate) static LIST: Command =
    Command::new("[OPTIONS]", "List networks", Arity::None, |app, matches| Box::pin(list(app, matches))).flags(&[
        Flag::filter("filter", "Provide filter values (e.g. \"driver=bridge\")").short('f'),
        Flag::text("format", TABLE_FORMAT),
        Flag::switch("no-trunc", "Do not truncate the output"),
        Flag::switch("quiet", "Only display network IDs").short('q'),
    ]);

pub(crate) static CREATE: Command =
    Command::new("[OPTIONS] NETWORK", "Create a network", Arity::Exactly(1), |app, matches| {
        Box::pin(create(app, matches))
    })
    .flags(&[
        Flag::switch("attachable", "Enable manual container attachment"),
        Flag::map("aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver"),
        Flag::text("config-from", "The network from which to copy the configuration"),
        Flag::switch("config-only", "Create a configuration only network"),
        Flag::text("driver", "Driver to manage the Network").short('d').default("bridge"),
        Flag::strings("gateway", "IPv4 or IPv6 Gateway for the master subnet"),
        Flag::switch("ingress", "Create swarm routing-mesh network"),
        Flag::switch("internal", "Restrict external access to the network"),
        Flag::strings("ip-range", "Allocate container ip from a sub-range"),
        Flag::text("ipam-driver", "IP Address Management Driver").default("default"),
        Flag::map("ipam-opt", "Set IPAM driver specific options"),
        Flag::switch("ipv4", "Enable or disable IPv4 address assignment").default("true"),
        Flag::switch("ipv6", "Enable or disable IPv6 address assignment"),
        Flag::list("label", "Set metadata on a network").check(checks::label),
        Flag::map("opt", "Set driver specific options").short('o'),
        Flag::text("scope", "Control the network's scope"),
        Flag::strings("subnet", "Subnet in CIDR format that represents a network segment"),
    ]);

pub(crate) static REMOVE: Command =
    Command::new("NETWORK [NETWORK...]", "Remove one or more networks", Arity::AtLeast(1), |app, matches| {
        Box::pin(remove(app, matches))
    })
    .flags(&[Flag::switch("force", "Do not error if the network does not exist").short('f')]);

pub(crate) static CONNECT: Command = Command::new(
    "[OPTIONS] NETWORK CONTAINER",
    "Connect a container to a network",
    Arity::Exactly(2),
    |app, matches| Box::pin(connect(app, matches)),
)
.flags(&[
    Flag::strings("alias", "Add network-scoped alias for the container"),
    Flag::one("bandwidth", "limits", bandwidth::check, bandwidth::HELP),
    Flag::strings("driver-opt", "driver options for the network"),
    Flag::int("gw-priority", "Highest gw-priority provides the default gateway. Accepts positive and negative values."),
    Flag::text("ip", "IPv4 address (e.g., \"172.30.100.104\")"),
    Flag::text("ip6", "IPv6 address (e.g., \"2001:db8::33\")"),
    Flag::list("link", "Add link to another container").check(checks::link),
    Flag::strings("link-local-ip", "Add a link-local address for the container"),
]);

pub(crate) static DISCONNECT: Command = Command::new(
    "[OPTIONS] NETWORK CONTAINER",
    "Disconnect a container from a network",
    Arity::Exactly(2),
    |app, matches| Box::pin(disconnect(app, matches)),
)
.flags(&[Flag::switch("force", "Force the container to disconnect from a network").short('f')]);

pub(crate) static PRUNE: Command =
    Command::new("[OPTIONS]", "Remove all unused networks", Arity::None, |app, matches| {
        Box::pin(prune_command(app, matches))
    })
    .flags(&[
        dry_run::FLAG,
        Flag::filter("filter", "Provide filter values (e.g. \"until=<timestamp>\")"),
        Flag::switch("force", "Do not prompt for confirmation").short('f'),
    ]);

const HEADERS: &Headers = &[
    ("ID", "NETWORK ID"),
    ("Name", "NAME"),
    ("Driver", "DRIVER"),
    ("Scope", "SCOPE"),
    ("IPv4", "IPV4"),
    ("IPv6", "IPV6"),
    ("Internal", "INTERNAL"),
    ("Labels", "LABELS"),
    ("CreatedAt", "CREATED AT"),
];

const RAW: &str = "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n";

async fn list(app: &App, matches: &Matches) -> Outcome<u8> {
    let (quiet, trunc) = (matches.on("quiet"), !matches.on("no-trunc"));
    let chosen = matches.some("format").or_else(|| app.config().text("networksFormat").filter(|_| !quiet));
    let source = match chosen.unwrap_or("table") {
        "table" if quiet => "{{.ID}}",
        "table" => "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}",
        "raw" if quiet => "network_id: {{.ID}}",
        "raw" => RAW,
        other => other,
    };
    let filters = Filters::of(matches.all("filter"));
    let request = app.client().await?.get("/networks").query_some("filters", filters.parameter());
    let mut networks: Vec<Json> = request.send().await?.json().await?;
    networks.sort_by(|a, b| natural::compare(text(&a["Name"]), text(&b["Name"])));
    let rows: Vec<Value> = networks.iter().map(|network| row(network, trunc)).collect();
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &row(&Json::Null, trunc))?)?;
    Ok(0)
}

fn row(network: &Json, trunc: bool) -> Value {
    let on = |key: &str| network[key].as_bool().unwrap_or(false).to_string();
    let id = text(&network["Id"]);
    Row::new("*network.networkContext")
        .field("ID", if trunc { units::short_id(id) } else { id })
        .field("Name", text(&network["Name"]))
        .field("Driver", text(&network["Driver"]))
        .field("Scope", text(&network["Scope"]))
        .field("IPv4", on("EnableIPv4"))
        .field("IPv6", on("EnableIPv6"))
        .field("Internal", on("Internal"))
        .field("Labels", labels(&network["Labels"]))
        .labels(&network["Labels"])
        .field("CreatedAt", units::go_time(text(&network["Created"])))
        .build()
}

async fn create(app: &App, matches: &Matches) -> Outcome<u8> {
    let config_from = match matches.some("config-from") {
        Some(name) => json!({"Network": name}),
        None => Json::Null,
    };
    let mut body = json!({
        "Name": matches.argument(0),
        "Driver": matches.text("driver"),
        "Scope": matches.text("scope"),
        "IPAM": {
            "Driver": matches.text("ipam-driver"),
            "Options": env::map(matches.all("ipam-opt")),
            "Config": pools(matches)?,
        },
        "Internal": matches.on("internal"),
        "Attachable": matches.on("attachable"),
        "Ingress": matches.on("ingress"),
        "ConfigOnly": matches.on("config-only"),
        "ConfigFrom": config_from,
        "Options": env::map(matches.all("opt")),
        "Labels": env::map(matches.all("label")),
    });
    for (flag, key) in [("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")] {
        if matches.changed(flag) {
            body[key] = json!(matches.on(flag));
        }
    }
    let client = app.client().await?;
    // Newer engines never make a second network of a name.
    if !client.at_least("1.44") {
        body["CheckDuplicate"] = json!(true);
    }
    let request = client.post("/networks/create").json(&body)?;
    let answer: Json = request.send().await?.json().await?;
    let warning = text(&answer["Warning"]);
    if !warning.is_empty() {
        app.complain(&format!("WARNING: {warning}"));
    }
    app.say(text(&answer["Id"]))?;
    Ok(0)
}

/// A subnet by its first address and the length of its prefix.
#[derive(Clone, Copy)]
struct Subnet {
    base: u128,
    prefix: u32,
    v4: bool,
}

impl Subnet {
    fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let (bits, v4) = bits(address.parse().ok()?);
        let prefix: u32 = prefix.parse().ok()?;
        let width = if v4 { 32 } else { 128 };
        if prefix > width {
            return None;
        }
        Some(Self { base: bits & mask(prefix, width), prefix, v4 })
    }

    fn contains(&self, address: &str) -> bool {
        let address = address.split('/').next().unwrap_or_default();
        let Ok(address) = address.parse() else { return false };
        let (bits, v4) = bits(address);
        v4 == self.v4 && bits & mask(self.prefix, if v4 { 32 } else { 128 }) == self.base
    }
}

fn bits(address: IpAddr) -> (u128, bool) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), true),
        IpAddr::V6(address) => (address.to_bits(), false),
    }
}

fn mask(prefix: u32, width: u32) -> u128 {
    let all = if width == 128 { u128::MAX } else { (1 << width) - 1 };
    all & !(if prefix == 0 { all } else { all >> prefix })
}

/// Sorts ranges, gateways and reserved addresses to their subnets.
fn pools(matches: &Matches) -> Outcome<Vec<Json>> {
    let subnets = matches.all("subnet");
    if subnets.len() < matches.all("ip-range").len() || subnets.len() < matches.all("gateway").len() {
        return Err("every ip-range or gateway must have a corresponding subnet".into());
    }
    let parsed: Vec<Option<Subnet>> = subnets.iter().map(|text| Subnet::parse(text)).collect();
    for (at, text) in subnets.iter().enumerate() {
        let overlaps = |other: usize| {
            parsed[other].is_some_and(|known| known.contains(text))
                || parsed[at].is_some_and(|new| new.contains(&subnets[other]))
        };
        if (0..at).any(overlaps) {
            return Err("multiple overlapping subnet configuration is not supported".into());
        }
    }
    let mut pools: Vec<Map<String, Json>> =
        subnets.iter().map(|text| Map::from_iter([("Subnet".to_owned(), json!(text))])).collect();
    let place = |address: &str| parsed.iter().position(|subnet| subnet.is_some_and(|s| s.contains(address)));
    for range in matches.all("ip-range") {
        let at = place(range).ok_or_else(|| format!("no matching subnet for range {range}"))?;
        if pools[at].contains_key("IPRange") {
            return Err(format!(
                "cannot configure multiple ranges ({range}, {}) on the same subnet ({})",
                text(&pools[at]["IPRange"]),
                subnets[at]
            )
            .into());
        }
        pools[at].insert("IPRange".to_owned(), json!(range));
    }
    for gateway in matches.all("gateway") {
        let at = place(gateway).ok_or_else(|| format!("no matching subnet for gateway {gateway}"))?;
        if pools[at].contains_key("Gateway") {
            return Err(format!(
                "cannot configure multiple gateways ({gateway}, {}) for the same subnet ({})",
                text(&pools[at]["Gateway"]),
                subnets[at]
            )
            .into());
        }
        pools[at].insert("Gateway".to_owned(), json!(gateway));
    }
    for (name, address) in env::map(matches.all("aux-address")) {
        let at =
            place(text(&address)).ok_or_else(|| format!("no matching subnet for aux-address {}", text(&address)))?;
        let reserved = pools[at].entry("AuxiliaryAddresses").or_insert_with(|| json!({}));
        reserved[name] = address;
    }
    Ok(pools.into_iter().map(Json::Object).collect())
}

async fn remove(app: &App, matches: &Matches) -> Outcome<u8> {
    let client = app.client().await?;
    let mut failed = false;
    for name in &matches.arguments {
        match client.delete(&format!("/networks/{name}")).send().await {
            Ok(_) => app.say(name)?,
            Err(error) if matches.on("force") && error.is_not_found() => {}
            Err(error) => {
                app.complain(&error.to_string());
                failed = true;
            }
        }
    }
    if failed { Err(Failure::code(1)) } else { Ok(0) }
}

async fn connect(app: &App, matches: &Matches) -> Outcome<u8> {
    let mut options = Map::new();
    for text in matches.all("driver-opt") {
        let (key, value) = text.split_once('=').ok_or("invalid key/value pair format in driver options")?;
        options.insert(key.trim().to_owned(), json!(value.trim()));
    }
    if let Some(text) = matches.some("bandwidth") {
        app.needs_own_engine("--bandwidth").await?;
        options.extend(bandwidth::options(text)?.into_iter().map(|(key, value)| (key, json!(value))));
    }
    let mut ipam = Map::new();
    for (flag, key) in [("ip", "IPv4Address"), ("ip6", "IPv6Address")] {
        if let Some(address) = matches.some(flag) {
            ipam.insert(key.to_owned(), json!(address));
        }
    }
    if matches.changed("link-local-ip") {
        ipam.insert("LinkLocalIPs".to_owned(), json!(matches.all("link-local-ip")));
    }
    let links = matches.all("link");
    let body = json!({
        "Container": matches.argument(1),
        "EndpointConfig": {
            "IPAMConfig": ipam,
            "Links": if links.is_empty() { Json::Null } else { json!(links) },
            "Aliases": matches.all("alias"),
            "MacAddress": "",
            "DriverOpts": options,
            "GwPriority": matches.int("gw-priority"),
            "NetworkID": "",
            "EndpointID": "",
            "Gateway": "",
            "IPAddress": "",
            "IPPrefixLen": 0,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
            "DNSNames": null,
        },
    });
    app.client().await?.post(&format!("/networks/{}/connect", matches.argument(0))).json(&body)?.send().await?;
    Ok(0)
}

async fn disconnect(app: &App, matches: &Matches) -> Outcome<u8> {
    let body = json!({"Container": matches.argument(1), "Force": matches.on("force")});
    app.client().await?.post(&format!("/networks/{}/disconnect", matches.argument(0))).json(&body)?.send().await?;
    Ok(0)
}

async fn prune_command(app: &App, matches: &Matches) -> Outcome<u8> {
    let (mode, warning) =
        (Prune::of(matches), "WARNING! This will remove all custom networks not used by at least one container.");
    mode.confirm(app, warning, matches.on("force")).await?;
    let output = prune(app, &Filters::of(matches.all("filter")), mode).await?;
    if !output.is_empty() {
        app.say(&output)?;
    }
    Ok(0)
}

/// Removes networks that nothing uses; gives the lines to show.
pub(crate) async fn prune(app: &App, filters: &Filters, mode: Prune) -> Outcome<String> {
    let filters = app.prune_filters(filters);
    let request = app.client().await?.post("/networks/prune").query_some("filters", filters.parameter());
    let answer: Json = mode.ask(request).send().await?.json().await?;
    Ok(mode.list("Networks", &texts(&answer["NetworksDeleted"])))
}
