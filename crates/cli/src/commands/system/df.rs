//! `docker system df`.

use serde_json::Value as Json;
use wharf_reference::Reference;
use wharf_template::{Template, Value};

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::{container, image, volume};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT, Wanted};
use crate::json::{array, int, text, texts};
use crate::parse::Matches;
use crate::units;

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "Show docker disk usage", Arity::None, |app, matches| Box::pin(run(app, matches))).flags(
        &[
            Flag::switch("exact", "Wait until all that containers write to has been measured"),
            Flag::text("format", TABLE_FORMAT),
            Flag::switch("owners", "Show every byte of the data root by what it belongs to"),
            Flag::switch("verbose", "Show detailed information on space usage").short('v'),
        ],
    );

pub(crate) static BUILDER: Command =
    Command::new("[OPTIONS]", "Show what the build cache takes", Arity::None, |app, matches| {
        Box::pin(builder(app, matches))
    })
    .flags(&[Flag::text("format", TABLE_FORMAT), Flag::switch("verbose", "Show whole IDs").short('v')]);

const HEADERS: &Headers = &[
    ("Type", "TYPE"),
    ("TotalCount", "TOTAL"),
    ("Active", "ACTIVE"),
    ("Size", "SIZE"),
    ("Reclaimable", "RECLAIMABLE"),
];

const CACHE_HEADERS: &Headers = &[
    ("ID", "CACHE ID"),
    ("Parent", "PARENT"),
    ("CacheType", "CACHE TYPE"),
    ("Size", "SIZE"),
    ("CreatedSince", "CREATED"),
    ("LastUsedSince", "LAST USED"),
    ("UsageCount", "USAGE"),
    ("InUse", "IN USE"),
    ("Shared", "SHARED"),
    ("Description", "DESCRIPTION"),
];

const RAW: &str = "type: {{.Type}}\ntotal: {{.TotalCount}}\nactive: {{.Active}}\nsize: {{.Size}}\n\
    reclaimable: {{.Reclaimable}}\n";

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let request = app.client().await?.get("/system/df").query_if(matches.on("exact"), "exact");
    let usage: Json = request.send().await?.json().await?;
    if matches.on("owners") {
        return owners(app, &usage["DataRoot"], matches.some("format").unwrap_or("table"));
    }
    let format = matches.some("format").unwrap_or("table");
    if matches.on("verbose") {
        return verbose(app, &usage, format);
    }
    let source = match format {
        "table" => "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}",
        "raw" => RAW,
        other => other,
    };
    let rows = [images(&usage), containers(&usage), volumes(&usage), cache(&usage)];
    app.print(&Format::parse(source)?.render(HEADERS, &rows, &rows[0])?)?;
    Ok(0)
}

/// One kind of thing: how many, how many of them in use, their bytes, and the bytes that could be had back.
struct Usage {
    /// Go's name of its type.
    name: &'static str,
    kind: &'static str,
    count: usize,
    active: usize,
    size: i64,
    reclaimable: i64,
    percent: bool,
}

impl Usage {
    fn row(&self) -> Value {
        let free = units::human_size(self.reclaimable as f64);
        let reclaimable = match self.size {
            size if size > 0 && self.percent => format!("{free} ({}%)", self.reclaimable * 100 / size),
            _ => free,
        };
        Row::new(self.name)
            .field("Type", self.kind)
            .field("TotalCount", self.count.to_string())
            .field("Active", self.active.to_string())
            .field("Size", units::human_size(self.size as f64))
            .field("Reclaimable", reclaimable)
            .build()
    }
}

fn images(usage: &Json) -> Value {
    let images = array(&usage["Images"]);
    let size = int(&usage["LayersSize"]);
    let active: Vec<_> = images.iter().filter(|image| int(&image["Containers"]) > 0).collect();
    // What the images in use need stays; what they share is counted once, with all the rest.
    let used: i64 = active
        .iter()
        .filter(|image| int(&image["Size"]) != -1 && int(&image["SharedSize"]) != -1)
        .map(|image| int(&image["Size"]) - int(&image["SharedSize"]))
        .sum();
    Usage {
        name: "*formatter.diskUsageImagesContext",
        kind: "Images",
        count: images.len(),
        active: active.len(),
        size,
        reclaimable: size - used,
        percent: true,
    }
    .row()
}

fn containers(usage: &Json) -> Value {
    let containers = array(&usage["Containers"]);
    let active = |container: &&Json| matches!(text(&container["State"]), "running" | "paused" | "restarting");
    let size = |list: &mut dyn Iterator<Item = &Json>| list.map(|container| int(&container["SizeRw"])).sum::<i64>();
    Usage {
        name: "*formatter.diskUsageContainersContext",
        kind: "Containers",
        count: containers.len(),
        active: containers.iter().filter(active).count(),
        size: size(&mut containers.iter()),
        reclaimable: size(&mut containers.iter().filter(|container| !active(container))),
        percent: true,
    }
    .row()
}

fn volumes(usage: &Json) -> Value {
    let volumes = array(&usage["Volumes"]);
    let links = |volume: &Json| int(&volume["UsageData"]["RefCount"]);
    let size = |volume: &Json| int(&volume["UsageData"]["Size"]).max(0);
    let free = volumes.iter().filter(|volume| links(volume) == 0);
    Usage {
        name: "*formatter.diskUsageVolumesContext",
        kind: "Local Volumes",
        count: volumes.len(),
        active: volumes.iter().filter(|volume| links(volume) > 0).count(),
        size: volumes.iter().map(size).sum(),
        reclaimable: free.map(size).sum(),
        percent: true,
    }
    .row()
}

fn cache(usage: &Json) -> Value {
    let records = array(&usage["BuildCache"]);
    let on = |record: &Json, key: &str| record[key].as_bool().unwrap_or(false);
    let own = records.iter().filter(|record| !on(record, "Shared"));
    let size: i64 = own.clone().map(|record| int(&record["Size"])).sum();
    let used: i64 = own.filter(|record| on(record, "InUse")).map(|record| int(&record["Size"])).sum();
    Usage {
        name: "*formatter.diskUsageBuilderContext",
        kind: "Build Cache",
        count: records.len(),
        active: records.iter().filter(|record| on(record, "InUse")).count(),
        size,
        reclaimable: size - used,
        percent: false,
    }
    .row()
}

/// The build cache alone.
async fn builder(app: &App, matches: &Matches) -> Outcome<u8> {
    let usage: Json = app.client().await?.get("/system/df").query("type", "build-cache").send().await?.json().await?;
    let trunc = !matches.on("verbose");
    let mut records: Vec<&Json> = array(&usage["BuildCache"]).iter().collect();
    records.sort_by_key(|record| (text(&record["LastUsedAt"]).to_owned(), text(&record["ID"]).to_owned()));
    let sum = |shared: bool| -> i64 {
        let those = records.iter().filter(|record| (record["Shared"] == true) == shared);
        those.map(|record| int(&record["Size"])).sum()
    };
    let (own, shared) = (sum(false), sum(true));
    let rows: Vec<Value> = records.iter().map(|record| cache_row(record, trunc)).collect();
    let source = match matches.some("format").unwrap_or("table") {
        "table" => {
            "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}"
        }
        other => other,
    };
    app.print(&Format::parse(source)?.render(CACHE_HEADERS, &rows, &cache_row(&Json::Null, trunc))?)?;
    if !matches.changed("format") {
        let (size, human) = (own + shared, |bytes: i64| units::human_size(bytes as f64));
        app.say(&format!("Shared:\t\t{}\nPrivate:\t{}\nTotal:\t\t{}", human(shared), human(own), human(size)))?;
    }
    Ok(0)
}

fn verbose(app: &App, usage: &Json, format: &str) -> Outcome<u8> {
    let trunc = format == "table";
    let images: Vec<Value> = array(&usage["Images"]).iter().map(|image| image_row(image, trunc)).collect();
    let containers: Vec<Value> = array(&usage["Containers"])
        .iter()
        .map(|container| {
            let mut container = container.clone();
            container["SizeRootFs"] = Json::from(0);
            container::ls::row(&container, trunc, Wanted::ALL)
        })
        .collect();
    let volumes: Vec<Value> = array(&usage["Volumes"]).iter().map(volume::row).collect();
    let mut records: Vec<&Json> = array(&usage["BuildCache"]).iter().collect();
    records.sort_by_key(|record| (text(&record["LastUsedAt"]).to_owned(), text(&record["ID"]).to_owned()));
    let records: Vec<Value> = records.into_iter().map(|record| cache_row(record, trunc)).collect();
    if format != "table" {
        return all(app, format, images, containers, volumes, records);
    }
    let table = |source: &str, headers: &Headers, rows: &[Value]| -> Outcome<String> {
        Format::parse(source)?.render(headers, rows, &cache_row(&Json::Null, trunc)).or_else(|failure| {
            // Without rows there is nothing but the header.
            if rows.is_empty() {
                Ok(crate::table::align(&format!("{}\n", Format::parse(source)?.header(headers))))
            } else {
                Err(failure)
            }
        })
    };
    let size: i64 = array(&usage["BuildCache"])
        .iter()
        .filter(|record| record["Shared"].as_bool() != Some(true))
        .map(|record| int(&record["Size"]))
        .sum();
    let mut output = "Images space usage:\n\n".to_owned();
    output.push_str(&table(
        "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}",
        image::ls::HEADERS,
        &images,
    )?);
    output.push_str("\nContainers space usage:\n\n");
    output.push_str(&table(
        "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}",
        container::ls::HEADERS,
        &containers,
    )?);
    output.push_str("\nLocal Volumes space usage:\n\n");
    output.push_str(&table("table {{.Name}}\t{{.Links}}\t{{.Size}}", volume::HEADERS, &volumes)?);
    output.push_str(&format!("\nBuild cache usage: {}\n\n", units::human_size(size as f64)));
    output.push_str(&table(
        "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}",
        CACHE_HEADERS,
        &records,
    )?);
    app.print(&output)?;
    Ok(0)
}

/// A template of the user's over everything at once.
fn all(
    app: &App,
    format: &str,
    images: Vec<Value>,
    containers: Vec<Value>,
    volumes: Vec<Value>,
    records: Vec<Value>,
) -> Outcome<u8> {
    use std::sync::Arc;

    use wharf_template::{List, Struct};
    let lists = [("Images", images), ("Containers", containers), ("Volumes", volumes), ("BuildCache", records)];
    let json =
        lists.iter().map(|(name, rows)| ((*name).to_owned(), rows.iter().map(Value::to_json).collect())).collect();
    let list = |items: Vec<Value>| Value::List(Arc::new(List { items, ..List::default() }));
    let usage = Value::Struct(Arc::new(Struct {
        name: "*formatter.diskUsageContext".to_owned(),
        fields: lists.into_iter().map(|(name, rows)| (name.to_owned(), list(rows))).collect(),
        json: Some(Json::Object(json)),
        escape_html: true,
        ..Struct::default()
    }));
    let source =
        if format == "json" { "{{json .}}".to_owned() } else { format.replace("\\t", "\t").replace("\\n", "\n") };
    let template = Template::parse(&source).map_err(|error| format!("template parsing error: {error}"))?;
    let output = template.execute(&usage).map_err(|error| error.to_string())?;
    app.print(&output)?;
    Ok(0)
}

/// What each line of `--owners` is called, by the engine's word for it.
const OWNERS: &[(&str, &str)] = &[
    ("LayersShared", "Layers that images share"),
    ("LayersUnique", "Layers of one image"),
    ("LayersOfContainers", "Layers of containers alone"),
    ("LayersOfCache", "Layers of the build cache alone"),
    ("Blobs", "Configurations, manifests, compressed layers"),
    ("ContainersWritten", "Written by containers"),
    ("ContainersLogs", "Logs of containers"),
    ("ContainersFiles", "Other files of containers"),
    ("Volumes", "Volumes"),
    ("Builds", "Cache mounts, builds under way"),
    ("Partial", "Downloads and archives on their way in"),
    ("Unpacking", "Layers on their way in or out"),
    ("Database", "Database"),
    ("Reserve", "Reserve of the database"),
    ("Engine", "The engine's own"),
    ("Strangers", "Not the engine's"),
];

/// Every byte of the data root.
fn owners(app: &App, accounts: &Json, format: &str) -> Outcome<u8> {
    if accounts.is_null() {
        return Err("this engine does not say what its bytes belong to".into());
    }
    match format {
        "table" => {}
        "json" => {
            app.say(&accounts.to_string())?;
            return Ok(0);
        }
        other => return Err(format!("--owners has no format '{other}': give json, or leave it out").into()),
    }
    let mut lines = "OWNER\tSIZE\n".to_owned();
    for (key, name) in OWNERS {
        lines.push_str(&format!("{name}\t{}\n", units::human_size(int(&accounts[*key]) as f64)));
    }
    lines.push_str(&format!("Total\t{}\n", units::human_size(int(&accounts["Total"]) as f64)));
    app.print(&crate::table::align(&lines))?;
    if accounts["Exact"].as_bool() == Some(false) {
        app.complain("Some of it is as it was when it was last measured: give --exact to wait for all of it");
    }
    Ok(0)
}

/// Only the first of an image's names.
fn image_row(summary: &Json, trunc: bool) -> Value {
    let first = texts(&summary["RepoTags"]).first().and_then(|tag| Reference::parse(tag).ok());
    let (repository, tag) = match &first {
        Some(reference) => (reference.familiar_name(), reference.tag().unwrap_or("<none>")),
        None => ("<none>".to_owned(), "<none>"),
    };
    image::ls::row(summary, trunc, &repository, tag, "")
}

fn cache_row(record: &Json, trunc: bool) -> Value {
    let (id, in_use) = (text(&record["ID"]), record["InUse"].as_bool().unwrap_or(false));
    let short = |id: &str| if trunc { units::short_id(id).to_owned() } else { id.to_owned() };
    let parents = match texts(&record["Parents"]).join(", ") {
        parents if parents.is_empty() => text(&record["Parent"]).to_owned(),
        parents => parents,
    };
    let since = |key: &str| match text(&record[key]).parse::<jiff::Timestamp>() {
        Ok(moment) => units::ago(moment.as_second()),
        Err(_) => String::new(),
    };
    Row::new("*formatter.buildCacheContext")
        .field("ID", format!("{}{}", short(id), if in_use { "*" } else { "" }))
        .field("Parent", short(&parents))
        .field("CacheType", text(&record["Type"]))
        .field("Description", text(&record["Description"]))
        .field("Size", units::human_size_with(int(&record["Size"]) as f64, 3))
        .field("CreatedAt", units::go_time(text(&record["CreatedAt"])))
        .field("CreatedSince", since("CreatedAt"))
        .field("LastUsedAt", record["LastUsedAt"].as_str().map(units::go_time).unwrap_or_default())
        .field("LastUsedSince", since("LastUsedAt"))
        .field("UsageCount", int(&record["UsageCount"]).to_string())
        .field("InUse", in_use.to_string())
        .field("Shared", record["Shared"].as_bool().unwrap_or(false).to_string())
        .build()
}
