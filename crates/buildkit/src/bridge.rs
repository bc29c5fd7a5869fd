//! The service `moby.buildkit.v1.frontend.LLBBridge`: what a client's own build function calls.

use std::sync::Arc;

use wharf_rooted_path::{RootDir, RootError};
use wharf_snapshot::View;

use crate::capabilities;
use crate::control::{blocking, worker};
use crate::grpc::server::{Answer, Call, failed};
use crate::grpc::{Code, Status};
use crate::job::Job;
use crate::listing::go_mode;
use crate::proto::Empty;
use crate::proto::gateway::{
    BridgeSolveRequest, BridgeSolveResponse, InputsResponse, PongResponse, ReadDirRequest, ReadDirResponse,
    ReadFileRequest, ReadFileResponse, ReturnRequest, StatFileRequest, StatFileResponse,
};
use crate::proto::session::Stat;
use crate::{BuildKit, inputs};

/// The build that a call is about.
const BUILD_ID: &str = "buildkit-controlapi-buildid";
/// More of a file is no answer.
const MAX_FILE: u64 = 16 << 20;

impl BuildKit {
    pub(crate) async fn bridge(&self, call: Call, method: &str) -> Answer {
        let job = match self.inner.jobs.get(call.header(BUILD_ID)).await {
            Ok(job) => job,
            Err(status) => return failed(status),
        };
        let own = self.clone();
        match method {
            "Ping" => {
                let pong = PongResponse {
                    frontend_caps: capabilities::frontend(),
                    llb_caps: capabilities::graph(),
                    workers: vec![worker(&self.inner.engine)],
                };
                call.unary(move |_: Empty| async move { Ok(pong) }).await
            }
            "Solve" => call.unary(move |request| async move { own.bridge_solve(&job, request).await }).await,
            "Return" => {
                call.unary(move |request: ReturnRequest| async move {
                    let result = match request.error {
                        Some(error) if error.code != 0 => Err(Status(Box::new(error))),
                        _ => Ok(request.result.unwrap_or_default()),
                    };
                    job.give_back(result);
                    Ok(Empty {})
                })
                .await
            }
            // All is built by the time that its name is known.
            "Evaluate" => {
                call.unary(move |request: StatFileRequest| async move {
                    job.built(&request.reference)?;
                    Ok(Empty {})
                })
                .await
            }
            "ReadFile" => call.unary(move |request| async move { own.read_file(&job, request).await }).await,
            "ReadDir" => call.unary(move |request| async move { own.read_dir(&job, request).await }).await,
            "StatFile" => call.unary(move |request| async move { own.stat_file(&job, request).await }).await,
            "Inputs" => {
                let definitions = job.request.frontend_inputs.clone();
                call.unary(move |_: Empty| async move { Ok(InputsResponse { definitions }) }).await
            }
            "ResolveImageConfig" => {
                call.unary(move |request| async move { inputs::image_config(&own, &job, request).await }).await
            }
            "ResolveSourceMeta" => {
                call.unary(move |request| async move { inputs::source_meta(&own, &job, request).await }).await
            }
            "NewContainer" | "ReleaseContainer" | "ExecProcess" => {
                failed(Status::unimplemented("containers of a frontend's own are not supported"))
            }
            "Warn" => call.unary(|_: Empty| async { Ok(Empty {}) }).await,
            _ => failed(Status::unimplemented(format!("unknown method {method} of LLBBridge"))),
        }
    }

    async fn bridge_solve(&self, job: &Job, request: BridgeSolveRequest) -> Result<BridgeSolveResponse, Status> {
        let graph = request.definition.as_ref().is_some_and(|definition| !definition.def.is_empty());
        let result = match request.frontend.is_empty() {
            false => {
                let caches = &request.cache_imports;
                self.frontend(job, &request.frontend, &request.frontend_opt, &request.frontend_inputs, caches).await?
            }
            true if graph => match inputs::web_file(request.definition.as_ref()) {
                Some((url, name)) => self.fetch(job, &url, &name).await?,
                None => inputs::refuse(request.definition.as_ref())?,
            },
            true => Default::default(),
        };
        Ok(BridgeSolveResponse { result: Some(result) })
    }

    /// The files of what was built.
    async fn files<T: Send + 'static>(
        &self,
        job: &Job,
        reference: &str,
        with: impl FnOnce(&RootDir) -> Result<T, Status> + Send + 'static,
    ) -> Result<T, Status> {
        let image = job.built(reference)?.image;
        let images = self.inner.engine.images().clone();
        blocking(move || {
            let failing = |what: String| Status::new(Code::Unknown, what);
            let record = images.get(&image).map_err(|e| failing(wharf_report::chain(&e)))?;
            let view: Arc<View> =
                Arc::new(images.layers().view(&record.diff_ids, None).map_err(|e| failing(wharf_report::chain(&e)))?);
            with(&view)
        })
        .await
    }

    async fn read_file(&self, job: &Job, request: ReadFileRequest) -> Result<ReadFileResponse, Status> {
        self.files(job, &request.reference.clone(), move |root| {
            let mut data = root.read_small(&request.path, MAX_FILE).map_err(|e| unreadable(&e))?;
            if let Some(range) = request.range {
                let from = usize::try_from(range.offset).unwrap_or(0).min(data.len());
                let length = usize::try_from(range.length).unwrap_or(0);
                data = data[from..].iter().take(if length == 0 { usize::MAX } else { length }).copied().collect();
            }
            Ok(ReadFileResponse { data })
        })
        .await
    }

    async fn read_dir(&self, job: &Job, request: ReadDirRequest) -> Result<ReadDirResponse, Status> {
        if !request.include_pattern.is_empty() {
            return Err(Status::unsupported("patterns for directories are not supported"));
        }
        self.files(job, &request.reference.clone(), move |root| {
            let dir = root.open_dir(&request.path).map_err(|e| unreadable(&e))?;
            let names = dir.read_dir("").map_err(|e| unreadable(&e))?;
            let entries = names.iter().map(|name| stat(&dir, name.as_ref(), false));
            Ok(ReadDirResponse { entries: entries.collect::<Result<_, _>>()? })
        })
        .await
    }

    async fn stat_file(&self, job: &Job, request: StatFileRequest) -> Result<StatFileResponse, Status> {
        self.files(job, &request.reference.clone(), move |root| {
            Ok(StatFileResponse { stat: Some(stat(root, request.path.as_ref(), true)?) })
        })
        .await
    }
}

fn unreadable(error: &RootError) -> Status {
    let code = if error.is_not_found() { Code::NotFound } else { Code::Unknown };
    Status::new(code, wharf_report::chain(error))
}

/// What there is to say of a file; its path is its name.
pub(crate) fn stat(root: &RootDir, path: &std::path::Path, follow: bool) -> Result<Stat, Status> {
    use std::os::unix::ffi::OsStrExt;
    let found = root.metadata(path, follow).map_err(|e| unreadable(&e))?;
    let link = found.st_mode & 0o170_000 == 0o120_000;
    let linkname = match link {
        true => root.read_link(path).map_err(|e| unreadable(&e))?.as_bytes().to_vec(),
        false => Vec::new(),
    };
    Ok(Stat {
        path: path.file_name().unwrap_or_default().as_bytes().to_vec(),
        mode: go_mode(found.st_mode),
        uid: found.st_uid,
        gid: found.st_gid,
        size: found.st_size,
        mod_time: found.st_mtime.saturating_mul(1_000_000_000).saturating_add(found.st_mtime_nsec as i64),
        linkname,
        devmajor: rustix::fs::major(found.st_rdev).into(),
        devminor: rustix::fs::minor(found.st_rdev).into(),
        ..Stat::default()
    })
}
