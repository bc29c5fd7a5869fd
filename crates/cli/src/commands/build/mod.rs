//! `docker build`, with the classic builder's `POST /build`.

mod agent;
mod attest;
mod cache;
mod call;
mod checkout;
mod context;
mod dockerfile;
mod layout;
mod listing;
mod output;
mod parts;
mod progress;
mod registry_cache;
mod result;
mod scan;
mod sending;
mod verify;

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value as Json, json};
use wharf_client::Request;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::json::text;
use crate::options::{checks, env, secret, ulimit};
use crate::parse::Matches;
use crate::progress::Target;
use crate::{auth, proxies, references, values};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", Arity::Exactly(1), |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(FLAGS);

const FLAGS: &[Flag] = &[
    Flag::list("add-host", "Add a custom host-to-IP mapping (\"host:ip\")").check(checks::extra_host),
    Flag::many(
        "allow",
        "stringArray",
        |_| Ok(()),
        "Allow extra privileged entitlement (e.g., \"network.host\", \"security.insecure\")",
    ),
    Flag::many("annotation", "stringArray", |_| Ok(()), "Add annotation to the image"),
    Flag::many(
        "attest",
        "stringArray",
        attest::check,
        "Attestation parameters (format: \"type=sbom\", \"type=provenance[,mode=max]\")",
    ),
    Flag::list("build-arg", "Set build-time variables").check(checks::env),
    Flag::many(
        "build-context",
        "stringArray",
        parts::check_context,
        "Additional build contexts (e.g., name=path)\nDirectories, repositories of git's, URLs of archives, \
         docker-image://NAME, and oci-layout://DIR[:TAG|@DIGEST]",
    ),
    Flag::text("builder", "Override the configured builder instance: \"default\" is the engine's, and the only one")
        .hidden(),
    Flag::many(
        "cache-from",
        "stringArray",
        cache::check_from,
        "External cache sources (e.g., \"user/app:cache\", \"type=local,src=path/to/dir\", \"type=registry,ref=NAME\")",
    ),
    Flag::many(
        "cache-to",
        "stringArray",
        cache::check_to,
        "Cache export destinations (e.g., \"type=local,dest=path/to/dir[,mode=max]\",\n\"type=registry,ref=NAME[,mode=max]\", \
         \"type=inline\")",
    ),
    Flag::one(
        "call",
        "string",
        call::check_call,
        "Set method for evaluating build (\"check\", \"outline\", \"targets\"); with \",format=json\" as JSON",
    )
    .default("build"),
    Flag::switch("check", "Shorthand for \"--call=check\""),
    Flag::text("cgroup-parent", "Set the parent cgroup for the \"RUN\" instructions during build"),
    Flag::switch("compress", "Compress the build context using gzip"),
    Flag::int("cpu-period", "Limit the CPU CFS (Completely Fair Scheduler) period"),
    Flag::int("cpu-quota", "Limit the CPU CFS (Completely Fair Scheduler) quota"),
    Flag::int("cpu-shares", "CPU shares (relative weight)").short('c'),
    Flag::text("cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag::text("cpuset-mems", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag::switch("debug", "Enable debug logging").short('D').hidden(),
    Flag::switch("disable-content-trust", "Skip image verification").default("true"),
    Flag::text("file", "Name of the Dockerfile (Default is \"PATH/Dockerfile\")").short('f'),
    Flag::switch("force-rm", "Always remove intermediate containers"),
    Flag::text("iidfile", "Write the image ID to the file"),
    Flag::text("isolation", "Container isolation technology"),
    Flag::list("label", "Set metadata for an image").check(checks::label),
    // The image is always in the engine's store: there is nothing to load.
    Flag::switch("load", "Shorthand for --output=type=docker").hidden(),
    Flag::bytes("memory", "Memory limit").short('m'),
    Flag::bytes("memory-swap", "Swap limit equal to memory plus swap: -1 to enable unlimited swap")
        .check(values::check_swap),
    Flag::text("metadata-file", "Write build result metadata to a file"),
    Flag::text("network", "Set the networking mode for the RUN instructions during build").default("default"),
    Flag::switch("no-cache", "Do not use cache when building the image"),
    Flag::strings("no-cache-filter", "Do not cache specified stages"),
    Flag::many(
        "output",
        "stringArray",
        output::check,
        "Output destination (format: \"type=local,dest=path\")\nTypes: local, tar, oci, docker, image, registry",
    )
    .short('o'),
    Flag::strings("platform", "Set target platforms of the build"),
    Flag::one(
        "progress",
        "string",
        progress::check,
        "Set type of progress output (\"auto\", \"quiet\", \"plain\", \"tty\", \"rawjson\")",
    )
    .default("auto"),
    Flag::text("provenance", "Shorthand for \"--attest=type=provenance\""),
    Flag::switch("pull", "Always attempt to pull a newer version of the image"),
    Flag::switch("push", "Shorthand for \"--output=type=registry\""),
    Flag::switch("quiet", "Suppress the build output and print image ID on success").short('q'),
    Flag::switch("rm", "Remove intermediate containers after a successful build").default("true"),
    Flag::text("sbom", "Shorthand for \"--attest=type=sbom\""),
    Flag::many(
        "secret",
        "stringArray",
        secret::check,
        "Secret to expose to the build (format: \"id=mysecret[,src=/local/secret|,env=VARIABLE]\")",
    ),
    Flag::strings("security-opt", "Security options"),
    Flag::bytes("shm-size", "Size of \"/dev/shm\""),
    Flag::switch("squash", "Squash newly built layers into a single new layer"),
    Flag::many(
        "ssh",
        "stringArray",
        agent::check,
        "SSH agent socket to expose to the build (format: \"default|<id>[=<socket>]\")",
    ),
    Flag::list("tag", "Name and optionally a tag in the \"name:tag\" format").short('t').check(check_tag),
    Flag::text("target", "Set the target build stage to build."),
    Flag::many("ulimit", "ulimit", ulimit::check, "Ulimit options").default("[]"),
    Flag::text(verify::FLAG, "Build again, and say what of this image is not the same"),
];

fn check_tag(text: &str) -> Result<(), String> {
    references::parse(text).map(|_| ()).map_err(|failure| failure.text)
}

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    if let Some(builder) = matches.some("builder").filter(|name| *name != "default") {
        return Err(format!("no builder {builder:?} found: the engine builds itself, as builder \"default\"").into());
    }
    let (shown_as, id_file) = (progress::of(matches)?, matches.some("iidfile").map(Path::new));
    let quiet = shown_as == progress::Kind::Quiet;
    if let Some(path) = id_file {
        // A build that fails must not leave the ID of another one.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("removing image ID file: {}", wharf_report::path("remove", path, &error)).into());
            }
            _ => {}
        }
    }
    if let Some((call, format)) = call::of(matches)? {
        let context = context::prepare(matches.argument(0), matches.text("file"), context::keeps_git_dir(matches))?;
        return call::answer(app, matches, &context, call, format).await;
    }
    let outputs = output::of(matches)?;
    let agents = agent::Agents::of(matches)?;
    let parts = parts::Parts::of(matches, &agents)?;
    let to_stdout = outputs.iter().any(output::Output::is_stdout);
    for flag in [
        "secret",
        "ssh",
        "build-context",
        "no-cache-filter",
        "output",
        "allow",
        "annotation",
        "attest",
        "provenance",
        "sbom",
        verify::FLAG,
    ] {
        if matches.changed(flag) {
            app.needs_own_engine(&format!("--{flag}")).await?;
            break;
        }
    }
    if cache::is_asked(matches)? {
        app.needs_own_engine("--cache-to, or --cache-from with a type,").await?;
    }
    let context = context::prepare(matches.argument(0), matches.text("file"), context::keeps_git_dir(matches))?;
    let verified = verify::asked(matches)?;
    let epoch = match verified {
        Some(image) => verify::epoch(app, image).await?,
        None => None,
    };
    cache::give(app, matches, quiet).await?;
    // What is compressed anyway is not worth asking for.
    let listed = context.can_be_listed() && !matches.on("compress") && app.has_own_engine().await?;
    let parts = parts.or_else(|| listed.then(parts::Parts::none));
    let client = app.client().await?;
    let remote = context.remote().map(str::to_owned);
    let (committed, checked_out) = (context.committed(), context.is_checked_out());
    // As buildx has it.
    let own = || std::env::var("SOURCE_DATE_EPOCH").ok().filter(|text| !text.is_empty());
    let epoch = epoch.or_else(own);
    let request = parameters(app, matches, client.post("/build"), epoch.as_deref())?
        .query_if(quiet, "q")
        .query("parent", "0")
        .query_some("remote", remote.as_deref())
        .query_if(checked_out, "checkedout")
        .query_some("committed", committed.map(|seconds| seconds.to_string()).as_deref())
        .query_some("dockerfile", Some(&context.dockerfile).filter(|name| !name.is_empty()))
        .query_some("dockerfilename", context.shown.as_deref())
        .header("x-registry-config", &auth::header_for_all(app.config()));
    let passing = result::passing(matches, &outputs)?;
    let request = request.query_some("passing", passing.as_deref());
    let request =
        outputs.iter().flat_map(output::Output::names).fold(request, |request, name| request.query("t", name));
    let media_type = if parts.is_some() { parts::MEDIA_TYPE } else { "application/x-tar" };
    let _forwarding = agents.forward(client);
    let silent = quiet || to_stdout || remote.is_some() || shown_as == progress::Kind::RawJson;
    let (body, sending) = sending::send(context, parts, matches.on("compress"), silent);
    let response = match request.body(media_type, body).send().await {
        Ok(response) => response,
        Err(error) => {
            // What went wrong on our side explains what the engine did not understand.
            sending.finish().await?;
            return Err(error.into());
        }
    };
    let target = match (quiet, to_stdout) {
        (true, _) => Target::Nowhere,
        (false, true) => Target::Stderr,
        (false, false) => Target::Stdout,
    };
    let mut screen = progress::Shown::new(shown_as, target);
    let (mut made, mut log) = (Vec::new(), String::new());
    let shown = response
        .for_each_json(|message| {
            if let Some(aux) = message.get("aux") {
                if let Some(wanted) = listing::Wanted::of(aux) {
                    sending.ask(wanted);
                    return Ok(());
                }
                if aux["ID"].is_string() {
                    made.push(result::Made::of(aux));
                }
            }
            if quiet {
                log.push_str(text(&message["stream"]));
            }
            screen.message(&message)
        })
        .await;
    sending.finish().await?;
    if let Err(failure) = shown {
        if quiet {
            let _ = std::io::stderr().write_all(log.as_bytes());
        }
        return Err::<u8, Failure>(failure);
    }
    if let Some((image, made)) = verified.zip(made.last()) {
        let same = verify::compare(app, image, made).await?;
        return Ok(u8::from(!same));
    }
    let mut id = made.last().map(|made| made.id.clone()).unwrap_or_default();
    let reference = made.last().map(|made| made.reference.clone()).unwrap_or_default();
    cache::take(app, client, matches, &reference).await?;
    let result = result::Result { made: &made, target, passing: passing.as_deref() };
    result.deliver(app, matches, &outputs).await?;
    if quiet {
        if !to_stdout {
            app.print(&log)?;
        }
        // As Docker writes it to the file: with its newline.
        id = log;
    }
    if let Some(path) = id_file {
        if id.is_empty() {
            return Err(format!("server did not provide an image ID. Cannot write {}", path.display()).into());
        }
        std::fs::write(path, &id).map_err(|error| wharf_report::path("open", path, &error))?;
    }
    Ok(0)
}

/// The flags as the API's parameters; what is at its default is left out.
fn parameters<'a>(app: &App, matches: &Matches, request: Request<'a>, epoch: Option<&str>) -> Outcome<Request<'a>> {
    let mut request = request;
    for tag in matches.all("tag") {
        request = request.query("t", tag);
    }
    for option in matches.all("security-opt") {
        request = request.query("securityopt", option);
    }
    for host in matches.all("add-host") {
        request = request.query("extrahosts", checks::host_and_address(host)?);
    }
    request = request.query_if(!matches.on("no-cache") && matches.changed(verify::FLAG), "nocache");
    request = request.query_if(matches.changed(verify::FLAG), "keepmounts");
    for (flag, key) in [("no-cache", "nocache"), ("pull", "pull"), ("force-rm", "forcerm"), ("squash", "squash")] {
        request = request.query_if(matches.on(flag), key);
    }
    if !matches.on("rm") {
        request = request.query("rm", "0");
    }
    for (flag, key) in [
        ("cpuset-cpus", "cpusetcpus"),
        ("cpuset-mems", "cpusetmems"),
        ("cgroup-parent", "cgroupparent"),
        ("isolation", "isolation"),
        ("target", "target"),
    ] {
        request = request.query_some(key, matches.some(flag));
    }
    for (flag, key) in [("cpu-shares", "cpushares"), ("cpu-quota", "cpuquota"), ("cpu-period", "cpuperiod")] {
        request = request.query_some(key, Some(matches.int(flag)).filter(|value| *value != 0));
    }
    for (flag, key) in [("memory", "memory"), ("memory-swap", "memswap"), ("shm-size", "shmsize")] {
        request = request.query_some(key, Some(matches.bytes(flag)).filter(|value| *value != 0));
    }
    if matches.changed("network") {
        request = request.query("networkmode", matches.text("network"));
    }
    let platform = Some(matches.all("platform").join(",")).filter(|text| !text.is_empty());
    let platform = platform.or_else(|| std::env::var("DOCKER_DEFAULT_PLATFORM").ok().filter(|text| !text.is_empty()));
    request = request.query_some("platform", platform.map(|platform| platform.to_lowercase()));
    let limits: Result<Vec<Json>, String> = matches.all("ulimit").iter().map(|text| ulimit::parse(text)).collect();
    let limits = limits?;
    if !limits.is_empty() {
        request = request.query("ulimits", json!(limits));
    }
    let mut arguments = build_arguments(app, matches)?;
    if let Some(epoch) = epoch {
        arguments.entry("SOURCE_DATE_EPOCH").or_insert_with(|| json!(epoch));
    }
    if !arguments.is_empty() {
        request = request.query("buildargs", Json::Object(arguments));
    }
    if matches.changed("label") {
        request = request.query("labels", Json::Object(env::map(matches.all("label"))));
    }
    if matches.changed("no-cache-filter") {
        request = request.query("nocachefilter", json!(matches.all("no-cache-filter")));
    }
    if matches.changed("allow") {
        request = request.query("allow", json!(matches.all("allow")));
    }
    let stated = attest::of(matches)?;
    let said = [matches.all("annotation"), &output::annotations(matches)].concat();
    for (key, all) in [("annotations", said), ("attestations", stated)] {
        if !all.is_empty() {
            request = request.query(key, json!(all));
        }
    }
    let images = cache::images(matches)?;
    if !images.is_empty() {
        request = request.query("cachefrom", json!(images));
    }
    Ok(request.query("version", "1"))
}

/// The build arguments: a name alone has the value that it has here, or none.
fn build_arguments(app: &App, matches: &Matches) -> Outcome<serde_json::Map<String, Json>> {
    let host = app.endpoint()?.address.to_string();
    let mut given = env::variables(&[], matches.all("build-arg"))?;
    given.extend(proxies::variables(app.config(), &host, matches.all("build-arg")));
    let mut pairs: Vec<(String, Json)> = given
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), json!(value)),
            None => (text.clone(), Json::Null),
        })
        .collect();
    if cache::is_inline(matches)? {
        pairs.push(("BUILDKIT_INLINE_CACHE".to_owned(), json!("1")));
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(pairs.into_iter().collect())
}
