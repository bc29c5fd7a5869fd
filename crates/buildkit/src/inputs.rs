//! Sources in graphs: what builds give to others, and what clients ask about images.

use prost::Message;
use wharf_dockerfile::Platform;
use wharf_reference::{Digest, Reference};

use crate::BuildKit;
use crate::control::blocking;
use crate::grpc::{Code, Status};
use crate::job::Job;
use crate::proto::gateway::{
    PbResult, ResolveImageConfigRequest, ResolveImageConfigResponse, ResolveSourceMetaRequest,
    ResolveSourceMetaResponse, ResolvedImage,
};
use crate::proto::llb::{self, Definition, Input, Op, SourceOp};

/// An image of ours in a graph: it is here, under no name.
const BUILT: &str = "wharf-built://";
const IMAGE: &str = "docker-image://";

/// What a graph is, if it is one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An image that is here, by its ID.
    Built(String),
    Image(String),
    /// A directory of the client's.
    Local(String),
    /// An address of a repository or a file.
    Remote(String),
}

/// A graph that means an image that was built.
pub(crate) fn built(image: &Digest) -> Definition {
    let source = SourceOp { identifier: format!("{BUILT}{image}"), ..SourceOp::default() };
    let op = Op { source: Some(source), ..Op::default() }.encode_to_vec();
    // The last one is no operation: it says which output is meant.
    let input = Input { digest: Digest::sha256(&op).to_string(), index: 0 };
    let metadata = [(input.digest.clone(), Default::default())].into();
    let last = Op { inputs: vec![input], ..Op::default() }.encode_to_vec();
    Definition { def: vec![op, last], metadata }
}

/// The source that a graph is.
///
/// # Errors
/// For a graph that is more than that.
pub(crate) fn source(definition: &Definition) -> Result<Source, Status> {
    let more = || {
        Status::unsupported(
            "this engine builds Dockerfiles and runs no LLB: of a build's inputs it takes images, repositories, files of \
             the web and directories",
        )
    };
    let ops: Vec<Op> = definition
        .def
        .iter()
        .map(|bytes| Op::decode(bytes.as_slice()))
        .collect::<Result<_, _>>()
        .map_err(|_| more())?;
    let [op, last] = ops.as_slice() else { return Err(more()) };
    let source = op.source.as_ref().filter(|_| op.inputs.is_empty() && last.source.is_none()).ok_or_else(more)?;
    let (scheme, rest) = source.identifier.split_once("://").ok_or_else(more)?;
    Ok(match scheme {
        "wharf-built" => Source::Built(rest.to_owned()),
        "docker-image" => Source::Image(rest.to_owned()),
        "local" => Source::Local(rest.to_owned()),
        "git" => {
            let url = source.attrs.get("git.fullurl");
            let reference = rest.split_once('#').map(|(_, reference)| format!("#{reference}")).unwrap_or_default();
            Source::Remote(url.map_or_else(|| source.identifier.clone(), |url| format!("{url}{reference}")))
        }
        "http" | "https" => Source::Remote(source.identifier.clone()),
        _ => return Err(more()),
    })
}

/// The address and the name of a file of the web, if a graph is that and no more: how buildx gets a Dockerfile that is
/// elsewhere.
pub(crate) fn web_file(definition: Option<&Definition>) -> Option<(String, String)> {
    let definition = definition?;
    let Source::Remote(url) = source(definition).ok()? else { return None };
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    let op = Op::decode(definition.def.first()?.as_slice()).ok()?.source?;
    // A repository has another scheme in the graph, whatever its address is.
    let is_web = is_web && op.identifier == url;
    // What else is asked of it (a checksum, a header, a mode) is not left out without a word.
    let name = op.attrs.get("http.filename").filter(|_| op.attrs.len() == 1);
    let name = name.filter(|name| !name.is_empty() && !name.contains('/'))?;
    is_web.then(|| (url, name.clone()))
}

/// A graph as the whole of a build.
///
/// # Errors
/// Always: there is nothing that could be built of a source alone.
pub(crate) fn refuse(definition: Option<&Definition>) -> Result<PbResult, Status> {
    source(definition.unwrap_or(&Definition::default()))?;
    Err(Status::unsupported("this engine builds Dockerfiles and runs no LLB"))
}

/// Finds or pulls an image, as a build would.
async fn image(
    own: &BuildKit,
    job: &Job,
    name: &str,
    platform: Option<llb::Platform>,
) -> Result<(Reference, Digest, Vec<u8>), Status> {
    let bad = |what: String| Status::invalid(format!("invalid image {name:?}: {what}"));
    let reference = Reference::parse(name).map_err(|e| bad(e.to_string()))?.tag_or_latest();
    let platform = platform.map(|platform| Platform {
        os: platform.os,
        architecture: platform.architecture,
        variant: platform.variant,
    });
    let platform = platform.map(|platform| platform.to_string());
    let engine = own.inner.engine.clone();
    let local = {
        let (images, name, platform) = (engine.images().clone(), name.to_owned(), platform.clone());
        blocking(move || Ok(images.resolve_for(&name, platform.as_deref()).ok())).await?
    };
    let record = match local {
        Some(record) => record,
        None => {
            let (progress, _) = tokio::sync::mpsc::unbounded_channel();
            let credentials = own.credentials(job, reference.domain()).await;
            let pulled = engine.pull(&reference, platform.as_deref(), credentials, progress).await;
            pulled.map_err(|e| Status::new(Code::NotFound, e.to_string()))?
        }
    };
    let config = serde_json::to_vec(&record.config).unwrap_or_default();
    Ok((reference, record.id, config))
}

pub(crate) async fn image_config(
    own: &BuildKit,
    job: &Job,
    request: ResolveImageConfigRequest,
) -> Result<ResolveImageConfigResponse, Status> {
    let (reference, digest, config) = image(own, job, &request.reference, request.platform).await?;
    Ok(ResolveImageConfigResponse { digest: digest.to_string(), config, reference: reference.to_string() })
}

pub(crate) async fn source_meta(
    own: &BuildKit,
    job: &Job,
    request: ResolveSourceMetaRequest,
) -> Result<ResolveSourceMetaResponse, Status> {
    let source = request.source.unwrap_or_default();
    let Some(name) = source.identifier.strip_prefix(IMAGE) else {
        return Ok(ResolveSourceMetaResponse { source: Some(source), image: None });
    };
    let (_, digest, config) = image(own, job, name, request.platform).await?;
    let image = Some(ResolvedImage { digest: digest.to_string(), config });
    Ok(ResolveSourceMetaResponse { source: Some(source), image })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(ops: &[Op]) -> Definition {
        Definition { def: ops.iter().map(Message::encode_to_vec).collect(), ..Definition::default() }
    }

    #[test]
    fn what_was_built_is_found_again() {
        let image = Digest::sha256(b"x");
        assert_eq!(source(&built(&image)).unwrap(), Source::Built(image.to_string()));
    }

    #[test]
    fn graphs_that_are_more_than_a_source_are_refused() {
        let of = |identifier: &str| {
            let source = SourceOp { identifier: identifier.into(), ..SourceOp::default() };
            Op { source: Some(source), ..Op::default() }
        };
        let last = Op::default();
        let one = |identifier: &str| source(&graph(&[of(identifier), last.clone()]));
        assert_eq!(one("docker-image://a/b:c").unwrap(), Source::Image("a/b:c".into()));
        assert_eq!(one("https://a/b").unwrap(), Source::Remote("https://a/b".into()));
        assert!(one("blob://x").is_err());
        assert!(source(&graph(&[of("local://x"), of("local://y"), last])).is_err());
        assert!(source(&Definition { def: vec![vec![0xff]], ..Definition::default() }).is_err());
    }
}
