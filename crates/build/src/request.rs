//! What is asked of the builder, and what it tells while it works.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use wharf_image::registry::Credentials;
use wharf_image::{Form, ImageRecord, Keep, Progress, ProgressSender};
use wharf_reference::Reference;
use wharf_store::Store;

use crate::agent::Agent;
use crate::asked::{Client, Given};
use crate::error::{BuildError, Result};
use crate::missing::Answers;
use crate::named::NamedContext;
use crate::steps::StepEvent;

/// One build, in the words of `POST /build`.
pub struct BuildRequest {
    /// A tar archive, plain or compressed; if it is `listed`, the listing of one.
    pub context: Box<dyn Read + Send>,
    pub listed: bool,
    /// Who has sent listings, if anybody has.
    pub answers: Option<Arc<dyn Answers>>,
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// What it is called where that is not its path: it came from somewhere else.
    pub shown: Option<String>,
    /// Names of the result.
    pub tags: Vec<String>,
    /// Repositories in which it gets a name by its digest alone.
    pub repositories: Vec<Reference>,
    /// Names that it gets in archives alone: what is stated about it names these, too.
    pub elsewhere: Vec<Reference>,
    /// A name that nobody is told, under which an index of the result stays until outputs have been made of it
    /// (`wharf_image::passing_name`).
    pub passing: Option<String>,
    /// How its layers are compressed where they are pushed, if that matters.
    pub form: Option<Form>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// The stage that is asked for; the last one when absent.
    pub target: Option<String>,
    /// Makes every step again.
    pub no_cache: bool,
    /// Asks the registry for base images that are here.
    pub pull: bool,
    /// Tells nothing but the result.
    pub quiet: bool,
    /// `default`, `bridge`, `none`, `host` or the name of a network.
    pub network: String,
    /// `os/architecture[/variant]`, or several with commas between them; that of this machine when absent.
    pub platform: Option<String>,
    /// Bytes of `/dev/shm`; 64 MiB when absent.
    pub shm_size: Option<u64>,
    pub limits: Limits,
    /// `HOST:IP`.
    pub extra_hosts: Vec<String>,
    /// Control group below which commands run; the daemon's when absent.
    pub cgroup_parent: Option<String>,
    /// What stands for images and stages of these names, in the order in which their files come. A name that ends with
    /// `::PLATFORM` counts where that is built.
    pub contexts: Vec<(String, NamedContext)>,
    /// Stages whose steps are made again.
    pub no_cache_filter: Vec<String>,
    /// Values by ID for `RUN --mount=type=secret`.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// What the build is allowed beyond the usual, such as `network.host`.
    pub entitlements: Vec<String>,
    /// Agents by ID for `RUN --mount=type=ssh`.
    pub agents: BTreeMap<String, Agent>,
    /// One layer in place of all that are put on the base image.
    pub squash: bool,
    /// As Docker's classic builder: the image's parent is its base image, so that nobody removes that by its ID; and what
    /// BuildKit takes for something else without a word (several files for one place, owners that are not there) is refused.
    pub classic: bool,
    /// [`BuildEvent::Made`] is to say where an image comes from.
    pub tells_provenance: bool,
    /// Cache mounts stay as they are, though nothing is to come from the cache.
    pub keeps_mounts: bool,
    /// Who is asked for secrets, agents and credentials that are not here.
    pub client: Option<Arc<dyn Client>>,
    /// The Dockerfile, if it does not come with the context; `dockerfile` is its name then.
    pub given: Option<Given>,
    /// Tells of steps as they begin and end, beside the text.
    pub steps: bool,
    /// `[TYPE:]KEY=VALUE`, for the manifest or the index.
    pub annotations: Vec<String>,
    /// `type=provenance,…`, `type=sbom`.
    pub attestations: Vec<String>,
    /// The address that the context was got from.
    pub remote: Option<String>,
    /// When the newest commit of the context's repository was made, in seconds since the epoch: files of the context have no
    /// later time in layers. Two checkouts of one commit are so the same.
    pub committed: Option<i64>,
    /// The context is a repository that was got for this build.
    pub checked_out: bool,
    /// What is made is kept in this, from before it is there: nobody removes it then.
    pub keep: Option<Arc<Mutex<Keep>>>,
    /// The client's, for registries of base images.
    pub credentials: RegistryCredentials,
}

/// Credentials by registry, as a client's configuration names it: a host, or an address with one.
pub type RegistryCredentials = BTreeMap<String, Credentials>;

impl Default for BuildRequest {
    fn default() -> Self {
        Self {
            context: Box::new(io::empty()),
            listed: false,
            answers: None,
            dockerfile: "Dockerfile".into(),
            shown: None,
            tags: Vec::new(),
            repositories: Vec::new(),
            elsewhere: Vec::new(),
            passing: None,
            form: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            target: None,
            no_cache: false,
            pull: false,
            quiet: false,
            network: "default".into(),
            platform: None,
            shm_size: None,
            limits: Limits::default(),
            extra_hosts: Vec::new(),
            cgroup_parent: None,
            contexts: Vec::new(),
            no_cache_filter: Vec::new(),
            secrets: BTreeMap::new(),
            entitlements: Vec::new(),
            agents: BTreeMap::new(),
            squash: false,
            classic: false,
            keeps_mounts: false,
            tells_provenance: false,
            client: None,
            given: None,
            steps: false,
            annotations: Vec::new(),
            attestations: Vec::new(),
            remote: None,
            committed: None,
            checked_out: false,
            keep: None,
            credentials: BTreeMap::new(),
        }
    }
}

impl fmt::Debug for BuildRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Arguments and secrets are nobody's business.
        f.debug_struct("BuildRequest")
            .field("dockerfile", &self.dockerfile)
            .field("tags", &self.tags)
            .field("target", &self.target)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

/// Limits of the commands that a build runs; `None` is no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory: Option<i64>,
    /// Memory and swap together; -1 is no limit.
    pub memory_swap: Option<i64>,
    pub cpu_shares: Option<u64>,
    /// Microseconds.
    pub cpu_period: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpuset_cpus: Option<String>,
    pub cpuset_mems: Option<String>,
    pub ulimits: Vec<Ulimit>,
}

/// `--ulimit NAME=SOFT:HARD`; -1 is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ulimit {
    pub name: String,
    pub soft: i64,
    pub hard: i64,
}

/// What a build tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BuildEvent {
    /// Text as Docker's classic builder prints it.
    Stream(String),
    /// The image that was made.
    Made {
        id: String,
        /// It was not here before.
        new: bool,
        /// Names the build in the history.
        reference: String,
        /// Where several were built, which of them it is; that of this host comes last.
        platform: Option<String>,
        /// The digest of the index that the names lead to, or of the manifest that a name by its digest does.
        digest: Option<String>,
        /// Where it comes from (SLSA v0.2), if that is to be remembered.
        provenance: Option<String>,
    },
    /// Of a base image that is being pulled.
    Progress(Progress),
    /// Entries of a listing whose contents are asked for: from [`Answers`], never from the builder.
    Wanted { listing: usize, entries: Vec<Range<u32>> },
    /// Of a step, as it happens and in no turn; only where the request wants it.
    Step(StepEvent),
}

/// How a builder is set up.
#[derive(Clone)]
pub struct BuilderOptions {
    /// That of the images. Records of steps are kept in it, and builds take place below its root.
    pub store: Store,
    /// Volatile; sockets and secrets of commands are kept there.
    pub exec_root: PathBuf,
    /// Control group below which commands run, such as `/wharf`.
    pub cgroup_parent: String,
    /// Where images come from that are not here.
    pub fetch: Arc<dyn Fetch>,
    /// Where commands get their network from; without it they have none.
    pub network: Option<NetworkSource>,
}

impl fmt::Debug for BuilderOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BuilderOptions")
            .field("store", &self.store)
            .field("exec_root", &self.exec_root)
            .field("cgroup_parent", &self.cgroup_parent)
            .finish_non_exhaustive()
    }
}

/// An answer that takes its time.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// The world outside of this host, as far as a build needs it.
pub trait Fetch: Send + Sync {
    /// Pulls an image.
    fn image<'a>(
        &'a self,
        reference: &'a str,
        platform: Option<&'a str>,
        credentials: &'a RegistryCredentials,
        progress: ProgressSender,
    ) -> Pending<'a, ImageRecord>;

    /// Downloads what `ADD` names into `to`. The value is the time of the last change, in seconds since the epoch,
    /// when the server says it.
    fn download<'a>(&'a self, url: &'a str, to: File) -> Pending<'a, Option<i64>> {
        drop(to);
        Box::pin(async move { Err(BuildError::invalid(format!("ADD {url}: this builder downloads nothing"))) })
    }
}

/// Nothing outside can be reached: every image must be here.
#[derive(Clone, Copy, Debug)]
pub struct Offline;

impl Fetch for Offline {
    fn image<'a>(
        &'a self,
        reference: &'a str,
        _: Option<&'a str>,
        _: &'a RegistryCredentials,
        _: ProgressSender,
    ) -> Pending<'a, ImageRecord> {
        let message = format!("No such image: {reference}");
        Box::pin(async move { Err(BuildError::new(crate::ErrorKind::NotFound, message)) })
    }
}

/// Gives a command its network: called with the command's ID and the network's name (`default`, or what the
/// request says).
pub type NetworkSource = Arc<dyn Fn(&str, &str) -> io::Result<StepNetwork> + Send + Sync>;

/// The network of one command. Dropped when the command has ended.
pub struct StepNetwork {
    pub namespace: OwnedFd,
    /// The text of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// Own addresses, for `/etc/hosts`.
    pub addresses: Vec<IpAddr>,
    /// Gives back what the network has of this command, by being dropped.
    pub guard: Box<dyn Send>,
}

impl fmt::Debug for StepNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepNetwork").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
