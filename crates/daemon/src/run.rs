//! The order of start and stop.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use wharf_build::{Builder, BuilderOptions};
use wharf_engine::etc::ResolvConf;
use wharf_engine::spec::{LogConfig, Ulimit};
use wharf_engine::{Engine, EngineOptions, Parts, Told, common_filter};
use wharf_image::Images;
use wharf_image::registry::{Client, ClientOptions};
use wharf_monitor::Spawner;
use wharf_network::Networks;
use wharf_reference::Digest;
use wharf_report::chain;
use wharf_server::Api;
use wharf_snapshot::Layers;
use wharf_store::{Store, StoreError};
use wharf_volume::{Plugins, Volumes};

use crate::bound::SocketFile;
use crate::crowd::Crowd;
use crate::early::Early;
use crate::listen::{Accepted, Listener, Place, TcpPolicy, for_metrics, listen, names, place};
use crate::networks::network_options;
use crate::options::Options;
use crate::pid_file::PidFile;
use crate::reload::{Reload, SetLevel, filter};
use crate::take_over::{self, Beginning, MAKE_WAY, Predecessor, Running};
use crate::telemetry::Export;
use crate::tls::Tls;
use crate::values::proxy;
use crate::{activation, budget, exec_root, id_range, outside, rootless};

/// So long the cutting of connections may take when the daemon is told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// So long answers that are under way may take when it stops: what is created or started is told, what waits is cut.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

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
    let mut places = options.hosts.iter().map(|host| place(host, &tcp)).collect::<Result<Vec<_>, _>>()?;
    if let Some(address) = &options.metrics_addr {
        places.push(for_metrics(address)?);
    }
    activation::adopt()?;
    let reload = Reload::new(args, &options, &tcp, set_level);
    for dir in [&options.data_root, &options.exec_root] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(dir)
            .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
    }
    let turn = take_over::turn(&options.data_root)?;
    let mut early = Early::default();
    let mut predecessor = None;
    if options.take_over
        && let Some(running) = Running::of(&options.data_root)?
    {
        // What is wrong with the options is found while the other one is still there.
        engine_options(&options)?;
        network_options(&options, &instance(&options.data_root))?;
        Client::new(client_options(&options)).map_err(|e| chain(&e))?;
        running.has_exec_root(&options.exec_root)?;
        PidFile::try_out(&options.pidfile)?;
        early = Early::new(running.sockets()?, &places, &options.group, &tcp)?;
        predecessor = running.make_way()?;
    }
    let (predecessor, guard) = predecessor.unzip();
    let beginning = Beginning::new(guard.flatten());
    let start = || -> Result<End, String> {
        early.settle(&options.group)?;
        // Before anything else of this root is touched: its lock is what keeps two daemons apart.
        let store = Store::open(&options.data_root).map_err(|error| match error {
            StoreError::InUse { .. } => format!("{}; --take-over puts this daemon in its place", chain(&error)),
            _ => chain(&error),
        })?;
        // And this one's keeps apart two that have roots of their own, and would sweep away each other's monitors.
        let _exec_root = exec_root::lock(&options.exec_root)?;
        drop(turn);
        // While this process has one thread.
        let spawner = Spawner::start(Some(&common_filter()))
            .map_err(|e| format!("cannot make the process that makes monitors: {}", chain(&e)))?;
        raise_files();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|e| format!("cannot start: {e}"))?;
        let served = serve(&options, &places, (&tcp, early), reload, store, (Arc::new(spawner), &beginning));
        let done = runtime.block_on(served);
        runtime.shutdown_timeout(Duration::from_secs(1));
        done
    };
    match (start(), predecessor) {
        (Ok(End::Told | End::MadeWay), _) => Ok(()),
        (Ok(End::NoSpawner), _) => Err(again()),
        (Err(error), Some(predecessor)) if !beginning.is_over() => {
            beginning.end();
            Err(back(&error, &predecessor))
        }
        (Err(error), _) => Err(error),
    }
}

/// Starts what this daemon has taken the place of once more in this same process. Returns when it cannot.
fn back(error: &str, predecessor: &Predecessor) -> String {
    tracing::error!("{error}: starting the daemon that was there before");
    lower_files();
    format!("{error}; {}", predecessor.start_again())
}

/// How many files this process might have before it raised that.
static FILES_BEFORE: OnceLock<(Option<u64>, Option<u64>)> = OnceLock::new();

/// For a program that this process becomes: its containers get what there was before, as well.
fn lower_files() {
    if let Some((current, maximum)) = FILES_BEFORE.get() {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: *current, maximum: *maximum });
    }
}

/// As many files as the daemon may have: each connection and each container is some. Containers get what there was before,
/// by the process that makes monitors.
fn raise_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = FILES_BEFORE.set((limit.current, limit.maximum));
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
    rootless::pass_on();
    lower_files();
    let error = std::process::Command::new("/proc/self/exe").arg0(name).args(words).exec();
    format!("cannot start again: {}", wharf_report::os(&error))
}

async fn serve(
    options: &Options,
    places: &[Place],
    (tcp, mut early): (&TcpPolicy, Early),
    reload: Reload,
    store: Store,
    (spawner, beginning): (Arc<Spawner>, &Beginning),
) -> Result<End, String> {
    // By then it has what it reads; until then the signal must not end it.
    let hup = signal(SignalKind::hangup()).map_err(|e| e.to_string())?;
    for name in &options.without_effect {
        tracing::warn!("{name} has no effect here");
    }
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
    let classic = options.features.get("buildkit") == Some(&false);
    let api = Api::new(engine.clone(), builder).with_classic_builder(classic).with_address_pools(&options.pools);
    let api = api.traced(export.as_ref().map(|export| export.tracer.clone()));
    let (mut listeners, mut files) = (Vec::new(), Vec::new());
    let is_open = options.insecure_tcp && options.tls.as_ref().is_none_or(|files| files.ca.is_none());
    let for_all = is_open.then(|| api.clone().open_to_all(names(places, &options.tcp_names)));
    for place in places {
        for (listener, file) in listen(place, &options.group, tcp, &mut early)? {
            files.extend(file);
            let api = match &listener {
                Listener::Unix(_) => api.clone(),
                Listener::Tcp(..) => for_all.as_ref().unwrap_or(&api).clone(),
                Listener::Metrics(_) => api.clone().metrics_only(),
            };
            listeners.push((listener, api));
        }
    }
    if options.insecure_tcp && listeners.iter().any(|(listener, _)| matches!(listener, Listener::Tcp(..))) {
        tracing::warn!("the API is open by TCP (--insecure-tcp): whoever reaches it is root on this host");
    }
    let _pidfile = PidFile::write(&options.pidfile)?;
    engine.start_wanted();
    let (metrics, others): (Vec<_>, Vec<_>) =
        listeners.iter().map(|(listener, _)| listener).partition(|listener| matches!(listener, Listener::Metrics(_)));
    let addresses: Vec<String> = others.iter().map(|listener| listener.address()).collect();
    tracing::info!("API listen on {}", addresses.join(", "));
    for listener in metrics {
        tracing::info!("metrics on {}", listener.address());
    }
    beginning.end();
    ready();
    let collecting = engine.clone();
    // What a daemon that was killed left half-way; nobody waits for it.
    tokio::task::spawn_blocking(move || match collecting.collect() {
        Ok(0) => {}
        Ok(freed) => tracing::info!("freed {freed} bytes that nothing needs"),
        Err(error) => tracing::warn!("cannot free what nothing needs: {error}"),
    });
    let end = accept(listeners, gone, hup, || reload.now(&engine, &registry)).await?;
    if matches!(end, End::MadeWay) {
        files.into_iter().for_each(SocketFile::leave);
    }
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
    let proxies = &options.proxies;
    Told {
        http_proxy: proxy("HTTP_PROXY", proxies.http.as_ref()),
        https_proxy: proxy("HTTPS_PROXY", proxies.https.as_ref()),
        no_proxy: proxy("NO_PROXY", proxies.no_proxy.as_ref()),
        labels: options.labels.clone(),
        hosts: options.hosts.clone(),
        insecure_registries: options.insecure_registries.clone(),
        // As dockerd tells of them.
        registry_mirrors: options.mirrors.iter().map(|mirror| format!("{}/", mirror.trim_end_matches('/'))).collect(),
        debug: options.log_level == "debug",
        rootless: rootless::is_inside(),
        seccomp_profile: options.containers.seccomp.name().to_owned(),
        no_new_privileges: options.containers.no_new_privileges,
        own_cgroupns: options.containers.cgroupns_mode.as_deref() != Some("host"),
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
    let (closing, _) = watch::channel(false);
    for (listener, api) in listeners {
        let (crowd, mut closed) = (crowd.clone(), closing.subscribe());
        let api = api.until(closing.subscribe());
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
                    Ok(()) = closed.changed() => break,
                }
            }
            while connections.join_next().await.is_some() {}
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
    let _ = closing.send(true);
    let answered = async { while accepting.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, answered).await;
    // The other connections are cut: what they wait for goes on in the monitors, and a client sees that the daemon has gone.
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
            asked: false,
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
        cdi_dirs: options.cdi_dirs.clone(),
        ulimits: options.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
        init: options.init,
        // Files cannot be given to other IDs from within a user namespace.
        id_range: if rootless::is_inside() { (0, 0) } else { id_range::id_range() },
        told: told(options),
        defaults: options.containers.clone(),
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
pub(crate) fn log(options: &Options) -> Option<SetLevel> {
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
