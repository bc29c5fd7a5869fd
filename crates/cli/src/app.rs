//! What all commands share: the global flags, the configuration, the engine, the terminal.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use wharf_client::Client;

use crate::autostart;
use crate::config::{self, Config};
use crate::endpoint::{self, Endpoint};
use crate::failure::{Failure, Outcome};
use crate::filters::Filters;
use crate::flag::Flag;
use crate::parse::{Matches, commas};
use crate::visible::{codes, visible, visible_but};

/// The flags before the command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    pub(crate) config: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) debug: bool,
    pub(crate) hosts: Vec<String>,
    pub(crate) tls: bool,
    pub(crate) tls_verify: bool,
    pub(crate) tls_ca: Option<String>,
    pub(crate) tls_cert: Option<String>,
    pub(crate) tls_key: Option<String>,
}

/// One run of the program.
pub(crate) struct App {
    /// `docker` or `wharf`.
    pub(crate) program: String,
    pub(crate) globals: Globals,
    config: OnceCell<Config>,
    client: tokio::sync::OnceCell<Client>,
    endpoint: OnceCell<Endpoint>,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("program", &self.program).field("globals", &self.globals).finish_non_exhaustive()
    }
}

/// `DOCKER_CUSTOM_HEADERS`: `name=value,…`, to be sent with every request.
fn environment_headers() -> Outcome<Vec<(String, String)>> {
    let given = std::env::var("DOCKER_CUSTOM_HEADERS").unwrap_or_default();
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let pair = |field: String| match field.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => {
            Err(format!("failed to parse custom headers from DOCKER_CUSTOM_HEADERS: {field:?} is no name=value").into())
        }
    };
    commas(&given).into_iter().map(pair).collect()
}

/// The flags before the command, as data.
pub(crate) const GLOBALS: &[Flag] = &[
    Flag::text("config", "Location of client config files"),
    Flag::text(
        "context",
        "Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set \
         with \"docker context use\")",
    )
    .short('c'),
    Flag::switch("debug", "Enable debug mode").short('D'),
    Flag::many("host", "string", |_| Ok(()), "Daemon socket to connect to").short('H'),
    Flag::text("log-level", "Set the logging level (\"debug\", \"info\", \"warn\", \"error\", \"fatal\")")
        .short('l')
        .default("info"),
    Flag::switch("tls", "Use TLS; implied by --tlsverify"),
    Flag::text("tlscacert", "Trust certs signed only by this CA"),
    Flag::text("tlscert", "Path to TLS certificate file"),
    Flag::text("tlskey", "Path to TLS key file"),
    Flag::switch("tlsverify", "Use TLS and verify the remote"),
    Flag::switch("version", "Print version information and quit").short('v'),
];

impl Globals {
    pub(crate) fn of(matches: &Matches) -> Self {
        let some = |flag: &str| matches.some(flag).map(str::to_owned);
        let variable = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let tls_verify =
            if matches.changed("tlsverify") { matches.on("tlsverify") } else { variable("DOCKER_TLS_VERIFY") };
        Self {
            config: some("config"),
            context: some("context"),
            debug: matches.on("debug") || variable("DEBUG"),
            hosts: matches.all("host").to_vec(),
            tls: matches.on("tls") || (!matches.changed("tls") && variable("DOCKER_TLS")),
            tls_verify,
            tls_ca: some("tlscacert"),
            tls_cert: some("tlscert"),
            tls_key: some("tlskey"),
        }
    }
}

impl App {
    pub(crate) fn new(program: &str, globals: Globals) -> Self {
        Self {
            program: program.to_owned(),
            globals,
            config: OnceCell::new(),
            client: tokio::sync::OnceCell::new(),
            endpoint: OnceCell::new(),
        }
    }

    /// The user's configuration. One that cannot be read is warned about and taken for empty.
    pub(crate) fn config(&self) -> &Config {
        self.config.get_or_init(|| {
            let dir = self.globals.config.as_ref().map_or_else(config::default_dir, PathBuf::from);
            Config::load(&dir).unwrap_or_else(|failure| {
                self.complain(&format!("WARNING: Error {}", failure.text));
                Config { dir, ..Config::default() }
            })
        })
    }

    /// Where the engine is.
    pub(crate) fn endpoint(&self) -> Outcome<&Endpoint> {
        if self.endpoint.get().is_none() {
            let resolved = endpoint::resolve(&self.globals, self.config()).map_err(|failure| {
                format!("Failed to initialize: unable to resolve docker endpoint: {}", failure.text)
            });
            let _ = self.endpoint.set(resolved?);
        }
        self.endpoint.get().ok_or_else(|| Failure::code(1))
    }

    /// A client that has not said a word yet.
    pub(crate) fn bare_client(&self) -> Outcome<Client> {
        let endpoint = self.endpoint()?;
        let client = Client::new(endpoint.address.clone(), endpoint.tls.as_ref())?;
        let client = client.through(endpoint.proxy()?);
        // As with Docker those of the environment take the place of all, and nobody calls this program something else there.
        let mut headers = environment_headers()?;
        if headers.is_empty() {
            let own = self.config().texts("HttpHeaders").filter(|(name, _)| !name.eq_ignore_ascii_case("user-agent"));
            headers.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        }
        let client = client.with_headers(headers);
        Ok(match std::env::var("DOCKER_API_VERSION") {
            Ok(version) if !version.is_empty() => client.with_version(&version),
            _ => client,
        })
    }

    /// The engine. The first call finds out which version it speaks, and starts a daemon where one is due.
    pub(crate) async fn client(&self) -> Outcome<&Client> {
        self.client
            .get_or_try_init(|| async {
                let client = self.bare_client()?;
                match client.negotiate().await {
                    Err(error) if error.is_unreachable() && self.endpoint()?.is_default => {
                        autostart::start(&client).await?;
                        client.negotiate().await?;
                    }
                    // An engine that refuses the ping may still answer the request; if not, that is what fails, in
                    // the words of the command.
                    Ok(_) | Err(_) => {}
                }
                Ok(client)
            })
            .await
    }

    /// Refuses an engine that is not Wharf's, for a flag that no other knows.
    pub(crate) async fn needs_own_engine(&self, flag: &str) -> Outcome {
        match self.has_own_engine().await? {
            true => Ok(()),
            false => Err(format!("{flag} needs Wharf's own engine, and this is another one").into()),
        }
    }

    /// Whether the engine is Wharf's.
    pub(crate) async fn has_own_engine(&self) -> Outcome<bool> {
        let version: serde_json::Value = self.client().await?.get("/version").send().await?.json().await?;
        Ok(version["Platform"]["Name"].as_str().is_some_and(|name| name.starts_with("Wharf ")))
    }

    /// The filters of a prune, with those that the configuration adds.
    pub(crate) fn prune_filters(&self, given: &Filters) -> Filters {
        let mut filters = given.clone();
        let configured = self.config().content.get("pruneFilters").and_then(serde_json::Value::as_array);
        for text in configured.into_iter().flatten().filter_map(|value| value.as_str()) {
            let Some((key, value)) = text.split_once('=') else { continue };
            // What the command line says of a label wins over the configuration's opposite.
            let opposite = if key == "label" { "label!" } else { "label" };
            if key.starts_with("label") && filters.get(opposite).contains(&value) {
                continue;
            }
            filters.add(key, value);
        }
        filters
    }

    /// The version of the API in use; the newest one before the engine has been asked.
    pub(crate) fn api_version(&self) -> &str {
        self.client.get().map_or(wharf_client::MAX_API_VERSION, Client::version)
    }

    /// Writes to standard output; to a terminal so that it can do nothing there but what the user has asked for.
    pub(crate) fn print(&self, text: &str) -> Outcome {
        if self.shows_terminal() {
            return self.draw(&visible_but(text, &self.own_codes()));
        }
        self.draw(text)
    }

    /// A format of the user's own may have colours in it.
    fn own_codes(&self) -> Vec<String> {
        let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        let configured = self.config().formats().map(str::to_owned);
        words.chain(configured).flat_map(|text| codes(&text)).collect()
    }

    /// Writes to standard output, a terminal's own codes too.
    pub(crate) fn draw(&self, text: &str) -> Outcome {
        let mut output = io::stdout().lock();
        let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
        // A reader that went away has read what it wanted.
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::code(1),
            _ => Failure::new(format!("write /dev/stdout: {}", wharf_report::os(&error))),
        })
    }

    /// Writes a line to standard output.
    pub(crate) fn say(&self, line: &str) -> Outcome {
        self.print(&format!("{line}\n"))
    }

    /// Writes a line to standard error.
    pub(crate) fn complain(&self, line: &str) {
        let _ = writeln!(io::stderr(), "{}", for_stderr(line));
    }

    /// Whether standard output is a terminal.
    pub(crate) fn shows_terminal(&self) -> bool {
        io::stdout().is_terminal()
    }
}

/// What standard error gets: a terminal nothing that it would obey.
pub(crate) fn for_stderr(text: &str) -> Cow<'_, str> {
    if io::stderr().is_terminal() { visible(text) } else { Cow::Borrowed(text) }
}
