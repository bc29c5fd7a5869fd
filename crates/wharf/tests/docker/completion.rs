//! The words that a shell is told of.

use crate::kit::Daemon;

#[test]
fn shells_are_told_what_may_come_next() {
    let Some(d) = Daemon::start() else { return };
    d.docker("run -d --name runs busybox sleep 1000").ok();
    d.docker("create --name made busybox true").ok();
    for (line, words) in [
        ("run --restart un", "unless-stopped"),
        ("run --restart=un", "--restart=unless-stopped"),
        ("run --pull=", "--pull=always\n--pull=missing\n--pull=never"),
        ("container kill -s SIGU", "SIGUSR1\nSIGUSR2"),
        ("exec ", "runs"),
        ("start ", "made"),
        ("rm ", "made\nruns"),
        ("run --network h", "host"),
        ("run --cap-add NET_", "NET_ADMIN\nNET_BIND_SERVICE\nNET_BROADCAST\nNET_RAW"),
        ("run --rm -e A=b ", "busybox:latest"),
        ("run --name x busybox ", ""),
        ("exec runs ", ""),
        ("stop runs ", ""),
        ("network inspect n", "none"),
    ] {
        assert_eq!(next(&d, "__complete --", line), format!("{words}\n:4").trim_start(), "{line}");
    }
    // No blank follows, files may come, or both; docker's own scripts ask so.
    for (line, words) in [
        ("ps --filter st", "status=\n:6"),
        ("build -f ", ":0"),
        ("build ", ":0"),
        ("cp r", "runs:\n:2"),
        ("run --env-file=./x", ":0"),
    ] {
        assert_eq!(next(&d, "__completeNoDesc", line), words, "{line}");
    }
}

fn next(d: &Daemon, asked: &str, line: &str) -> String {
    let mut client = std::process::Command::new(crate::kit::WHARF);
    client.env("DOCKER_HOST", format!("unix://{}", d.socket().display())).args(asked.split(' '));
    let output = client.args(line.split(' ')).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}
