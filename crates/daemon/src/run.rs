//! The order of start and stop.

use std::ffi::OsString;
use std::net::Ipv6Addr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinSet;
use wharf_build::{Builder, BuilderOptions};
use wharf_engine::etc::ResolvConf;
use wharf_engine::spec::{LogConfig, Ulimit};
use wharf_engine::{Engine, EngineOptions, Parts, Told};
use wharf_image::Images;
use wharf_image::registry::{Client, ClientOptions};
use wharf_monitor::Spawner;
use wharf_network::{Ipv6Net, NetworkOptions, Networks, PublishPolicy};
use wharf_reference::Digest;
use wharf_report::chain;
use wharf_server::Api;
use wharf_snapshot::Layers;
use wharf_store::{Store, StoreError};
use wharf_volume::{Plugins, Volumes};

use crate::crowd::Crowd;
use crate::listen::{self, Accepted, Early, Listener, Place, TcpPolicy, for_metrics, listen, names, place};
use crate::options::Options;
use crate::reload::{Reload, SetLevel, filter};
use crate::take_over::{MAKE_WAY, Running};
use crate::telemetry::Export;
use crate::tls::Tls;
use crate::{activation, budget, exec_root, id_range, outside};

/// How long requests in flight may take when the daemon is told to stop.
const GRACE: Duration = Duration::from_secs(5);

/// Runs until a signal tells it to stop.
///
/// # Errors
/// The message for the user.
pub(crate) fn run(args: &[OsString], options: Options) -> Result<(), String> {
    let set_level = log(&options);
    // Before anything is made that a daemon that cannot be reached would leave behind.
    let tcp = match &options.tls {
        // Without an authority TLS hides what is said, and lets everybody in.
        Some(files) if files.ca.is_some() || options.insecure_tcp => TcpPolicy::Tls(Tls::read(files.clone())?),
        None if options.insecure_tcp => TcpPolicy::Everybody,
        _ => TcpPolicy::Nobody,
    };
    let places = options.hosts.iter().map(|host| place(host, &tcp)).collect::<Result<Vec<_>, _>>()?;
    activation::adopt()?;
    let reload = Reload::new(args, &options, &tcp, set_level);
    for dir in [&options.data_root, &options.exec_root] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    let mut early = Vec::new();
    if options.take_over
        && let Some(running) = Running::of(&options.data_root)?
    {
        // What is wrong with the options is found while the other one is still there.
        engine_options(&options)?;
        network_options(&options, &instance(&options.data_root))?;
        early = listen::early(&places, &options.group)?;
        running.make_way()?;
    }
    // Before anything else of this root is touched: its lock is what keeps two daemons apart.
    let store = Store::open(&options.data_root).map_err(|error| match error {
        StoreError::InUse { .. } => format!("{}; --take-over puts this daemon in its place", chain(&error)),
        _ => chain(&error),
    })?;
    // And this one's keeps apart two that have roots of their own, and would sweep away each other's monitors.
    let _exec_root = exec_root::lock(&options.exec_root)?;
    // While this process has one thread.
    let spawner =
        Spawner::start().map_err(|e| format!("cannot make the process that makes monitors: {}", chain(&e)))?;
    raise_files();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|e| format!("cannot start: {e}"))?;
    let done = runtime.block_on(serve(&options, &places, (&tcp, early), reload, store, Arc::new(spawner)));
    runtime.shutdown_timeout(Duration::from_secs(1));
    match done? {
        End::Told | End::MadeWay => Ok(()),
        End::NoSpawner => Err(again()),
    }
}

/// As many files as the daemon may have: each connection and each container is some. Containers get what there was before,
/// by the process that makes monitors.
fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!("cannot raise the number of files that the daemon may have: {error}");
    }
}

/// Why the daemon ends.
enum End {
    /// By a signal.
    Told,
    /// For another that takes its place.
    MadeWay,
    /// The process that makes monitors was killed, and a process with threads cannot make it again.
    NoSpawner,
}

/// Starts this daemon once more in this same process, as after a crash. Returns when it cannot.
fn again() -> String {
    tracing::error!("the process that starts containers has gone: starting again");
    let mut words = std::env::args_os();
    let name = words.next().unwrap_or_else(|| "wharf".into());
    activation::pass_on();
    let error = std::process::Command::new("/proc/self/exe").arg0(name).args(words).exec();
    format!("cannot start again: {}", wharf_report::os(&error))
}

async fn serve(
    options: &Options,
    places: &[Place],
    (tcp, mut early): (&TcpPolicy, Early),
    reload: Reload,
    store: Store,
    spawner: Arc<Spawner>,
) -> Result<End, String> {
    // By then it has what it reads; until then the signal must not end it.
    let hup = signal(SignalKind::hangup()).map_err(|e| e.to_string())?;
    let instance = instance(&options.data_root);
    let layers = Layers::open_as(store.clone(), options.layers).map_err(|e| chain(&e))?;
    if let Some(why) = layers.no_images() {
        tracing::info!("layers are kept as directories: {why}");
    }
    let (pulls, pushes) = (options.concurrent_downloads, options.concurrent_uploads);
    let images = Images::open_with(store.clone(), layers, pulls, pushes).map_err(|e| chain(&e))?;
    let plugins = match options.plugin_dirs.as_slice() {
        [] => Plugins::default(),
        dirs => Plugins::in_dirs(dirs.to_vec()),
    };
    let volumes = Volumes::open_with(store.clone(), plugins, crate::lookup::system()).map_err(|e| chain(&e))?;
    let networks = {
        // Daemons that start at the same moment would choose the same name and addresses for their bridges.
        let _alone = host_lock();
        Networks::open(store.clone(), network_options(options, &instance)?).map_err(|e| chain(&e))?
    };
    let registry = Client::new(client_options(options)).map_err(|e| chain(&e))?;
    let gone = end_of(spawner.watch().map_err(|e| chain(&e))?);
    let parts = Parts {
        store: store.clone(),
        images: images.clone(),
        networks: networks.clone(),
        volumes,
        spawner: Arc::clone(&spawner),
        registry: registry.clone(),
    };
    let engine = Engine::open(engine_options(options)?, parts).await.map_err(|e| e.to_string())?;
    let builder = Builder::new(
        images,
        spawner,
        BuilderOptions {
            store,
            exec_root: options.exec_root.clone(),
            cgroup_parent: options.cgroup_parent.clone(),
            fetch: Arc::new(outside::Outside { engine: engine.clone(), client: registry.clone() }),
            network: Some(outside::source(engine.clone(), networks.clone())),
        },
    )
    .map_err(|e| chain(&e))?;
    let containers = engine.clone();
    builder.spare_also(move || containers.list().iter().flat_map(|container| container.layers.clone()).collect());
    let cache = builder.clone();
    // A cache that cannot be read pins nothing: its steps are then made again.
    engine.pin_also(move || cache.pinned().unwrap_or_default());
    engine.store().budget().limit(options.storage_max, budget::DataRoot::new(engine.clone(), builder.clone()));
    let export = Export::of_environment();
    let api = Api::new(engine.clone(), builder).traced(export.as_ref().map(|export| export.tracer.clone()));
    let mut listeners = Vec::new();
    let is_open = options.insecure_tcp && options.tls.as_ref().is_none_or(|files| files.ca.is_none());
    let for_all = is_open.then(|| api.clone().open_to_all(names(places, &options.tcp_names)));
    for place in places {
        listeners.extend(listen(place, &options.group, tcp, &mut early)?.into_iter().map(|listener| {
            let by_tcp = for_all.as_ref().filter(|_| matches!(listener, Listener::Tcp(..)));
            (listener, by_tcp.unwrap_or(&api).clone())
        }));
    }
    if options.insecure_tcp && listeners.iter().any(|(listener, _)| matches!(listener, Listener::Tcp(..))) {
        tracing::warn!("the API is open by TCP (--insecure-tcp): whoever reaches it is root on this host");
    }
    let for_metrics = options.metrics_addr.as_deref().map(for_metrics).transpose()?;
    let _pidfile = PidFile::write(&options.pidfile)?;
    engine.start_wanted();
    let addresses: Vec<String> = listeners.iter().map(|(listener, _)| listener.address()).collect();
    tracing::info!("API listen on {}", addresses.join(", "));
    if let Some(listener) = for_metrics {
        tracing::info!("metrics on {}", listener.address());
        listeners.push((listener, api.metrics_only()));
    }
    ready();
    let collecting = engine.clone();
    // What a daemon that was killed left half-way; nobody waits for it.
    tokio::task::spawn_blocking(move || match collecting.collect() {
        Ok(0) => {}
        Ok(freed) => tracing::info!("freed {freed} bytes that nothing needs"),
        Err(error) => tracing::warn!("cannot free what nothing needs: {error}"),
    });
    let end = accept(listeners, gone, hup, || reload.now(&engine, &registry)).await?;
    engine.leave().await.map_err(|e| e.to_string())?;
    if let Some(export) = export {
        export.end().await;
    }
    if matches!(end, End::NoSpawner | End::MadeWay) {
        return Ok(end);
    }
    engine.leave_groups();
    if options.remove_networks {
        tokio::task::spawn_blocking(move || networks.destroy())
            .await
            .map_err(|e| e.to_string())?
            .map_err(|e| chain(&e))?;
    }
    Ok(end)
}

/// What the client of registries is to do.
pub(crate) fn client_options(options: &Options) -> ClientOptions {
    ClientOptions {
        insecure: options.insecure_registries.clone(),
        mirrors: options.mirrors.clone(),
        certs_dirs: options.certs_dirs.clone(),
        proxies: options.proxies.clone(),
        user_agent: format!("wharf/{} (linux)", env!("CARGO_PKG_VERSION")),
        download_attempts: options.download_attempts,
    }
}

/// What `info` tells of the configuration.
pub(crate) fn told(options: &Options) -> Told {
    Told {
        labels: options.labels.clone(),
        hosts: options.hosts.clone(),
        insecure_registries: options.insecure_registries.clone(),
        registry_mirrors: options.mirrors.clone(),
        debug: options.log_level == "debug",
    }
}

/// Tells when a process has ended. A thread waits, which nobody waits for.
fn end_of(pidfd: OwnedFd) -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
        if retry_on_intr(|| poll(&mut fds, None)).is_ok() {
            let _ = sender.send(());
        }
    });
    receiver
}

async fn accept(
    listeners: Vec<(Listener, Api)>,
    mut spawner: oneshot::Receiver<()>,
    mut hup: Signal,
    reload: impl Fn(),
) -> Result<End, String> {
    let mut term = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let mut int = signal(SignalKind::interrupt()).map_err(|e| e.to_string())?;
    let make_way = SignalKind::from_raw(MAKE_WAY.as_raw());
    let mut make_way = signal(make_way).map_err(|e| e.to_string())?;
    let mut accepting = JoinSet::new();
    let crowd = Crowd::default();
    for (listener, api) in listeners {
        let crowd = crowd.clone();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            let room = Arc::new(Semaphore::new(listener.most()));
            let next = async || {
                let place = Arc::clone(&room).acquire_owned().await.map_err(std::io::Error::other)?;
                let accepted = listener.accept().await?;
                Ok::<_, std::io::Error>((accepted, (place, crowd.enter())))
            };
            loop {
                tokio::select! {
                    accepted = next() => match accepted {
                        Ok((Accepted::Local(stream), place)) => {
                            let served = wharf_server::serve_connection(stream, api.clone());
                            connections.spawn(async move {
                                served.await;
                                drop(place);
                            });
                        }
                        Ok((Accepted::Remote(client), place)) => {
                            let served = client.serve(api.clone());
                            connections.spawn(async move {
                                served.await;
                                drop(place);
                            });
                        }
                        Err(error) => {
                            // Out of fds, most likely: others will be closed soon.
                            tracing::warn!("cannot accept a connection: {error}");
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
    }
    let end = loop {
        tokio::select! {
            _ = term.recv() => break End::Told,
            _ = int.recv() => break End::Told,
            _ = make_way.recv() => break End::MadeWay,
            Ok(()) = &mut spawner => break End::NoSpawner,
            Some(()) = hup.recv() => reload(),
        }
    };
    tracing::info!("stopping; containers run on");
    // Connections are cut: what they wait for goes on in the monitors, and a client sees that the daemon has gone.
    let _ = tokio::time::timeout(GRACE, accepting.shutdown()).await;
    Ok(end)
}

fn engine_options(options: &Options) -> Result<EngineOptions, String> {
    Ok(EngineOptions {
        data_root: options.data_root.clone(),
        exec_root: options.exec_root.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        dns: ResolvConf {
            servers: options.dns.clone(),
            search: options.dns_search.clone(),
            options: options.dns_options.clone(),
        },
        log: LogConfig {
            driver: options.log_driver.clone(),
            options: options
                .log_options
                .iter()
                .map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())))
                .collect::<Option<_>>()
                .ok_or("invalid log-opt: give KEY=VALUE")?,
        },
        host_gateways: options.host_gateways.clone(),
        ulimits: options.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
        init: options.init,
        id_range: id_range::id_range(),
        told: told(options),
        shutdown_timeout: options.shutdown_timeout,
    })
}

/// `nofile=1024:2048`.
fn ulimit(text: &str) -> Result<Ulimit, String> {
    let bad = || format!("invalid ulimit '{text}': give NAME=SOFT[:HARD]");
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| text.parse::<i64>().map_err(|_| bad());
    Ok(Ulimit { name: name.into(), soft: number(soft)?, hard: number(hard)? })
}

fn network_options(options: &Options, instance: &str) -> Result<NetworkOptions, String> {
    let (mut pools, mut pools6) = (Vec::new(), Vec::new());
    for (base, size) in &options.pools {
        let invalid = || format!("invalid default address pool '{base}'");
        if base.contains(':') {
            let net: Ipv6Net = base.parse().map_err(|_| invalid())?;
            pools6.push((net, *size));
        } else {
            pools.push((base.parse().map_err(|_| invalid())?, *size));
        }
    }
    if pools6.is_empty() {
        pools6.extend(unique_local(instance).map(|net| (net, UNIQUE_LOCAL_SIZE)));
    }
    let net = |name: &str, text: &Option<String>| {
        let parse = |text: &String| text.parse::<Ipv6Net>().map_err(|e| format!("invalid {name}: {e}"));
        text.as_ref().map(parse).transpose()
    };
    Ok(NetworkOptions {
        bip: options.bip.clone(),
        default_pools: pools,
        default_pools6: pools6,
        ipv6: options.ipv6,
        fixed_cidr_v6: net("fixed-cidr-v6", &options.fixed_cidr_v6)?,
        bip6: net("bip6", &options.bip6)?,
        default_bridge_options: options.bridge_options.clone(),
        mtu: options.mtu.unwrap_or_else(way_out_mtu),
        publish_policy: if options.publish_policy == "host" { PublishPolicy::Host } else { PublishPolicy::Docker },
        instance: instance.into(),
        ip_forward: options.ip_forward,
        bridge: options.bridge.clone(),
        relay: options.userland_proxy.then(|| options.exec_root.clone()),
    })
}

/// Prefix of the networks in [`unique_local`].
const UNIQUE_LOCAL_SIZE: u8 = 64;

/// Where networks with IPv6 get their subnets when nobody says: a /48 that is this host's and this daemon's own
/// (RFC 4193, 3.2), and always the same.
fn unique_local(instance: &str) -> Option<Ipv6Net> {
    let host = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let hex = Digest::sha256(format!("{} {instance}", host.trim()).as_bytes()).hex().to_owned();
    let word = |at: usize| u16::from_str_radix(&hex[at..at + 4], 16).unwrap_or_default();
    let address = Ipv6Addr::new(0xfd00 | word(0) & 0xff, word(4), word(8), 0, 0, 0, 0, 0);
    Ipv6Net::new(address, 48)
}

/// The MTU of the device that the default route leads to: a larger one in the containers would have packets dropped on
/// hosts in clouds, where it is below Ethernet's.
fn way_out_mtu() -> u32 {
    const ETHERNET: u32 = 1500;
    let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
    let mut lines = routes.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let device = lines.find(|fields| fields.get(1) == Some(&"00000000")).and_then(|fields| fields.first().copied());
    let mtu = device.and_then(|name| std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok());
    mtu.and_then(|text| text.trim().parse().ok()).map_or(ETHERNET, |mtu: u32| mtu.min(ETHERNET))
}

/// Keeps the daemons of this host apart while one of them looks for free names and addresses. Where the lock cannot be
/// made they may collide, which the kernel then refuses.
fn host_lock() -> Option<std::fs::File> {
    let file = std::fs::OpenOptions::new().create(true).append(true).open("/run/wharf-networks.lock").ok()?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).ok()?;
    Some(file)
}

/// What marks this daemon's objects in the kernel: another root is another daemon.
fn instance(data_root: &Path) -> String {
    let path = std::fs::canonicalize(data_root).unwrap_or_else(|_| data_root.to_owned());
    Digest::sha256(path.as_os_str().as_encoded_bytes()).hex()[..8].to_owned()
}

/// Begins to log. What is logged can be changed later, but by a second daemon in one process, which is a test's.
fn log(options: &Options) -> Option<SetLevel> {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(&options.log_level)).with_writer(std::io::stderr);
    let builder = builder.with_target(false).with_ansi(false);
    if options.log_json {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        builder.try_init().ok()?;
        return Some(Box::new(move |filter| drop(handle.reload(filter))));
    }
    let builder = builder.with_filter_reloading();
    let handle = builder.reload_handle();
    builder.try_init().ok()?;
    Some(Box::new(move |filter| drop(handle.reload(filter))))
}

/// systemd's readiness protocol, where it started us (sd_notify(3)).
fn ready() {
    if let Some(path) = std::env::var_os("NOTIFY_SOCKET")
        && let Ok(socket) = std::os::unix::net::UnixDatagram::unbound()
    {
        let _ = socket.send_to(b"READY=1\n", path);
    }
}

/// The daemon's number in a file, for scripts; gone when the daemon ends by itself.
struct PidFile<'a>(&'a Path);

impl<'a> PidFile<'a> {
    fn write(path: &'a Path) -> Result<Self, String> {
        let fail = |e: std::io::Error| format!("cannot write {}: {e}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(fail)?;
        }
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".new");
        std::fs::write(&temporary, format!("{}\n", std::process::id())).map_err(fail)?;
        std::fs::rename(&temporary, path).map_err(fail)?;
        Ok(Self(path))
    }
}

impl Drop for PidFile<'_> {
    fn drop(&mut self) {
        // It may be that of the next one by now.
        let own = std::process::id().to_string();
        if std::fs::read_to_string(self.0).is_ok_and(|text| text.trim() == own) {
            let _ = std::fs::remove_file(self.0);
        }
    }
}
