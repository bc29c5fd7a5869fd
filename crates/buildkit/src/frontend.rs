//! The frontend `dockerfile.v0`: our own builder.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use wharf_build::{BuildEvent, BuildRequest, Client, Given};
use wharf_dockerfile::{Platform, is_own_frontend};
use wharf_image::registry::Credentials;
use wharf_reference::Digest;

use crate::asking::Asking;
use crate::contexts::Asked;
use crate::control::blocking;
use crate::grpc::{Code, Status};
use crate::job::{Built, Job};
use crate::options::{self, Options, text};
use crate::progress::Steps;
use crate::proto::control::CacheOption;
use crate::proto::gateway::{PbResult, Ref, RefMap, Refs};
use crate::proto::llb::Definition;
use crate::{BuildKit, cache, export, failure, inputs};

/// Metadata of results: moby/buildkit `exporter/containerimage/exptypes`.
const CONFIG: &str = "containerimage.config";
const PLATFORMS: &str = "refs.platforms";

impl BuildKit {
    /// Builds what the options of a frontend ask for.
    ///
    /// # Errors
    /// Of the request and of the build.
    pub(crate) async fn frontend(
        &self,
        job: &Job,
        name: &str,
        options: &Options,
        inputs: &HashMap<String, Definition>,
        caches: &[CacheOption],
    ) -> Result<PbResult, Status> {
        check_frontend(name, options)?;
        let asked = Asked { job, options, inputs };
        if let Some(request) = options.get("requestid").filter(|request| !request.is_empty()) {
            return self.answer_call(asked, request).await;
        }
        let mut request = options::request(options)?;
        request.entitlements.clone_from(&job.request.entitlements);
        request.tells_provenance = !job.request.internal;
        request.tags = job.tags();
        request.repositories = export::all_repositories(&job.exporters)?;
        request.form = export::all_forms(&job.exporters)?;
        // What clients ask for by default costs the compression of all layers: it is for those who say so.
        request.attestations = options::attestations(options, false);
        export::check_stated(&job.exporters, &request.attestations)?;
        if export::needs_passing(&job.exporters, &request.attestations) {
            request.passing = Some(job.passing()?);
            request.elsewhere = export::elsewhere(&job.exporters);
        }
        request.annotations = export::annotations(&job.exporters);
        if job.request.cache.as_ref().is_some_and(|options| cache::is_inline(&options.exports)) {
            request.build_args.insert("BUILDKIT_INLINE_CACHE".into(), "1".into());
        }
        if !job.request.session.is_empty() {
            let session = self.inner.sessions.get(&job.request.session).await?;
            request.client = Some(Arc::new(Asking { handle: Handle::current(), session }) as Arc<dyn Client>);
        }
        self.import_caches(job, options, caches).await;
        let contexts = self.contexts(asked).await?;
        request.answers = Some(contexts.answers());
        request.context = contexts.context;
        request.listed = contexts.listed;
        request.given = contexts.given;
        request.dockerfile = contexts.dockerfile;
        request.contexts = contexts.named;
        request.remote = contexts.remote;
        let keep = Arc::new(Mutex::new(self.inner.engine.images().keep()));
        job.keep(Arc::clone(&keep));
        request.keep = Some(keep);
        let several = request.platform.as_deref().is_some_and(|platforms| platforms.contains(','));
        let built = self.build(job, request).await;
        contexts.files.end().await;
        self.result(job, built?, several).await
    }

    /// Has a file of the web as the only one of a result.
    ///
    /// # Errors
    /// When the server does not have it, and for what makes no path.
    pub(crate) async fn fetch(&self, job: &Job, url: &str, name: &str) -> Result<PbResult, Status> {
        // As words of the Dockerfile have them.
        let word = |text: &str| json!(text.replace('\\', r"\\").replace('$', r"\$")).to_string();
        let text = format!("FROM scratch\nADD [{}, {}]\n", word(url), word(&format!("/{name}")));
        let keep = Arc::new(Mutex::new(self.inner.engine.images().keep()));
        job.keep(Arc::clone(&keep));
        let request = BuildRequest {
            given: Some(Given { text: text.into_bytes(), ..Given::default() }),
            steps: true,
            keep: Some(keep),
            ..BuildRequest::default()
        };
        let built = self.build(job, request).await?;
        self.result(job, built, false).await
    }

    /// Runs the builder. The value is what was made, for each platform.
    async fn build(&self, job: &Job, request: BuildRequest) -> Result<Vec<Built>, Status> {
        let (events, mut told) = mpsc::channel(64);
        let (builder, tags) = (self.inner.builder.clone(), request.tags.clone());
        let mut steps = Steps::of(&job.progress);
        let hearing = async {
            let mut made = Vec::new();
            while let Some(event) = told.recv().await {
                match event {
                    BuildEvent::Step(step) => {
                        steps.hear(step);
                        // A command waits for who reads what it says.
                        job.progress.room().await;
                    }
                    BuildEvent::Made { id, new, platform, digest, reference, provenance } => {
                        if let Ok(image) = Digest::parse(&id) {
                            let provenance = provenance.map(Into::into);
                            made.push(Built { image, platform, index: digest, new, reference, provenance });
                        }
                    }
                    BuildEvent::Stream(_) | BuildEvent::Progress(_) | BuildEvent::Wanted { .. } => {}
                }
            }
            made
        };
        let (done, made) = tokio::join!(builder.build(request, events), hearing);
        let id = done.map_err(|error| failure::status(&error))?;
        tags.iter().for_each(|tag| self.inner.engine.tell_tagged(&id, tag));
        Ok(made)
    }

    /// What was made, as the client knows it.
    async fn result(&self, job: &Job, built: Vec<Built>, several: bool) -> Result<PbResult, Status> {
        let mut metadata = HashMap::new();
        let mut refs = HashMap::new();
        let mut platforms = Vec::new();
        let images = self.inner.engine.images().clone();
        let with_config = move |one: Built| {
            let record = images.get(&one.image);
            let config = record.map_err(|e| Status::new(Code::Internal, wharf_report::chain(&e)))?.config;
            Ok((one, config))
        };
        let built: Vec<_> = blocking(move || built.into_iter().map(with_config).collect::<Result<_, Status>>()).await?;
        for (one, config) in built {
            let platform = Platform {
                os: config.os.clone(),
                architecture: config.architecture.clone(),
                variant: config.variant.clone().unwrap_or_default(),
            };
            let name = one.platform.clone().unwrap_or_else(|| platform.to_string());
            let json = serde_json::to_vec(&config).unwrap_or_default();
            let key = if several { format!("{CONFIG}/{name}") } else { CONFIG.to_owned() };
            metadata.insert(key, json);
            let mut shown = json!({ "architecture": platform.architecture, "os": platform.os });
            if !platform.variant.is_empty() {
                shown["variant"] = json!(platform.variant);
            }
            platforms.push(json!({ "ID": name, "Platform": shown }));
            let def = Some(inputs::built(&one.image));
            refs.insert(name, Ref { id: job.note(one), def });
        }
        metadata.insert(PLATFORMS.to_owned(), json!({ "Platforms": platforms }).to_string().into_bytes());
        let refs = match several {
            true => Some(Refs::Many(RefMap { refs })),
            false => refs.into_values().next().map(Refs::One),
        };
        Ok(PbResult { refs, metadata })
    }

    /// The client's credentials for a registry.
    pub(crate) async fn credentials(&self, job: &Job, registry: &str) -> Option<Credentials> {
        let session = self.inner.sessions.get(&job.request.session).await.ok()?;
        let asking = Asking { handle: Handle::current(), session };
        let registry = registry.to_owned();
        tokio::task::spawn_blocking(move || asking.credentials(&registry)).await.ok()?.ok()?
    }
}

/// Refuses frontends that are not ours.
fn check_frontend(name: &str, options: &Options) -> Result<(), Status> {
    match name {
        "dockerfile.v0" => Ok(()),
        // An image that is one: that of Dockerfiles is built in.
        "gateway.v0" if is_own_frontend(text(options, "source")) => Ok(()),
        "gateway.v0" => Err(Status::unsupported(format!(
            "unknown frontend {:?}: there is docker/dockerfile alone",
            text(options, "source")
        ))),
        other => Err(Status::unsupported(format!("unknown frontend {other:?}: there is dockerfile.v0 alone"))),
    }
}
