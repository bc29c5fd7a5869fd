//! What of a container is written beside each line of its log: the options `labels`, `env`, `labels-regex`,
//! `env-regex` and `tag`.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::json;
use wharf_template::{Field, Template, TemplateError, Type};

use crate::error::{EngineError, Result};
use crate::log_remote::{NO_DRIVER, NOT_CREATED};
use crate::record::Container;

/// The chosen labels and variables, and the tag.
///
/// # Errors
/// `InvalidParameter` for an expression or a template that is none.
pub(crate) fn attributes(record: &Container) -> Result<BTreeMap<String, String>> {
    let option =
        |key: &str| record.host.log_config.options.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let labels = record.config.labels.clone().unwrap_or_default();
    let env = record.config.env.iter().flatten().filter_map(|pair| pair.split_once('='));
    let env: BTreeMap<String, String> = env.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let mut all = BTreeMap::new();
    for (from, names, expression) in [(&labels, "labels", "labels-regex"), (&env, "env", "env-regex")] {
        let names: Vec<&str> = option(names).unwrap_or_default().split(',').collect();
        let expression = option(expression).map(Regex::new).transpose();
        let expression = expression.map_err(|e| EngineError::invalid(format!("invalid log option: {e}")))?;
        let chosen = |key: &String| {
            names.contains(&key.as_str()) || expression.as_ref().is_some_and(|expression| expression.is_match(key))
        };
        all.extend(from.iter().filter(|(key, _)| chosen(key)).map(|(key, value)| (key.clone(), value.clone())));
    }
    if let Some(text) = option("tag") {
        all.insert("tag".into(), tag(record, text)?);
    }
    Ok(all)
}

/// The tag by which a receiver knows the container; its short ID where no other was asked for.
///
/// # Errors
/// `InvalidParameter` for a template that is none.
pub(crate) fn tag_of(record: &Container) -> Result<String> {
    let text = record.host.log_config.options.get("tag").map(String::as_str).filter(|text| !text.is_empty());
    tag(record, text.unwrap_or("{{.ID}}"))
}

/// Docker's `ParseLogTag`: a template of what `logger.Info` has.
fn tag(record: &Container, text: &str) -> Result<String> {
    let image = record.image.hex();
    let short = |id: &str| id.get(..12).unwrap_or(id).to_owned();
    let command = std::iter::once(&record.path).chain(&record.args).cloned().collect::<Vec<_>>().join(" ");
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let known = json!({
        "ID": short(&record.id), "FullID": record.id, "Name": record.name,
        "ImageID": short(image), "ImageFullID": record.image, "ImageName": record.config.image,
        "DaemonName": "docker", "Command": command, "Hostname": host,
        "ContainerID": record.id, "ContainerName": format!("/{}", record.name), "ContainerEntrypoint": record.path,
        "ContainerArgs": record.args, "ContainerImageID": record.image, "ContainerImageName": record.config.image,
        "ContainerCreated": record.created, "ContainerEnv": record.config.env,
        "ContainerLabels": record.config.labels, "LogPath": record.log_path,
        "Config": record.host.log_config.options,
    });
    let texts = [
        "ID",
        "FullID",
        "Name",
        "ImageID",
        "ImageFullID",
        "ImageName",
        "DaemonName",
        "Command",
        "Hostname",
        "ContainerID",
        "ContainerName",
        "ContainerEntrypoint",
        "ContainerImageID",
        "ContainerImageName",
        "LogPath",
    ];
    let (list, map) = (Type::list(Type::String), Type::map(Type::String));
    let others = [
        ("ContainerArgs", list.clone()),
        ("ContainerCreated", Type::Time),
        ("ContainerEnv", list),
        ("ContainerLabels", map.clone()),
        ("Config", map),
    ];
    let fields = texts.map(|name| (name, Type::String)).into_iter().chain(others);
    let fields = fields.map(|(name, kind)| Field { name, json: name, omit_empty: false, kind }).collect();
    let bad = |e: TemplateError| EngineError::invalid(format!("{NOT_CREATED}: {NO_DRIVER}: {e}"));
    let template = Template::parse_named("log-tag", text).map_err(bad)?;
    template.execute(&Type::object("*logger.Info", fields).view(&known)).map_err(bad)
}
