//! Credentials for registries: the configuration and its helpers.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde_json::{Map, Value, json};
use wharf_reference::Reference;

use crate::config::Config;
use crate::failure::Outcome;

/// The name under which Docker Hub's credentials are kept.
pub(crate) const HUB: &str = "https://index.docker.io/v1/";

/// What a registry wants to know.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) identity_token: String,
    pub(crate) server: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    pub(crate) fn json(&self) -> Value {
        let fields = [
            ("username", &self.username),
            ("password", &self.password),
            ("serveraddress", &self.server),
            ("identitytoken", &self.identity_token),
        ];
        let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
        Value::Object(given.map(|(key, value)| (key.to_owned(), json!(value))).collect())
    }

    /// The value of `X-Registry-Auth`.
    pub(crate) fn header(&self) -> String {
        URL_SAFE.encode(self.json().to_string())
    }
}

/// The registry's name in the configuration, for an image's registry.
pub(crate) fn server_of(reference: &Reference) -> &str {
    match reference.domain() {
        "docker.io" => HUB,
        domain => domain,
    }
}

/// The `X-Registry-Auth` for an image.
pub(crate) fn header_for(config: &Config, reference: &Reference) -> String {
    find_if_there(config, server_of(reference)).header()
}

/// The credentials for a registry. Where a helper does not give them, as one that is configured and not installed, there are
/// none, and the registry may want none: as with Docker. That is said.
pub(crate) fn find_if_there(config: &Config, server: &str) -> Credentials {
    find(config, server).unwrap_or_else(|failure| {
        let _ = writeln!(std::io::stderr(), "WARNING: {}", failure.text);
        Credentials::default()
    })
}

/// The `X-Registry-Config` for a build: everything that we have.
pub(crate) fn header_for_all(config: &Config) -> String {
    let all: Map<String, Value> =
        servers(config).into_iter().map(|server| (server.clone(), find_if_there(config, &server).json())).collect();
    URL_SAFE.encode(Value::Object(all).to_string())
}

/// The registries that something is known of.
pub(crate) fn servers(config: &Config) -> Vec<String> {
    let auths = config.content.get("auths").and_then(Value::as_object);
    let mut servers: Vec<String> = auths.into_iter().flatten().map(|(server, _)| server.clone()).collect();
    servers.extend(config.texts("credHelpers").map(|(server, _)| server.to_owned()));
    if let Some(helper) = config.text("credsStore")
        && let Ok(list) = ask(helper, "list", "")
    {
        let list = serde_json::from_str::<Map<String, Value>>(&list).unwrap_or_default();
        servers.extend(list.into_iter().map(|(server, _)| server));
    }
    servers.sort();
    servers.dedup();
    servers
}

/// Credentials of the environment (`DOCKER_AUTH_CONFIG`), in the form of the configuration.
fn environment() -> Option<Config> {
    let text = std::env::var("DOCKER_AUTH_CONFIG").ok().filter(|text| !text.is_empty())?;
    Some(Config { dir: PathBuf::new(), content: serde_json::from_str(&text).ok()? })
}

/// The credentials for a registry; empty ones when there are none.
pub(crate) fn find(config: &Config, server: &str) -> Outcome<Credentials> {
    let given = environment().map(|given| stored(&given, server));
    if let Some(given) = given.filter(|given| *given != Credentials::default()) {
        return Ok(given);
    }
    if let Some(helper) = helper(config, server) {
        let answer = match ask(helper, "get", server) {
            Ok(answer) => answer,
            Err(reason) if reason.contains("credentials not found") => return Ok(Credentials::default()),
            Err(reason) => return Err(format!("error getting credentials - err: {reason}").into()),
        };
        let answer: Value = serde_json::from_str(&answer)?;
        let text = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        let (username, secret) = (text("Username"), text("Secret"));
        let server = server.to_owned();
        return Ok(match username.as_str() {
            "<token>" => Credentials { identity_token: secret, server, ..Credentials::default() },
            _ => Credentials { username, password: secret, server, ..Credentials::default() },
        });
    }
    Ok(stored(config, server))
}

/// The helper that keeps a registry's credentials.
pub(crate) fn helper<'a>(config: &'a Config, server: &str) -> Option<&'a str> {
    let own = config.texts("credHelpers").find(|(name, _)| *name == server || *name == host(server));
    own.map(|(_, helper)| helper).or_else(|| config.text("credsStore"))
}

fn stored(config: &Config, server: &str) -> Credentials {
    let Some(auths) = config.content.get("auths").and_then(Value::as_object) else { return Credentials::default() };
    let entry = auths.get_key_value(server).or_else(|| auths.iter().find(|(name, _)| host(name) == host(server)));
    let Some((name, entry)) = entry else { return Credentials::default() };
    let decoded = entry["auth"].as_str().and_then(|text| STANDARD.decode(text).ok());
    let decoded =
        decoded.map(|bytes| String::from_utf8_lossy(&bytes).trim_matches('\0').to_owned()).unwrap_or_default();
    let (username, password) = decoded.split_once(':').unwrap_or((&decoded, ""));
    let text = |key: &str, fallback: &str| entry[key].as_str().unwrap_or(fallback).to_owned();
    Credentials {
        username: text("username", username),
        password: text("password", password),
        identity_token: text("identitytoken", ""),
        server: name.clone(),
    }
}

/// A server's name without scheme and path.
pub(crate) fn host(server: &str) -> &str {
    let rest = server.strip_prefix("https://").or_else(|| server.strip_prefix("http://")).unwrap_or(server);
    rest.split('/').next().unwrap_or_default()
}

/// Keeps credentials; true when they are in a file now that had others.
pub(crate) fn store(config: &mut Config, credentials: &Credentials) -> Outcome<bool> {
    let server = credentials.server.as_str();
    if let Some(helper) = helper(config, server).map(str::to_owned) {
        let (username, secret) = match credentials.identity_token.as_str() {
            "" => (credentials.username.as_str(), credentials.password.as_str()),
            token => ("<token>", token),
        };
        let entry = json!({"ServerURL": server, "Username": username, "Secret": secret});
        ask(&helper, "store", &entry.to_string())
            .map_err(|reason| format!("error saving credentials: error storing credentials - err: {reason}"))?;
        put(config, server, json!({}));
        config.save()?;
        return Ok(false);
    }
    let mut entry = Map::new();
    let pair = match credentials.identity_token.as_str() {
        "" => format!("{}:{}", credentials.username, credentials.password),
        _ => format!("{}:", credentials.username),
    };
    entry.insert("auth".to_owned(), json!(STANDARD.encode(pair)));
    if !credentials.identity_token.is_empty() {
        entry.insert("identitytoken".to_owned(), json!(credentials.identity_token));
    }
    let before = config.content.get("auths").cloned();
    put(config, server, Value::Object(entry));
    config.save()?;
    Ok(before.as_ref() != config.content.get("auths"))
}

fn put(config: &mut Config, server: &str, entry: Value) {
    let auths = config.content.entry("auths").or_insert_with(|| json!({}));
    if let Some(auths) = auths.as_object_mut() {
        auths.insert(server.to_owned(), entry);
    }
}

/// Forgets credentials.
pub(crate) fn erase(config: &mut Config, server: &str) -> Outcome {
    if let Some(helper) = helper(config, server) {
        match ask(helper, "erase", server) {
            Ok(_) => {}
            Err(reason) if reason.contains("credentials not found") => {}
            Err(reason) => return Err(format!("error erasing credentials - err: {reason}").into()),
        }
    }
    if let Some(auths) = config.content.get_mut("auths").and_then(Value::as_object_mut) {
        auths.retain(|name, _| name != server);
    }
    config.save()
}

/// Runs `docker-credential-HELPER VERB` with the input.
fn ask(helper: &str, verb: &str, input: &str) -> Result<String, String> {
    let program = format!("docker-credential-{helper}");
    let missing = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("exec: \"{program}\": executable file not found in $PATH, out: ``"),
        _ => wharf_report::os(&error),
    };
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(missing)?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(text);
    }
    Err(format!("exit status {}, out: `{text}`", output.status.code().unwrap_or(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_configuration() {
        let content = json!({"auths": {
            HUB: {"auth": STANDARD.encode("me:secret")},
            "https://reg.example.com/v1/": {"auth": STANDARD.encode("you:pass:word")},
        }});
        let config = Config { dir: "/nonexistent".into(), content: content.as_object().unwrap().clone() };
        let hub = find(&config, HUB).unwrap();
        assert_eq!((hub.username.as_str(), hub.password.as_str()), ("me", "secret"));
        assert_eq!(find(&config, "reg.example.com").unwrap().password, "pass:word");
        assert_eq!(find(&config, "other").unwrap(), Credentials::default());
        assert_eq!(Credentials::default().header(), "e30=");
    }
}
