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
        // As bash takes it apart.
        ("run --restart = un", "unless-stopped"),
        ("run --pull =", "always\nmissing\nnever"),
        ("container kill -s SIGU", "SIGUSR1\nSIGUSR2"),
        ("exec ", "runs"),
        ("start ", "made"),
        ("rm ", "made\nruns"),
        ("run --network h", "host"),
        ("run --cap-add NET_", "NET_ADMIN\nNET_BIND_SERVICE\nNET_BROADCAST\nNET_RAW"),
        ("run --rm -e A=b ", "busybox:latest"),
        ("run --name x busybox ", ""),
        ("exec runs ", ""),
        ("ps --filter st", "status="),
        ("network inspect n", "none"),
    ] {
        let mut client = std::process::Command::new(crate::kit::WHARF);
        client.env("DOCKER_HOST", format!("unix://{}", d.socket().display())).args(["__complete", "--"]);
        let output = client.args(line.split(' ')).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), words, "{line}");
    }
}
