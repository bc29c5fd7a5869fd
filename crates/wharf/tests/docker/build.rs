//! Images are built from Dockerfiles.

use crate::kit::Daemon;

fn context(d: &Daemon, files: &[(&str, &str)]) -> String {
    let dir = d.path().join("context");
    std::fs::create_dir_all(&dir).unwrap();
    for (name, text) in files {
        std::fs::write(dir.join(name), text).unwrap();
    }
    dir.to_string_lossy().into_owned()
}

const STAGES: &str = "\
FROM busybox AS one
ARG V=1
RUN mkdir /out && echo $V > /out/v
FROM busybox
ENV X=y
WORKDIR /srv
COPY --from=one /out/ ./
COPY a.txt .
RUN test -f /srv/a.txt
USER web
HEALTHCHECK --interval=1s CMD true
CMD [\"cat\", \"/srv/v\", \"/srv/a.txt\"]
";

#[test]
fn stages_and_the_cache() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, &[("Dockerfile", STAGES), ("a.txt", "content\n")]);
    d.docker(&format!("build -t app --build-arg V=42 {dir}")).ok();
    assert_eq!(d.docker("run --rm app").ok(), "42\ncontent");
    assert_eq!(d.docker("inspect -f {{.Config.User}}{{.Config.WorkingDir}} app").ok(), "web/srv");
    let first = d.docker("images -q --no-trunc app").ok();
    let again = d.docker(&format!("build -t app --build-arg V=42 {dir}")).ok();
    assert!(again.contains("Using cache") && !again.contains("Running in"), "{again}");
    assert_eq!(d.docker("images -q --no-trunc app").ok(), first, "the same input is the same image");
    std::fs::write(format!("{dir}/a.txt"), "other\n").unwrap();
    d.docker(&format!("build -t app --build-arg V=42 {dir}")).ok();
    assert_eq!(d.docker("run --rm app").ok(), "42\nother");
}

#[test]
fn mistakes_are_named_with_their_line() {
    let Some(d) = Daemon::start() else { return };
    let dir =
        context(&d, &[("Dockerfile", "FROM busybox\nRUNN x\n"), ("fails", "FROM busybox\nRUN echo said; exit 3\n")]);
    let said = d.docker(&format!("build {dir}"));
    assert_ne!(said.code, 0);
    assert!(
        said.err.contains("line 2") && said.err.contains("RUNN") && said.err.contains("did you mean RUN?"),
        "{}",
        said.err
    );
    let said = d.docker(&format!("build -f {dir}/fails {dir}"));
    assert_ne!(said.code, 0);
    assert!(said.err.contains("returned a non-zero code: 3") && said.out.contains("said"), "{}{}", said.out, said.err);
    let said = d.docker(&format!("build -f {dir}/none {dir}"));
    assert_ne!(said.code, 0);
}

/// A server that has one file for everybody.
fn serve(content: &'static str) -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = client.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nconnection: close\r\nlast-modified: Wed, 21 Oct 2015 07:28:00 GMT";
            let _ = write!(client, "{head}\r\ncontent-length: {}\r\n\r\n{content}", content.len());
        }
    });
    address
}

#[test]
fn files_of_the_web_are_added() {
    let Some(d) = Daemon::start() else { return };
    let address = serve("from afar\n");
    let text = format!("FROM busybox\nADD http://{address}/dir/name.txt /there/\n");
    let dir = context(&d, &[("Dockerfile", &text)]);
    d.docker(&format!("build -t web {dir}")).ok();
    let script = "cat /there/name.txt; stat -c %a:%Y /there/name.txt";
    let said = d.client().args(["run", "--rm", "web", "sh", "-c", script]).output().unwrap();
    assert_eq!(crate::kit::Said::from(said).ok(), "from afar\n600:1445412480");
    let dir = context(&d, &[("Dockerfile", "FROM busybox\nADD http://127.0.0.1:1/x /\n")]);
    let said = d.docker(&format!("build {dir}"));
    assert!(
        said.code == 1 && said.err.contains("ADD failed") && said.err.contains("connection refused"),
        "{}",
        said.err
    );
}
