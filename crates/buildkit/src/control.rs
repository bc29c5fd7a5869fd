//! The service `moby.buildkit.v1.Control`.

use std::collections::HashMap;
use std::sync::Arc;

use wharf_dockerfile::Platform;
use wharf_engine::Engine;

use crate::BuildKit;
use crate::export;
use crate::grpc::server::{Answer, Call, failed};
use crate::grpc::{Code, Sender, Status};
use crate::job::{Ending, Job, Results, makes_image};
use crate::proto::control::{
    Exporter, InfoResponse, ListWorkersResponse, SolveRequest, SolveResponse, StatusRequest, Version, Worker,
};
use crate::proto::gateway::{PbResult, Refs};
use crate::proto::{Empty, Timestamp, llb};
use crate::tunnel;

/// What clients show of who builds.
fn version() -> Version {
    Version {
        package: "wharf".into(),
        version: concat!("wharf ", env!("CARGO_PKG_VERSION")).into(),
        revision: String::new(),
    }
}

/// The one worker: this host.
pub(crate) fn worker(engine: &Engine) -> Worker {
    let host = Platform::host();
    let platform = llb::Platform { architecture: host.architecture, os: host.os, variant: host.variant };
    // By this buildx knows a store that has images of several platforms, and outputs beside the image.
    let mut labels = HashMap::from([("org.mobyproject.buildkit.worker.snapshotter".to_owned(), "wharf".to_owned())]);
    // What clients write for `--add-host NAME:host-gateway`.
    if let Some(address) = engine.host_gateway() {
        labels.insert("org.mobyproject.buildkit.worker.moby.host-gateway-ip".into(), address.to_string());
    }
    Worker { id: "wharf".into(), labels, platforms: vec![platform], version: Some(version()) }
}

impl BuildKit {
    pub(crate) async fn control(&self, call: Call, method: &str) -> Answer {
        let own = self.clone();
        match method {
            "Solve" => call.unary(move |request| async move { own.solve(request).await }).await,
            "Status" => call.streamed(move |request, sender| async move { own.status(request, sender).await }).await,
            "Session" => call.both(move |headers, messages, sender| async move {
                let (io, moving) = tunnel::connection(messages, sender);
                let serving = own.inner.sessions.serve(&headers, io);
                tokio::select! {
                    done = serving => done,
                    done = moving => done,
                }
            }),
            "ListWorkers" => {
                let record = vec![worker(&self.inner.engine)];
                call.unary(|_: Empty| async { Ok(ListWorkersResponse { record }) }).await
            }
            "Info" => call.unary(|_: Empty| async { Ok(InfoResponse { version: Some(version()) }) }).await,
            "DiskUsage" => call.unary(move |request| async move { own.disk_usage(request).await }).await,
            "Prune" => call.streamed(move |request, sender| async move { own.prune(request, sender).await }).await,
            "ListenBuildHistory" => {
                let listening =
                    call.streamed(move |asked, sender| async move { own.listen_history(asked, sender).await });
                let mut answer = listening.await;
                let now = now_in_words().parse();
                now.into_iter().for_each(|now| drop(answer.headers_mut().insert(crate::history::NOW, now)));
                answer
            }
            "UpdateBuildHistory" => {
                call.unary(move |asked| async move { own.update_history(asked).await.map(|()| Empty {}) }).await
            }
            _ => failed(Status::unimplemented(format!("unknown method {method} of Control"))),
        }
    }

    async fn status(&self, request: StatusRequest, sender: Sender) -> Result<(), Status> {
        let known = self.inner.jobs.known(&request.reference);
        if known.is_none()
            && let Some(told) = self.told(&request.reference).await?
        {
            for message in told {
                if !sender.send(&message).await {
                    break;
                }
            }
            return Ok(());
        }
        let job = self.inner.jobs.get(&request.reference).await?;
        let mut follower = job.progress.follow();
        loop {
            let messages = follower.next().await;
            if messages.is_empty() {
                return Ok(());
            }
            for message in messages {
                if !sender.send(&*message).await {
                    return Ok(());
                }
            }
        }
    }

    async fn solve(&self, mut request: SolveRequest) -> Result<SolveResponse, Status> {
        if request.reference.is_empty() {
            return Err(Status::invalid("a build without a reference"));
        }
        let mut exporters = std::mem::take(&mut request.exporters);
        if exporters.is_empty() && !request.exporter.is_empty() {
            let (kind, attrs) = (request.exporter.clone(), request.exporter_attrs.clone());
            exporters.push(Exporter { kind, attrs });
        }
        // Known before anything is refused: the client asks how it goes, and waits for a build that never comes.
        let job = self.inner.jobs.begin(request, exporters)?;
        let ending = Ending::of(self, &job);
        let done = match check(&job) {
            Ok(()) => self.solved(&job).await,
            Err(status) => Err(status),
        };
        ending.end(&done.as_ref().map(|answer| answer.exporter_response.clone()).map_err(Clone::clone)).await;
        done
    }

    /// Does the work of a build, as long as the client is there that has begun it.
    pub(crate) async fn solved(&self, job: &Arc<Job>) -> Result<SolveResponse, Status> {
        // Dropped with this future when the client calls the build off: also then what it has made goes.
        let results = export::JobResults::begin(self, job);
        let done = tokio::select! {
            done = self.work(job) => done,
            () = self.session_over(job) => Err(Status::new(Code::Cancelled, "the client has ended its session")),
        };
        results.end(done.is_ok() && job.exporters.iter().any(makes_image)).await;
        done
    }

    /// Waits until the client that has begun a build has gone.
    async fn session_over(&self, job: &Job) {
        if !job.request.session.is_empty()
            && let Ok(session) = self.inner.sessions.get(&job.request.session).await
        {
            return session.over().await;
        }
        std::future::pending().await
    }

    async fn work(&self, job: &Job) -> Result<SolveResponse, Status> {
        let request = &job.request;
        let graph = request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty());
        let result = match request.frontend.is_empty() {
            false => {
                self.frontend(job, &request.frontend, &request.frontend_attrs, &request.frontend_inputs, &[]).await?
            }
            true if graph => crate::inputs::refuse(request.definition.as_ref())?,
            // The client has a build function of its own.
            true => job.returned().await?,
        };
        let results = results(job, result)?;
        let mut exporter_response = export::export(self, job, &results).await?;
        self.export_caches(job, &results, &mut exporter_response).await?;
        Ok(SolveResponse { exporter_response })
    }
}

/// Refuses what is not done before anything is built.
fn check(job: &Job) -> Result<(), Status> {
    if job.request.source_policy.is_some() {
        return Err(Status::unsupported("source policies are not supported: nothing was built"));
    }
    export::check(&job.exporters)?;
    match &job.request.cache {
        Some(options) => crate::cache::check(&options.exports),
        None => Ok(()),
    }
}

/// This moment, as RFC 3339 has it.
fn now_in_words() -> String {
    let Timestamp { seconds, nanos } = Timestamp::now();
    jiff::Timestamp::new(seconds, nanos).unwrap_or_default().to_string()
}

/// What the client has given back, as what was built.
fn results(job: &Job, result: PbResult) -> Result<Results, Status> {
    let by_name = |(platform, id): (String, String)| Ok((platform, job.built(&id)?));
    let one = |id: String| match id.is_empty() {
        true => Ok(Results::new()),
        false => Ok(Results::from([(String::new(), job.built(&id)?)])),
    };
    match result.refs {
        None => Ok(Results::new()),
        Some(Refs::OneId(id)) => one(id),
        Some(Refs::One(one_ref)) => one(one_ref.id),
        Some(Refs::ManyIds(all)) => all.refs.into_iter().map(by_name).collect(),
        Some(Refs::Many(all)) => all.refs.into_iter().map(|(platform, one)| by_name((platform, one.id))).collect(),
    }
}

/// Runs what waits for the disk beside the connections.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Status::new(Code::Internal, format!("a task failed: {e}")))?
}
