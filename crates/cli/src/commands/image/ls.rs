//! `docker images`.

use serde_json::Value as Json;
use wharf_reference::Reference;
use wharf_template::{Method, Value};

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::flag::Flag;
use crate::format::{Format, Headers, Row, TABLE_FORMAT};
use crate::json::{int, text, texts};
use crate::parse::Matches;
use crate::units;

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS] [REPOSITORY[:TAG]]", "List images", Arity::AtMost(1), |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(FLAGS);

const FLAGS: &[Flag] = &[
    Flag::switch("all", "Show all images (default hides intermediate images)").short('a'),
    Flag::switch("digests", "Show digests"),
    Flag::filter("filter", "Filter output based on conditions provided").short('f'),
    Flag::text("format", TABLE_FORMAT),
    Flag::switch("no-trunc", "Don't truncate output"),
    Flag::switch("quiet", "Only show image IDs").short('q'),
    Flag::switch("tree", "List multi-platform images as a tree (EXPERIMENTAL)"),
];

pub(crate) const HEADERS: &Headers = &[
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("Digest", "DIGEST"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("Size", "SIZE"),
    ("Containers", "CONTAINERS"),
    ("VirtualSize", "SIZE"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
    ("Pinned", "PINNED"),
];

const CREATED: &str = "{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}";
const RAW: &str = "repository: {{ .Repository }}\n{{if .Tag}}tag: {{.Tag}}\n{{end}}image_id: {{.ID}}\n\
    created_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let mut filters = Filters::of(matches.all("filter"));
    if !matches.argument(0).is_empty() {
        filters.add("reference", matches.argument(0));
    }
    if matches.on("tree") {
        return super::tree::run(app, matches, &filters).await;
    }
    let (quiet, trunc, digests) = (matches.on("quiet"), !matches.on("no-trunc"), matches.on("digests"));
    let chosen = matches.some("format").or_else(|| app.config().text("imagesFormat").filter(|_| !quiet));
    let source = match chosen.unwrap_or("table") {
        "table" if quiet => "{{.ID}}".to_owned(),
        "table" if digests => {
            format!("table {{{{.Repository}}}}\t{{{{.Tag}}}}\t{{{{.Digest}}}}\t{{{{.ID}}}}\t{CREATED}\t{{{{.Size}}}}")
        }
        "table" => format!("table {{{{.Repository}}}}\t{{{{.Tag}}}}\t{{{{.ID}}}}\t{CREATED}\t{{{{.Size}}}}"),
        "raw" if quiet => "image_id: {{.ID}}".to_owned(),
        "raw" if digests => RAW.replace("{{end}}image_id", "{{end}}{{if .Digest}}digest: {{.Digest}}\n{{end}}image_id"),
        "raw" => RAW.to_owned(),
        other => other.to_owned(),
    };
    let images: Vec<Json> = app
        .client()
        .await?
        .get("/images/json")
        .query_if(matches.on("all"), "all")
        .query_some("filters", filters.parameter())
        .send()
        .await?
        .json()
        .await?;
    let format = Format::parse(&source)?;
    // As Docker looks for it; in JSON, too, they are there only with `--digests`.
    let digests = digests || source.contains("{{.Digest}}");
    let rows: Vec<Value> = images.iter().flat_map(|image| rows(image, trunc, digests)).collect();
    let empty = row(&Json::Null, trunc, "", "", "");
    app.print(&format.render(HEADERS, &rows, &empty)?)?;
    Ok(0)
}

/// A row for every name of an image.
pub(crate) fn rows(image: &Json, trunc: bool, digests: bool) -> Vec<Value> {
    const NONE: &str = "<none>";
    let (tags, refs) = (texts(&image["RepoTags"]), texts(&image["RepoDigests"]));
    if tags.iter().all(|tag| *tag == "<none>:<none>") && refs.iter().all(|digest| *digest == "<none>@<none>") {
        return vec![row(image, trunc, NONE, NONE, NONE)];
    }
    let parse = |list: &[&str]| list.iter().filter_map(|text| Reference::parse(text).ok()).collect::<Vec<_>>();
    let (tags, mut refs) = (parse(&tags), parse(&refs));
    let mut repositories: Vec<String> = tags.iter().map(Reference::familiar_name).collect();
    repositories.dedup();
    let mut rows = Vec::new();
    for repository in repositories {
        let (own, other): (Vec<_>, Vec<_>) = refs.into_iter().partition(|r| r.familiar_name() == repository);
        refs = other;
        for tag in tags.iter().filter(|r| r.familiar_name() == repository).filter_map(Reference::tag) {
            if own.is_empty() || !digests {
                rows.push(row(image, trunc, &repository, tag, NONE));
                continue;
            }
            for digest in own.iter().filter_map(Reference::digest) {
                rows.push(row(image, trunc, &repository, tag, digest.as_str()));
            }
        }
    }
    let mut shown: Vec<String> = Vec::new();
    for reference in refs {
        let repository = reference.familiar_name();
        if digests {
            rows.push(row(image, trunc, &repository, NONE, reference.digest().map_or("", |digest| digest.as_str())));
        } else if !shown.contains(&repository) {
            rows.push(row(image, trunc, &repository, NONE, ""));
            shown.push(repository);
        }
    }
    rows
}

pub(crate) fn row(image: &Json, trunc: bool, repository: &str, tag: &str, digest: &str) -> Value {
    let id = text(&image["Id"]);
    let pinned = image["Pinned"].as_bool().unwrap_or(false);
    let created = int(&image["Created"]);
    let (size, shared) = (int(&image["Size"]), image["SharedSize"].as_i64().unwrap_or(-1));
    let bytes = |size: i64| units::human_size_with(size as f64, 3);
    let known = |size: i64| units::human_size(size as f64);
    let containers = image["Containers"].as_i64().unwrap_or(-1);
    Row::new("*formatter.imageContext")
        .field("ID", if trunc { units::short_id(id) } else { id })
        .field("Repository", repository)
        .field("Tag", tag)
        .field("Digest", digest)
        .field("CreatedSince", units::ago(created))
        .field("CreatedAt", units::local_time(created))
        .field("Size", bytes(size))
        .field("Containers", if containers == -1 { "N/A".to_owned() } else { containers.to_string() })
        .field("VirtualSize", units::human_size(size as f64))
        .field("SharedSize", if shared == -1 { "N/A".to_owned() } else { known(shared) })
        .field("UniqueSize", if shared == -1 { "N/A".to_owned() } else { known(size - shared) })
        // Not a field of Docker's: asked for it is there, in the JSON of a whole row it is not.
        .field("Pinned", Value::Method(Method::new(move |_| Ok(Value::text(if pinned { "true" } else { "false" })))))
        .build()
}
