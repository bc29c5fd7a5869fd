//! Where an image comes from, as BuildKit says it by SLSA v1 (its `slsa-definitions.md`).

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::{Map, Value, json};
use wharf_dockerfile::{Instruction, Platform, RunNetwork};
use wharf_image::package_url;
use wharf_reference::{Digest, Reference};

use super::Provenance;
use crate::builder::Told;
use crate::finish::Built;
use crate::gathered::Gathered;
use crate::request::BuildRequest;
use crate::session::{Common, lock};
use crate::url::without_user;

pub(super) const KIND: &str = "https://slsa.dev/provenance/v1";
pub(super) const KIND_02: &str = "https://slsa.dev/provenance/v0.2";
/// What SLSA v0.2 calls BuildKit's way to build, and what its own fields begin with.
const BUILD_TYPE_02: &str = "https://mobyproject.org/buildkit@v1";
const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";

/// Something that an image was made from: where it is, and which content it has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Material {
    pub(crate) uri: String,
    /// The algorithm and the digits.
    pub(crate) digest: (String, String),
}

impl Common<'_> {
    /// Notes what came from outside beside images.
    pub(crate) fn note_material(&self, uri: &str, digest: (&str, &str)) {
        let digest = (digest.0.to_owned(), digest.1.to_owned());
        lock(&self.noted).materials.insert(Material { uri: without_secrets(uri), digest });
    }

    /// What was used from outside of the context.
    pub(crate) fn materials(&self) -> Vec<Material> {
        let mut all = lock(&self.noted).materials.clone();
        for ((name, platform), image) in lock(&self.images).iter() {
            let Ok(reference) = Reference::parse(name) else { continue };
            let own = image.repo_digests.iter().filter_map(|name| Reference::parse(name).ok());
            let digest = own.filter(|own| own.name() == reference.name()).find_map(|own| own.digest().cloned());
            // One that is in no registry is known by its configuration.
            let digest: Digest = digest.unwrap_or_else(|| image.id.clone());
            let platform = platform.as_ref().unwrap_or(&self.platforms.target).to_string();
            let digest = (digest.algorithm().to_string(), digest.hex().to_owned());
            all.insert(Material { uri: package_url(&reference, &platform), digest });
        }
        all.into_iter().collect()
    }

    /// Whether no command can have been in a network.
    pub(crate) fn is_hermetic(&self) -> bool {
        let offline = self.options.network == "none";
        let mut commands = self.graph.needed().into_iter().flat_map(|stage| &self.dockerfile.stages[stage].statements);
        commands.all(|statement| match &statement.instruction {
            Instruction::Run(run) => run.network == RunNetwork::None || (run.network == RunNetwork::Default && offline),
            _ => true,
        })
    }
}

/// An address without who may fetch from it, and without a query, which may say that as well.
fn without_secrets(uri: &str) -> String {
    let uri = if uri.starts_with("http") { uri.split_once('?').map_or(uri, |(uri, _)| uri) } else { uri };
    without_user(uri)
}

impl Provenance {
    pub(super) fn predicate(&self, request: &BuildRequest, gathered: &Gathered, built: &Built, told: &Told) -> Value {
        let dockerfile = request.shown.as_deref().unwrap_or(&request.dockerfile);
        let dockerfile = if dockerfile.is_empty() { "Dockerfile" } else { dockerfile };
        let mut source = json!({ "path": dockerfile });
        if let Some(remote) = &request.remote {
            source["uri"] = json!(without_secrets(remote));
        }
        let mut asked = json!({
            "frontend": "dockerfile.v0",
            "args": self.arguments(request),
            "locals": if request.remote.is_some() { json!([]) } else { json!([{ "name": "context" }, { "name": "dockerfile" }]) },
        });
        let mut internal = json!({ "builderPlatform": Platform::host().to_string() });
        let mut about = json!({});
        if self.max {
            let named = |names: Vec<&String>| -> Value { names.iter().map(|id| json!({ "id": id })).collect() };
            asked["secrets"] = named(request.secrets.keys().collect());
            asked["ssh"] = named(request.agents.keys().collect());
            internal["buildConfig"] = json!({ "steps": steps(gathered) });
            let data = base64::engine::general_purpose::STANDARD.encode(&gathered.context.dockerfile);
            let info = json!({ "filename": dockerfile, "language": "Dockerfile", "data": data });
            about["source"] = json!({ "infos": [info] });
        }
        let material = |material: &Material| {
            let (algorithm, digits) = &material.digest;
            json!({ "uri": material.uri, "digest": BTreeMap::from([(algorithm, digits)]) })
        };
        json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": { "configSource": source, "request": asked },
                "internalParameters": internal,
                "resolvedDependencies": built.materials.iter().map(material).collect::<Vec<_>>(),
            },
            "runDetails": {
                "builder": { "id": self.builder_id },
                "metadata": {
                    "invocationID": told.reference,
                    "startedOn": told.began.to_string(),
                    "finishedOn": jiff::Timestamp::now().to_string(),
                    "buildkit_metadata": about,
                    "buildkit_hermetic": built.hermetic,
                    // Files of a directory are in no list.
                    "buildkit_completeness": { "request": self.max, "resolvedDependencies": false },
                    "buildkit_reproducible": self.reproducible,
                },
            },
        })
    }

    /// What the request says, as BuildKit names it. Arguments of builds may be passwords: they are told with `mode=max` alone.
    fn arguments(&self, request: &BuildRequest) -> Value {
        let mut all = Map::new();
        if let Some(target) = request.target.as_ref().filter(|target| !target.is_empty()) {
            all.insert("target".into(), json!(target));
        }
        if request.no_cache {
            all.insert("no-cache".into(), json!(""));
        }
        for (name, value) in &request.labels {
            all.insert(format!("label:{name}"), json!(value));
        }
        for (name, value) in request.build_args.iter().filter(|_| self.max) {
            let told = !self.masked || name.starts_with("BUILDKIT_") || name == "SOURCE_DATE_EPOCH";
            all.insert(format!("build-arg:{name}"), json!(if told { value } else { "***" }));
        }
        Value::Object(all)
    }
}

/// The same in the form of SLSA v0.2, as BuildKit writes that.
pub(super) fn by_slsa_02(predicate: &Value) -> Value {
    let (definition, details) = (&predicate["buildDefinition"], &predicate["runDetails"]);
    let (external, internal) = (&definition["externalParameters"], &definition["internalParameters"]);
    let mut source = Map::new();
    for (key, value) in [("uri", &external["configSource"]["uri"]), ("entryPoint", &external["configSource"]["path"])] {
        if !value.is_null() {
            source.insert(key.into(), value.clone());
        }
    }
    let about = &details["metadata"];
    let mut metadata = json!({
        "buildInvocationID": about["invocationID"],
        "buildStartedOn": about["startedOn"],
        "buildFinishedOn": about["finishedOn"],
        "completeness": {
            "parameters": about["buildkit_completeness"]["request"],
            "environment": true,
            "materials": about["buildkit_completeness"]["resolvedDependencies"],
        },
        "reproducible": about["buildkit_reproducible"],
    });
    metadata[format!("{BUILD_TYPE_02}#hermetic")] = about["buildkit_hermetic"].clone();
    metadata[format!("{BUILD_TYPE_02}#metadata")] = about["buildkit_metadata"].clone();
    let mut old = json!({
        "builder": details["builder"],
        "buildType": BUILD_TYPE_02,
        "materials": definition["resolvedDependencies"],
        "invocation": {
            "configSource": source,
            "parameters": external["request"],
            "environment": { "platform": internal["builderPlatform"] },
        },
        "metadata": metadata,
    });
    if let Some(config) = internal.get("buildConfig") {
        old["buildConfig"] = config.clone();
    }
    old
}

/// The instructions as they are written, with their lines.
fn steps(gathered: &Gathered) -> Vec<Value> {
    let stages = gathered.dockerfile.stages.iter();
    let all = stages
        .flat_map(|stage| [&stage.from].into_iter().chain(stage.statements.iter().map(|statement| &statement.source)));
    all.map(|source| json!({ "line": source.span.line(), "instruction": source.text })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_learns_who_may_fetch() {
        assert_eq!(without_secrets("https://me:secret@host/x?token=t#y"), "https://host/x");
        assert_eq!(without_secrets("ssh://git@host/x?y"), "ssh://host/x?y");
    }
}
