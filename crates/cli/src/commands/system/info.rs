//! `docker info`.

use serde_json::{Value as Json, json};
use wharf_client::ClientError;
use wharf_template::Template;

use crate::app::App;
use crate::auth;
use crate::command::{Arity, Command};
use crate::failure::{Failure, Outcome};
use crate::flag::Flag;
use crate::format::FORMAT;
use crate::json::{array, int, text, texts};
use crate::parse::Matches;
use crate::plugins::{self, Plugin};
use crate::{types, units};

pub(crate) static COMMAND: Command =
    Command::new("[OPTIONS]", "Display system-wide information", Arity::None, |app, matches| {
        Box::pin(run(app, matches))
    })
    .flags(&[Flag::text("format", FORMAT).short('f')]);

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let mut client = super::version::client_json(app);
    client["Debug"] = json!(app.globals.debug);
    let plugins = plugins::all(app);
    client["Plugins"] = plugins.iter().map(Plugin::json).collect();
    client["Warnings"] = Json::Null;
    if let Some(client) = client.as_object_mut() {
        // Not known as long as the engine has not been asked.
        client.remove("ApiVersion");
    }
    let format = match matches.text("format") {
        "json" => "{{json .}}",
        text => text,
    };
    if !format.is_empty() {
        return formatted(app, format, client).await;
    }
    let server = fetch(app).await;
    let output = format!(
        "Client:\n Version:    {}\n Context:    {}\n Debug Mode: {}\n",
        text(&client["Version"]),
        text(&client["Context"]),
        app.globals.debug
    );
    app.print(&(output + &of_plugins(&plugins)))?;
    for plugin in &plugins {
        if let Err(reason) = &plugin.metadata {
            app.complain(&format!("WARNING: Plugin {:?} is not valid: {reason}", plugin.path));
        }
    }
    app.print("\nServer:\n")?;
    if let Ok(info) = &server {
        app.print(&plain(app, info))?;
    }
    match server {
        Ok(info) => {
            texts(&info["Warnings"]).into_iter().for_each(|warning| app.complain(warning));
            Ok(0)
        }
        Err(Silence::Unreachable(failure)) => Err(failure),
        Err(Silence::Refused(failure)) => {
            app.complain(&format!("ERROR: {}", failure.text));
            Err("errors pretty printing info".into())
        }
    }
}

/// The plugins that can be called.
fn of_plugins(plugins: &[Plugin]) -> String {
    let mut report = Report::default();
    if !plugins.is_empty() {
        report.line(" Plugins:");
    }
    for plugin in plugins {
        let Ok(metadata) = &plugin.metadata else { continue };
        report.line(&format!("  {}: {} ({})", plugin.name, metadata.short_description, metadata.vendor));
        report.some("    Version", format!(" {}", metadata.version).trim_end());
        report.field("    Path", format_args!("    {}", plugin.path.display()));
    }
    report.0
}

/// Why there is nothing to say of the engine.
enum Silence {
    /// Nobody answers.
    Unreachable(Failure),
    /// The answer is an error.
    Refused(Failure),
}

async fn fetch(app: &App) -> Result<Json, Silence> {
    let client = app.client().await.map_err(Silence::Unreachable)?;
    let answer = async { client.get("/info").send().await?.json().await };
    answer.await.map_err(|error: ClientError| match error.status() {
        Some(_) => Silence::Refused(error.into()),
        None => Silence::Unreachable(error.into()),
    })
}

async fn formatted(app: &App, format: &str, client: Json) -> Outcome<u8> {
    let template =
        Template::parse(format).map_err(|error| Failure { code: 64, text: format!("template parsing error: {error}") });
    // What only asks for the client must work without an engine.
    let of_client = json!({"ClientInfo": client});
    let enough = template.as_ref().is_ok_and(|template| {
        template.mentions("ClientInfo") && template.execute(&types::info_of_client().view(&of_client)).is_ok()
    });
    let mut unreachable = None;
    let mut info = json!({});
    match if enough { Ok(of_client) } else { fetch(app).await } {
        Ok(server) => info = server,
        Err(Silence::Unreachable(failure)) => unreachable = Some(failure),
        Err(Silence::Refused(failure)) => {
            app.complain(&failure.text);
            info["ServerErrors"] = json!([failure.text]);
        }
    }
    info["ClientInfo"] = client;
    let mut output = String::new();
    let executed = template.and_then(|template| {
        let executed = template.execute_into(&types::info().view(&info), &mut output);
        app.say(&output)?;
        executed.map_err(|error| Failure::new(error.to_string()))
    });
    match (unreachable, executed) {
        (None, executed) => executed.map(|()| 0),
        (Some(unreachable), Ok(())) => Err(unreachable),
        (Some(unreachable), Err(failure)) => {
            Err(Failure { code: failure.code, text: format!("{}\n{}", unreachable.text, failure.text) })
        }
    }
}

/// Lines of the report, each behind its indent.
#[derive(Default)]
struct Report(String);

impl Report {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn field(&mut self, title: &str, value: impl std::fmt::Display) {
        self.line(&format!("{title}: {value}"));
    }

    /// Nothing is said of what is empty.
    fn some(&mut self, title: &str, value: &str) {
        if !value.is_empty() {
            self.field(title, value);
        }
    }
}

fn plain(app: &App, info: &Json) -> String {
    let mut report = Report::default();
    let on = |key: &str| info[key].as_bool().unwrap_or(false);
    report.field(" Containers", int(&info["Containers"]));
    report.field("  Running", int(&info["ContainersRunning"]));
    report.field("  Paused", int(&info["ContainersPaused"]));
    report.field("  Stopped", int(&info["ContainersStopped"]));
    report.field(" Images", int(&info["Images"]));
    report.some(" Server Version", text(&info["ServerVersion"]));
    report.some(" Storage Driver", text(&info["Driver"]));
    for pair in array(&info["DriverStatus"]) {
        report.field(&format!("  {}", text(&pair[0])), text(&pair[1]));
    }
    report.some(" Logging Driver", text(&info["LoggingDriver"]));
    report.some(" Cgroup Driver", text(&info["CgroupDriver"]));
    report.some(" Cgroup Version", text(&info["CgroupVersion"]));
    let plugins = &info["Plugins"];
    report.line(" Plugins:");
    report.field("  Volume", texts(&plugins["Volume"]).join(" "));
    report.field("  Network", texts(&plugins["Network"]).join(" "));
    report.some("  Authorization", &texts(&plugins["Authorization"]).join(" "));
    report.field("  Log", texts(&plugins["Log"]).join(" "));
    section(&mut report, " CDI spec directories:", &texts(&info["CDISpecDirs"]));
    if let Some(devices) = info["DiscoveredDevices"].as_array().filter(|devices| !devices.is_empty()) {
        report.line(" Discovered Devices:");
        for device in devices {
            report.line(&format!("  {}: {}", text(&device["Source"]), text(&device["ID"])));
        }
    }
    report.field(" Swarm", text(&info["Swarm"]["LocalNodeState"]));
    runtimes(&mut report, info);
    security(&mut report, info);
    report.some(" Kernel Version", text(&info["KernelVersion"]));
    report.some(" Operating System", text(&info["OperatingSystem"]));
    report.some(" OSType", text(&info["OSType"]));
    report.some(" Architecture", text(&info["Architecture"]));
    report.field(" CPUs", int(&info["NCPU"]));
    report.field(" Total Memory", units::binary_size(int(&info["MemTotal"]) as f64));
    report.some(" Name", text(&info["Name"]));
    report.some(" ID", text(&info["ID"]));
    report.field(" Docker Root Dir", text(&info["DockerRootDir"]));
    report.field(" Debug Mode", on("Debug"));
    if on("Debug") || app.globals.debug {
        report.field("  File Descriptors", int(&info["NFd"]));
        report.field("  Goroutines", int(&info["NGoroutines"]));
        report.field("  System Time", text(&info["SystemTime"]));
        report.field("  EventsListeners", int(&info["NEventsListener"]));
    }
    report.some(" HTTP Proxy", text(&info["HttpProxy"]));
    report.some(" HTTPS Proxy", text(&info["HttpsProxy"]));
    report.some(" No Proxy", text(&info["NoProxy"]));
    let user = auth::find(app.config(), auth::HUB).map(|found| found.username).unwrap_or_default();
    report.some(" Username", &user);
    section(&mut report, " Labels:", &texts(&info["Labels"]));
    report.field(" Experimental", on("ExperimentalBuild"));
    registries(&mut report, &info["RegistryConfig"]);
    report.field(" Live Restore Enabled", on("LiveRestoreEnabled"));
    report.some(" Product License", text(&info["ProductLicense"]));
    if let Some(pools) = info["DefaultAddressPools"].as_array().filter(|pools| !pools.is_empty()) {
        report.line(" Default Address Pools:");
        for pool in pools {
            report.line(&format!("   Base: {}, Size: {}", text(&pool["Base"]), int(&pool["Size"])));
        }
    }
    if let Some(backend) = info["FirewallBackend"].as_object() {
        report.some(" Firewall Backend", backend.get("Driver").map(text).unwrap_or_default());
    }
    report.line("");
    report.0
}

fn section(report: &mut Report, title: &str, lines: &[&str]) {
    if !lines.is_empty() {
        report.line(title);
        lines.iter().for_each(|line| report.line(&format!("  {line}")));
    }
}

fn runtimes(report: &mut Report, info: &Json) {
    let mut names: Vec<&str> =
        info["Runtimes"].as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    if !names.is_empty() {
        names.sort_unstable();
        report.field(" Runtimes", names.join(" "));
        report.field(" Default Runtime", text(&info["DefaultRuntime"]));
    }
}

fn security(report: &mut Report, info: &Json) {
    if text(&info["OSType"]) != "linux" {
        return;
    }
    report.field(" Init Binary", text(&info["InitBinary"]));
    report.field(" containerd version", text(&info["ContainerdCommit"]["ID"]));
    report.field(" runc version", text(&info["RuncCommit"]["ID"]));
    report.field(" init version", text(&info["InitCommit"]["ID"]));
    let options = texts(&info["SecurityOptions"]);
    if options.is_empty() {
        return;
    }
    report.line(" Security Options:");
    for option in options {
        // `name=seccomp,profile=default`; older engines say only the name.
        let pairs: Vec<(&str, &str)> = option.split(',').filter_map(|part| part.split_once('=')).collect();
        match pairs.iter().find(|(key, _)| *key == "name") {
            Some((_, name)) => report.line(&format!("  {name}")),
            None => report.line(&format!("  {option}")),
        }
        for (_, value) in pairs.iter().filter(|(key, _)| *key == "profile") {
            report.field("   Profile", value);
        }
    }
}

fn registries(report: &mut Report, config: &Json) {
    let insecure = texts(&config["InsecureRegistryCIDRs"]);
    let indexes = config["IndexConfigs"].as_object();
    if !insecure.is_empty() || indexes.is_some_and(|indexes| !indexes.is_empty()) {
        report.line(" Insecure Registries:");
        for (_, index) in indexes.into_iter().flatten() {
            if index["Secure"].as_bool() != Some(true) {
                report.line(&format!("  {}", text(&index["Name"])));
            }
        }
        insecure.iter().for_each(|network| report.line(&format!("  {network}")));
    }
    section(report, " Registry Mirrors:", &texts(&config["Mirrors"]));
}
