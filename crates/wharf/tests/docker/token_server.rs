//! A token service (distribution-spec, "Token Authentication Specification") for Debian's registry: it signs with a key that
//! `openssl` has made.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

pub(crate) const SERVICE: &str = "shelf";
pub(crate) const ISSUER: &str = "tests";

pub(crate) struct TokenServer {
    pub(crate) address: String,
    /// What the registry has to trust.
    pub(crate) certificate: PathBuf,
    /// The scopes that were asked for, with who asked.
    pub(crate) asked: Arc<Mutex<Vec<(String, String)>>>,
}

pub(crate) fn openssl(dir: &Path, line: &str) {
    let output = Command::new("openssl").args(line.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

impl TokenServer {
    /// `ann` with `secret` may do all, everybody may pull what is in `public/`. It ends with the tests.
    pub(crate) fn start(dir: &Path) -> Self {
        openssl(dir, "req -x509 -newkey rsa:2048 -nodes -keyout token.key -out token.crt -days 2 -subj /CN=tokens");
        openssl(dir, "x509 -in token.crt -outform der -out token.der");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self { address, certificate: dir.join("token.crt"), asked: Arc::default() };
        let (asked, dir) = (Arc::clone(&server.asked), dir.to_owned());
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
                let first = lines.next().and_then(Result::ok).unwrap_or_default();
                let Some(target) = first.split(' ').nth(1) else { continue };
                let shown = lines.map_while(Result::ok).take_while(|line| !line.is_empty());
                let shown =
                    shown.filter_map(|line| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned())));
                let shown = shown.filter(|(name, _)| name == "authorization").map(|(_, value)| value).last();
                let user = if shown.as_deref() == Some("Basic YW5uOnNlY3JldA==") { "ann" } else { "" };
                let wrong = shown.is_some() && user.is_empty();
                let scopes: Vec<String> = target
                    .split_once('?')
                    .map_or("", |(_, query)| query)
                    .split('&')
                    .filter_map(|pair| pair.strip_prefix("scope="))
                    .map(|scope| scope.replace("%3A", ":").replace("%2F", "/").replace("%2C", ","))
                    .collect();
                asked.lock().unwrap().extend(scopes.iter().map(|scope| (scope.clone(), user.to_owned())));
                let (status, body) = match wrong {
                    true => ("401 Unauthorized", "{}".to_owned()),
                    false => ("200 OK", json!({ "token": token(&dir, user, &scopes), "expires_in": 300 }).to_string()),
                };
                let length = body.len();
                let _ =
                    write!(client, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            }
        });
        server
    }
}

fn token(dir: &Path, user: &str, scopes: &[String]) -> String {
    let access = scopes.iter().filter_map(|scope| {
        let (kind, rest) = scope.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let allowed = |action: &&str| user == "ann" || (name.starts_with("public/") && *action == "pull");
        let actions: Vec<&str> = actions.split(',').filter(allowed).collect();
        Some(json!({ "type": kind, "name": name, "actions": actions }))
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let certificate = base64(&std::fs::read(dir.join("token.der")).unwrap(), false);
    let head = json!({ "typ": "JWT", "alg": "RS256", "x5c": [certificate] });
    let claims = json!({
        "iss": ISSUER, "sub": user, "aud": SERVICE, "exp": now + 300, "nbf": now - 10, "iat": now, "jti": now.to_string(),
        "access": access.collect::<Vec<_>>(),
    });
    let text = [head, claims].map(|part| base64(part.to_string().as_bytes(), true)).join(".");
    let mut sign = Command::new("openssl");
    sign.args(["dgst", "-sha256", "-sign"]).arg(dir.join("token.key")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut sign = sign.spawn().unwrap();
    sign.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let signature = sign.wait_with_output().unwrap().stdout;
    format!("{text}.{}", base64(&signature, true))
}

/// RFC 4648, in the form for addresses without padding or in the usual one.
fn base64(bytes: &[u8], for_urls: bool) -> String {
    let alphabet: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(if for_urls { ['-', '_'] } else { ['+', '/'] }).collect();
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |all, byte| all << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for at in 0..=chunk.len() {
            text.push(alphabet[(number >> (18 - 6 * at) & 63) as usize]);
        }
        if !for_urls {
            text.push_str(&"=".repeat(3 - chunk.len()));
        }
    }
    text
}
