//! `docker ps`.

use std::fmt;
use std::sync::Arc;

use serde::Deserializer as _;
use serde::de::{SeqAccess, Visitor};
use serde_json::Value as Json;
use wharf_reference::Reference;
use wharf_template::{Struct, Type, Value};

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT, Wanted};
use crate::json::{array, int, text, texts};
use crate::parse::Matches;
use crate::{ports, units};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "List containers", Arity::None, |app, matches| Box::pin(run(app, matches))).flags(FLAGS);

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Show all containers (default shows just running)").short('a'),
    Flag::filter("filter", "Filter output based on conditions provided").short('f'),
    Flag::text("format", TABLE_FORMAT),
    Flag::int("last", "Show n last created containers (includes all states)").short('n').default("-1"),
    Flag::switch("latest", "Show the latest created container (includes all states)").short('l'),
    Flag::switch("no-trunc", "Don't truncate output"),
    Flag::switch("quiet", "Only display container IDs").short('q'),
    Flag::switch("size", "Display total file sizes").short('s'),
];

pub(crate) const HEADERS: &Headers = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

const TABLE: &str = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}";
const RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\n\
    state: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\n\
    ports: {{- pad .Ports 1 0}}\n";

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (quiet, trunc) = (matches.on("quiet"), !matches.on("no-trunc"));
    let mut size = matches.on("size");
    let chosen = matches.some("format").or_else(|| app.config().text("psFormat").filter(|_| !quiet));
    let source = match chosen.unwrap_or("table") {
        "raw" if quiet => "container_id: {{.ID}}".to_owned(),
        _ if quiet => "{{.ID}}".to_owned(),
        "table" if size => format!("{TABLE}\t{{{{.Size}}}}"),
        "table" => TABLE.to_owned(),
        "raw" if size => format!("{RAW}size: {{{{.Size}}}}\n"),
        "raw" => RAW.to_owned(),
        other => other.to_owned(),
    };
    if quiet && matches.changed("format") {
        app.complain("WARNING: Ignoring custom format, because both --format and --quiet are set.");
    }
    let empty = row(&Json::Null, trunc, Wanted::ALL);
    if !quiet && chosen.is_some_and(|format| !matches!(format, "table" | "json")) {
        // Docker tries the template before it asks the engine, and says so in other words.
        let template =
            wharf_template::Template::parse(&source).map_err(|error| format!("failed to parse template: {error}"))?;
        template.execute(&empty).map_err(|error| format!("failed to execute template: {error}"))?;
    }
    let format = Format::parse(&source)?;
    // The short word `json` is no template that asks for the size, which is dear.
    size = size || (source != "json" && format.mentions("Size"));
    let last = if matches.on("latest") { 1 } else { matches.int("last") };
    let client = app.client().await?;
    let bytes = client
        .get("/containers/json")
        .query_if(matches.on("all"), "all")
        .query_if(size, "size")
        .query_some("limit", (last > 0).then_some(last))
        .query_some("filters", Filters::of(matches.all("filter")).parameter())
        .send()
        .await?
        .bytes()
        .await?;
    let (wanted, mut body) = (format.wanted(), String::new());
    each(&bytes, |container: Json| format.line(&row(&container, trunc, wanted), &mut body))?;
    app.print(&format.finish(HEADERS, body, &empty)?)?;
    Ok(0)
}

/// The columns of a container, those that are not wanted empty.
pub(crate) fn row(container: &Json, trunc: bool, wanted: Wanted<'_>) -> Value {
    let id = text(&container["Id"]);
    let created = int(&container["Created"]);
    let mounts = array(&container["Mounts"]);
    let command = || {
        let command = text(&container["Command"]);
        crate::json::quote(&if trunc { units::ellipsis(command, 20) } else { command.to_owned() })
    };
    let local = || mounts.iter().filter(|mount| text(&mount["Driver"]) == "local").count().to_string();
    let networks = || {
        let networks = container["NetworkSettings"]["Networks"].as_object();
        networks.into_iter().flatten().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
    };
    let row = Row::new("*formatter.ContainerContext")
        .field("ID", if trunc { units::short_id(id) } else { id })
        .field_if(wanted, "Names", || names(container, trunc))
        .field_if(wanted, "Image", || image(container, trunc))
        .field_if(wanted, "Command", command)
        .field_if(wanted, "CreatedAt", || units::local_time(created))
        .field_if(wanted, "RunningFor", || units::ago(created))
        .field_if(wanted, "Ports", || ports::displayable(array(&container["Ports"])))
        .field("State", text(&container["State"]))
        .field("Status", text(&container["Status"]))
        .field_if(wanted, "Size", || size(container))
        .field_if(wanted, "Labels", || labels(&container["Labels"]))
        .labels_if(wanted, &container["Labels"])
        .field_if(wanted, "Mounts", || {
            mounts.iter().map(|mount| mount_name(mount, trunc)).collect::<Vec<_>>().join(",")
        })
        .field_if(wanted, "LocalVolumes", local)
        .field_if(wanted, "Networks", networks)
        .field_if(wanted, "Platform", || platform(&container["ImageManifestDescriptor"]["platform"]));
    row.build()
}

/// Shows the values of a JSON array one by one: of many there is one at a time.
fn each(text: &[u8], show: impl FnMut(Json) -> Outcome<()>) -> Outcome<()> {
    struct Values<F>(F, Outcome<()>);
    impl<'de, F: FnMut(Json) -> Outcome<()>> Visitor<'de> for &mut Values<F> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a list")
        }

        fn visit_unit<E>(self) -> Result<(), E> {
            Ok(())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
            while let Some(value) = all.next_element()? {
                if self.1.is_ok() {
                    self.1 = (self.0)(value);
                }
            }
            Ok(())
        }
    }
    let mut values = Values(show, Ok(()));
    serde_json::Deserializer::from_slice(text)
        .deserialize_any(&mut values)
        .map_err(|error| format!("cannot read the engine's answer: {error}"))?;
    values.1
}

/// Printed as its name, and `json` has its parts.
fn platform(json: &Json) -> Value {
    if !json.is_object() {
        return Value::NilPointer(Type::Any);
    }
    let parts = [("OS", "os"), ("Architecture", "architecture"), ("OSVersion", "os.version"), ("Variant", "variant")];
    let parts = parts.map(|(name, key)| (name.to_owned(), Value::text(text(&json[key]))));
    let name: Vec<&str> = ["os", "architecture", "variant"].map(|key| text(&json[key])).to_vec();
    let name = name.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    Value::Struct(Arc::new(Struct {
        name: "formatter.Platform".to_owned(),
        fields: parts.into(),
        json: Some(json.clone()),
        text: Some(name),
        ..Struct::default()
    }))
}

/// `key=value,…`, in the order of the keys.
pub(crate) fn labels(labels: &Json) -> String {
    let mut pairs: Vec<String> =
        labels.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
    pairs.sort();
    pairs.join(",")
}

fn names(container: &Json, trunc: bool) -> String {
    let names: Vec<&str> =
        texts(&container["Names"]).into_iter().map(|name| name.strip_prefix('/').unwrap_or(name)).collect();
    // Names with more slashes are links.
    match names.iter().find(|name| !name.contains('/')) {
        Some(own) if trunc => (*own).to_owned(),
        _ => names.join(","),
    }
}

fn image(container: &Json, trunc: bool) -> String {
    let (image, id) = (text(&container["Image"]), text(&container["ImageID"]));
    if image.is_empty() {
        return "<no image>".to_owned();
    }
    if !trunc {
        return image.to_owned();
    }
    let short = units::short_id(id);
    if short == units::short_id(image) {
        return short.to_owned();
    }
    match Reference::parse(image) {
        Ok(reference) => match reference.tag() {
            Some(tag) => format!("{}:{tag}", reference.familiar_name()),
            None => reference.familiar_name(),
        },
        Err(_) => image.to_owned(),
    }
}

fn size(container: &Json) -> String {
    let own = units::human_size_with(int(&container["SizeRw"]) as f64, 3);
    match int(&container["SizeRootFs"]) {
        0 => own,
        whole => format!("{own} (virtual {})", units::human_size_with(whole as f64, 3)),
    }
}

fn mount_name(mount: &Json, trunc: bool) -> String {
    let name = match text(&mount["Name"]) {
        "" => text(&mount["Source"]),
        name => name,
    };
    if trunc { units::ellipsis(name, 15) } else { name.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_platform_is_printed_by_its_name() {
        let shown = |container: Json| {
            let format = Format::parse("{{.Platform}} {{json .Platform}}").unwrap();
            format.render(HEADERS, &[row(&container, true, Wanted::ALL)], &row(&Json::Null, true, Wanted::ALL)).unwrap()
        };
        let platform = json!({ "os": "linux", "architecture": "arm64", "variant": "v8" });
        let container = json!({ "ImageManifestDescriptor": { "platform": platform } });
        assert_eq!(shown(container), format!("linux/arm64/v8 {platform}\n"));
        assert_eq!(shown(json!({})), "<nil> null\n");
    }
}
