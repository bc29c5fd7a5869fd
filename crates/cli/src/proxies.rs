//! Proxies that the configuration gives to containers and builds.

use serde_json::Value;

use crate::config::Config;

const NAMES: [(&str, &str); 5] = [
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("allProxy", "ALL_PROXY"),
];

/// The variables for an engine, in both cases, without those that are given already.
pub(crate) fn variables(config: &Config, host: &str, given: &[String]) -> Vec<String> {
    let proxies = &config.content.get("proxies").unwrap_or(&Value::Null);
    let table = match proxies.get(host) {
        Some(table) => table,
        None => &proxies["default"],
    };
    let has = |name: &str| given.iter().any(|text| text.split('=').next() == Some(name));
    let mut variables = Vec::new();
    for (key, name) in NAMES {
        let Some(value) = table[key].as_str().filter(|value| !value.is_empty()) else { continue };
        for name in [name.to_owned(), name.to_lowercase()] {
            if !has(&name) {
                variables.push(format!("{name}={value}"));
            }
        }
    }
    variables
}
