//! Programs that are talked to end with whoever talks to them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::json;

use crate::kit::Daemon;

fn runs(d: &Daemon, words: &str) -> bool {
    let all = d.docker("top here -eo pid,args").ok();
    all.lines().any(|line| line.trim().split_once(' ').is_some_and(|(_, args)| args.trim() == words))
}

#[test]
fn an_interactive_exec_ends_with_its_client() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name here busybox sleep 1000").ok();
    let exec = |words: &[&str]| {
        let mut client = d.client();
        client.arg("exec").args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        client.spawn().unwrap()
    };
    let mut talks = exec(&["-i", "here", "sleep", "2001"]);
    let mut deaf = exec(&["-i", "here", "sh", "-c", "trap '' HUP; exec sleep 2002"]);
    let mut listens = exec(&["here", "sleep", "2003"]);
    for words in ["sleep 2001", "sleep 2002", "sleep 2003"] {
        d.eventually(words, || runs(&d, words));
    }
    // One whose input has ended, and nothing else, goes on.
    let mut ended = exec(&["-i", "here", "sh", "-c", "cat; sleep 1; echo done"]);
    ended.stdin.take().unwrap().write_all(b"in\n").unwrap();
    let mut said = String::new();
    ended.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((said.as_str(), ended.wait().unwrap().code()), ("in\ndone\n", Some(0)));
    for client in [&mut talks, &mut deaf, &mut listens] {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    d.eventually("it has ended with its client", || !runs(&d, "sleep 2001"));
    assert!(runs(&d, "sleep 2003"), "who only listened is not missed");
    d.eventually("who does not hear is killed", || !runs(&d, "sleep 2002"));

    // A terminal is hung up: what a shell has begun there ends, too.
    let body =
        json!({ "AttachStdin": true, "AttachStdout": true, "Tty": true, "Cmd": ["sh", "-c", "sleep 2004; true"] });
    let (_, made) = d.post("/containers/here/exec", &body.to_string(), true).unwrap();
    let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["Id"].as_str().unwrap().to_owned();
    let mut stream = UnixStream::connect(d.socket()).unwrap();
    let start = r#"{"Tty":true}"#;
    let head = "Host: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json";
    write!(stream, "POST /exec/{id}/start HTTP/1.1\r\n{head}\r\nContent-Length: {}\r\n\r\n{start}", start.len())
        .unwrap();
    d.eventually("it runs", || runs(&d, "sleep 2004"));
    drop(stream);
    d.eventually("the terminal was hung up", || !runs(&d, "sleep 2004"));
    d.eventually("it is noted", || d.get(&format!("/exec/{id}/json"))["Running"] == false);
    d.docker("rm -f here").ok();
}

/// What a daemon has started and the next one finds is no stranger there: it can be asked for, and its end is told.
#[test]
fn execs_outlive_the_daemon() {
    let Some(mut d) = Daemon::start() else { return };
    d.docker("run -d --name here busybox sleep 1000").ok();
    let exec = |d: &Daemon, script: &str| {
        let (_, made) =
            d.post("/containers/here/exec", &json!({ "Cmd": ["sh", "-c", script] }).to_string(), true).unwrap();
        let id = serde_json::from_str::<serde_json::Value>(&made).unwrap()["Id"].as_str().unwrap().to_owned();
        assert_eq!(d.post(&format!("/exec/{id}/start"), r#"{"Detach":true}"#, true).unwrap().0, 200);
        id
    };
    let now = exec(&d, "while ! test -e /now; do sleep 0.1; done; exit 5");
    let later = exec(&d, "while ! test -e /later; do sleep 0.1; done; exit 6");
    let pid = d.get("/containers/here/json")["State"]["Pid"].as_i64().unwrap();
    d.kill();
    // While nobody is there.
    let root = std::path::PathBuf::from(format!("/proc/{pid}/root"));
    std::fs::write(root.join("now"), "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    d.launch();
    d.eventually("its end is known", || d.get(&format!("/exec/{now}/json"))["ExitCode"] == 5);
    let found = d.get(&format!("/exec/{later}/json"));
    assert_eq!((&found["Running"], &found["ProcessConfig"]["entrypoint"]), (&true.into(), &"sh".into()), "{found}");
    assert_eq!(d.get("/containers/here/json")["ExecIDs"], json!([later]));
    std::fs::write(root.join("later"), "").unwrap();
    d.eventually("its end is told", || d.get(&format!("/exec/{later}/json"))["ExitCode"] == 6);
    assert_eq!(d.get("/containers/here/json")["ExecIDs"], serde_json::Value::Null);
    let words = "events --since 1h --until 0s --filter event=exec_die --format {{.Actor.Attributes.exitCode}}";
    let mut codes = Vec::new();
    d.eventually("both are told", || {
        codes = d.docker(words).ok().lines().map(str::to_owned).collect();
        codes.len() >= 2
    });
    codes.sort();
    assert_eq!(codes, ["5", "6"]);
    d.docker("rm -f here").ok();
}
