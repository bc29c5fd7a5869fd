//! The engine itself: ping, version, info, credentials.

use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::json;

use super::{Call, Result};
use crate::auth::AuthConfig;
use crate::http::{Answer, ApiError, ok, read_json, text};
use crate::render::system as render;

pub(super) fn ping(classic: bool) -> Answer {
    let mut answer = text(StatusCode::OK, "OK");
    let headers = answer.headers_mut();
    // BuildKit's protocol, which clients choose that can: the others build as ever.
    headers.insert("Builder-Version", HeaderValue::from_static(if classic { "1" } else { "2" }));
    headers.insert("Swarm", HeaderValue::from_static("inactive"));
    headers.insert("Cache-Control", HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert("Pragma", HeaderValue::from_static("no-cache"));
    answer
}

pub(super) fn version() -> Answer {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    ok(&render::version(kernel.trim()))
}

pub(super) async fn info(call: Call) -> Result {
    let engine = &call.api.engine;
    let info = engine.info().await?;
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let process = render::Process {
        files: count("/proc/self/fd"),
        threads: count("/proc/self/task"),
        listeners: engine.events().listeners(),
    };
    let mut info = render::info(&info, engine.options(), &engine.told(), process, call.version);
    if !call.api.address_pools.is_empty() {
        let pool = |(base, size): &(String, u8)| json!({ "Base": base, "Size": size });
        info["DefaultAddressPools"] = call.api.address_pools.iter().map(pool).collect();
    }
    Ok(ok(&info))
}

pub(super) async fn auth(mut call: Call) -> Result {
    let config: AuthConfig = read_json(&mut call.request, "registry.AuthConfig").await?;
    let server = match config.serveraddress.as_str() {
        "" => "https://index.docker.io/v1/".to_owned(),
        address => address.to_owned(),
    };
    let credentials = config.credentials().ok_or_else(|| ApiError::bad("username and password are required"))?;
    let token = call.api.engine.login(&server, &credentials).await?;
    Ok(ok(&json!({ "Status": "Login Succeeded", "IdentityToken": token })))
}
