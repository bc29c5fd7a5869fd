//! Searches, in an index of our own that speaks the first registry's protocol.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::kit::{Daemon, Said};

/// What the index answers, and what it was asked: the target and the credentials of each request.
struct Index {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

type Asked = (String, Option<String>);

/// `ann` with `secret`.
const BASIC: &str = "Basic YW5uOnNlY3JldA==";

impl Index {
    /// It ends with the tests. `secret/…` is for those who show a password, `broken/…` for nobody.
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let index = Self { address: listener.local_addr().unwrap().to_string(), asked: Arc::default() };
        let asked = Arc::clone(&index.asked);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                let mut lines = BufReader::new(client.try_clone().unwrap()).lines();
                let first = lines.next().and_then(Result::ok).unwrap_or_default();
                let Some(target) = first.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()) else { continue };
                let mut shown = None;
                for line in lines.map_while(Result::ok).take_while(|line| !line.is_empty()) {
                    let (name, value) = line.split_once(": ").unwrap_or_default();
                    if name.eq_ignore_ascii_case("authorization") {
                        shown = Some(value.to_owned());
                    }
                }
                let allowed = !target.contains("q=secret") || shown.as_deref() == Some(BASIC);
                asked.lock().unwrap().push((target.to_owned(), shown));
                let (status, body) = match target {
                    _ if !allowed => ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"", "{}".to_owned()),
                    _ if target.contains("q=broken") => ("200 OK", "<html>".to_owned()),
                    _ if target.contains("q=gone") => ("404 Not Found", "no".to_owned()),
                    _ => ("200 OK", results().to_string()),
                };
                let length = body.len();
                let _ =
                    write!(client, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
            }
        });
        index
    }

    fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn results() -> Value {
    let long = "a description that goes on\nand on, for longer than fits in a column of a table";
    json!({ "num_results": 3, "query": "app", "results": [
        { "name": "app", "description": "The one", "star_count": 1200, "is_official": true, "is_automated": false },
        { "name": "team/app", "description": long, "star_count": 7, "is_official": false, "is_automated": false },
        { "name": "other/app", "description": "", "star_count": 0, "is_official": false, "is_automated": true },
    ]})
}

#[test]
fn an_index_is_searched_as_docker_does() {
    let Some(d) = Daemon::start() else { return };
    let index = Index::start();
    let at = &index.address;
    for wharf in [false, true] {
        let search = |words: &str| {
            if wharf { d.wharf(&format!("search {words}")) } else { d.docker(&format!("search {words}")) }
        };
        let table = search(&format!("{at}/app")).ok();
        let lines: Vec<Vec<&str>> =
            table.lines().map(|line| line.split("  ").map(str::trim).filter(|w| !w.is_empty()).collect()).collect();
        assert_eq!(lines[0], ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
        assert_eq!(lines[1], ["app", "The one", "1200", "[OK]"]);
        assert_eq!(lines[2], ["team/app", "a description that goes on and on, for longe…", "7"]);
        assert_eq!(index.last().0, "/v1/search?q=app&n=25");
        let names = |options: &str| {
            let said = search(&format!("{options} --format {{{{.Name}}}} {at}/app")).ok();
            said.lines().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(names("--limit 3"), ["app", "team/app", "other/app"]);
        assert_eq!(index.last().0, "/v1/search?q=app&n=3");
        assert_eq!(names("-f is-official=true"), ["app"]);
        assert_eq!(names("-f is-official=false"), ["team/app", "other/app"]);
        assert_eq!(names("-f stars=1"), ["app", "team/app"]);
        assert_eq!(names("-f stars=1 -f stars=100"), ["app"]);
        assert_eq!(names("-f is-automated=true"), ["other/app"]);
        assert_eq!(names("-f is-official=false -f stars=8"), [""; 0]);
        let whole = search(&format!("--no-trunc --format {{{{.Description}}}} {at}/team/app")).ok();
        assert!(whole.lines().any(|line| line.ends_with("in a column of a table")), "{whole}");
        assert_eq!(index.last().0, "/v1/search?q=team%2Fapp&n=25");
        for (words, text) in [
            (format!("--limit 101 {at}/app"), "limit 101 is outside the range of [1, 100]"),
            (format!("-f stars=many {at}/app"), "invalid filter 'stars=many'"),
            (format!("-f is-official=perhaps {at}/app"), "invalid filter 'is-official=[perhaps]'"),
            (format!("-f nonsense=1 {at}/app"), "invalid filter 'nonsense'"),
            (format!("https://{at}/app"), "should not have a scheme"),
            (format!("{at}/broken"), "answers a search with what is not understood"),
            (format!("{at}/gone"), "404"),
            (format!("{at}/secret"), "401"),
            ("127.0.0.1:1/app".to_owned(), "connection refused"),
        ] {
            let said: Said = search(&words);
            assert!(said.code == 1 && said.err.contains(text), "{words}: {} {}", said.code, said.err);
        }
    }
    // Who has logged in there shows it, when asked.
    let config = d.path().join("config");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.json"), format!(r#"{{"auths":{{"{at}":{{"auth":"YW5uOnNlY3JldA=="}}}}}}"#))
        .unwrap();
    assert!(d.wharf(&format!("search {at}/secret")).ok().contains("team/app"));
    assert_eq!(index.last().1.as_deref(), Some(BASIC));
    d.wharf(&format!("search {at}/app")).ok();
}
