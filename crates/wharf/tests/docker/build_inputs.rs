//! What a build is given beside a directory, with our own client.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::kit::{Daemon, Said, WHARF};

/// Our client in a directory, with something on its standard input.
fn wharf_with(d: &Daemon, dir: &Path, input: &str, words: &[&str]) -> Said {
    let mut command = Command::new(WHARF);
    command.arg("-H").arg(format!("unix://{}", d.socket().display())).args(words).current_dir(dir);
    command.env("DOCKER_CONFIG", d.path().join("config")).env("TOKEN", "from-the-environment");
    let temporary = d.path().join("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    command.env("TMPDIR", temporary);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever reads nothing closes it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap().into()
}

pub(crate) fn wharf(d: &Daemon, dir: &Path, words: &str) -> Said {
    wharf_with(d, dir, "", &words.split_whitespace().collect::<Vec<_>>())
}

pub(crate) fn files(dir: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

pub(crate) fn context(d: &Daemon, name: &str, given: &[(&str, &str)]) -> PathBuf {
    let dir = d.path().join(name);
    files(&dir, given);
    dir
}

#[test]
fn secrets_and_named_contexts() {
    let Some(d) = Daemon::start() else { return };
    let dockerfile = "FROM base AS one\nRUN --mount=type=secret,id=TOKEN,required=true \
                      --mount=type=secret,id=file,env=FILE \
                      v=$(cat /run/secrets/TOKEN) && test \"${#v} ${#FILE}\" = \"20 9\" && echo good > /good\n\
                      RUN --mount=type=bind,from=src,target=/m cat /m/sub/f > /bound\n\
                      FROM src AS two\nFROM one\nCOPY --from=two sub/f /copied\nCOPY --from=src kept /\n";
    let dir = context(&d, "main", &[("Dockerfile", dockerfile)]);
    let named = [(".dockerignore", "left\n"), ("sub/f", "named"), ("kept", "k"), ("left", "out")];
    context(&d, "named", &named);
    std::fs::write(d.path().join("secret"), "in-a-file").unwrap();
    let words = "build --secret id=TOKEN --secret id=file,src=../secret --build-context src=../named \
                 --build-context base=docker-image://busybox -t app .";
    let said = wharf(&d, &dir, words);
    assert!(said.out.contains("Successfully tagged app:latest"), "{}{}", said.out, said.err);
    assert_eq!(d.docker("run --rm app cat /good /bound /copied /kept").ok(), "good\nnamednamedk");
    let missing =
        wharf(&d, &dir, "build --no-cache --build-context src=../named --build-context base=docker-image://busybox .");
    assert!(missing.code != 0 && missing.err.contains("secret TOKEN: not found"), "{}", missing.err);
    // Nothing of it is on the disk.
    let found =
        Command::new("grep").args(["-rlF", "--binary-files=text", "from-the-environment"]).arg(d.data()).output();
    assert_eq!(String::from_utf8_lossy(&found.unwrap().stdout), "");
    // Only what is asked for is made again.
    let again = wharf(&d, &dir, &format!("{} --no-cache-filter two", words.replace("-t app", "-t again"))).ok();
    assert!(again.contains("Using cache") && !again.contains("Running in"), "{again}");
    let again = wharf(&d, &dir, &format!("{words} --no-cache-filter ONE")).ok();
    assert_eq!(again.matches("Running in").count(), 2, "{again}");
    let wrong = wharf(&d, &dir, &format!("{words} --no-cache-filter on"));
    let told = "[Warning] no-cache-filter: there is no stage \"on\" (did you mean one?)";
    assert!(wrong.code == 0 && wrong.out.contains(told), "{}", wrong.out);
    for bad in ["src", "src=../nowhere", "src=oci-layout://x", "src=git://x/y#-z"] {
        let said = wharf(&d, &dir, &format!("build --build-context {bad} ."));
        assert!(said.code != 0 && !said.err.is_empty(), "{bad}");
    }
}

#[test]
fn a_dockerfile_has_its_own_ignore_file() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox\nCOPY . /c/\nRUN ls /c > /list\n";
    let dir = context(
        &d,
        "ignored/in",
        &[
            (".dockerignore", "b\n"),
            ("x.Dockerfile", text),
            ("x.Dockerfile.dockerignore", "a\n*ockerfile*\n"),
            ("a", ""),
            ("b", ""),
        ],
    );
    context(&d, "ignored", &[("y", text), ("y.dockerignore", "b\n*ockerfile*\n")]);
    wharf(&d, &dir, "build -f x.Dockerfile -t x .").ok();
    assert_eq!(d.docker("run --rm x cat /list").ok(), "b");
    wharf(&d, &dir, "build -f ../y -t y .").ok();
    assert_eq!(d.docker("run --rm y cat /list").ok(), "a");
    wharf_with(&d, &dir, text, &["build", "-f", "-", "-t", "z", "."]).ok();
    assert_eq!(d.docker("run --rm z cat /list").ok(), "a\nx.Dockerfile\nx.Dockerfile.dockerignore");
    wharf_with(&d, &dir, "FROM busybox\nRUN echo alone > /x\n", &["build", "-t", "w", "-"]).ok();
    assert_eq!(d.docker("run --rm w cat /x").ok(), "alone");
    // What is wrong in it is said with the name that the user knows it by.
    let wrong = "FROM busybox\nRUN false\n";
    files(dir.parent().unwrap(), &[("Wrong", wrong)]);
    let said = wharf(&d, &dir, "build -f ../Wrong .");
    assert!(said.code == 1 && said.out.contains("\nWrong:2\n"), "{}{}", said.out, said.err);
    let said = wharf_with(&d, &dir, wrong, &["build", "-f", "-", "."]);
    assert!(said.code == 1 && said.out.contains("\nDockerfile:2\n"), "{}{}", said.out, said.err);
    assert!(!d.wharf("build history ls").ok().contains(".dockerfile."));
}

/// A server of files: git can fetch from one, after `git update-server-info`.
pub(crate) fn serve(root: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Ends with the test's process.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = [0; 4096];
            let count = stream.read(&mut head).unwrap_or(0);
            let head = String::from_utf8_lossy(&head[..count]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or("/").split('?').next().unwrap().trim_start_matches('/');
            let (status, body) = match std::fs::read(root.join(path)) {
                Ok(body) => ("200 OK", body),
                Err(_) => ("404 Not Found", Vec::new()),
            };
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = stream.write_all(&body);
        }
    });
    port
}

#[test]
fn repositories_are_contexts_and_sources() {
    let Some(d) = Daemon::start() else { return };
    let repository = d.path().join("served/r");
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command.arg("-C").arg(&repository).args(["-c", "user.name=n", "-c", "user.email=e"]).args(words);
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_COMMITTER_DATE", "@1700000000 +0000");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("skipped: there is no git");
        return;
    }
    files(
        &repository,
        &[("d/f", "one"), ("d/Dockerfile", "FROM busybox\nCOPY . /c/\nRUN cat /c/f > /f\n"), ("top", "t")],
    );
    std::os::unix::fs::symlink("/etc", repository.join("out")).unwrap();
    git(&["init", "-q", "-b", "main"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "1"]);
    git(&["tag", "-a", "v1", "-m", "v1"]);
    files(&repository, &[("d/f", "two")]);
    git(&["commit", "-q", "-a", "-m", "2"]);
    git(&["update-server-info"]);
    let (first, last) = (git(&["rev-parse", "v1^{commit}"]), git(&["rev-parse", "HEAD"]));
    let address = format!("http://127.0.0.1:{}/r/.git", serve(d.path().join("served")));
    let dir = context(&d, "main", &[("x", "")]);
    for (fragment, content) in
        [("#main:d", "two"), ("#v1:d", "one"), (&format!("?ref={first}&subdir=d"), "one"), ("#:d", "two")]
    {
        let said = wharf(&d, &dir, &format!("build -t git {address}{fragment}"));
        assert_eq!(said.code, 0, "{fragment}: {}{}", said.out, said.err);
        assert_eq!(d.docker("run --rm git cat /f").ok(), content, "{fragment}");
    }
    assert_eq!(d.docker("run --rm git ls -a /c").ok(), ".\n..\nDockerfile\nf");
    // As old as their commit in the layers, and here as new as their checkout: what compares times takes them for new.
    let is_new = |image: &str, path: &str| {
        let time: u64 = d.docker(&format!("run --rm {image} stat -c %Y {path}")).ok().parse().unwrap();
        time > 1_700_000_000
    };
    assert!(is_new("git", "/c/f"));
    wharf(&d, &dir, &format!("build -o type=tar,dest=files.tar {address}#main:d")).ok();
    let list = Command::new("tar").args(["--utc", "-tvf", "files.tar"]).current_dir(&dir).output().unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.lines().any(|line| line.contains("2023-11-14") && line.ends_with("c/f")), "{list}");
    for (fragment, message) in [
        ("#nope:d", "couldn't find remote ref nope"),
        ("#main:nope", "it has no directory \"nope\""),
        ("#main:out", "it has no directory \"out\""),
        ("#main:../x", "leads out"),
        ("#--upload-pack=touch", "is no name of a branch"),
    ] {
        let said = wharf(&d, &dir, &format!("build {address}{fragment}"));
        assert!(said.code != 0 && said.err.contains(message), "{fragment}: {}", said.err);
    }
    // The same by the API, where the engine gets it, and as a source.
    let remote = format!("{address}#v1:d").replace('#', "%23").replace(':', "%3A");
    let (status, body) = d.post(&format!("/v1.41/build?t=api&remote={remote}"), "", true).unwrap();
    assert!(status == 200 && body.contains("Successfully tagged api:latest"), "{body}");
    assert_eq!(d.docker("run --rm api cat /f").ok(), "one");
    let text = format!(
        "FROM busybox\nADD {address}#main:d /src/\nADD --keep-git-dir --checksum={first} {address}#v1 /all/\n\
         COPY --from=named top /named\nRUN cat /src/f /all/d/f > /f && test -e /all/.git/refs/tags/v1 && test ! -e /src/.git\n"
    );
    let dir = context(&d, "add", &[("Dockerfile", &text)]);
    let said = wharf(&d, &dir, &format!("build -t add --build-context named={address} ."));
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert_eq!(d.docker("run --rm add cat /f /named").ok(), "twoonet");
    assert!(is_new("add", "/src/f") && is_new("api", "/c/f"));
    let again = wharf(&d, &dir, &format!("build --build-context named={address} .")).ok();
    assert_eq!(again.matches("Using cache").count(), 4, "{again}");
    let tag = git(&["rev-parse", "v1"]);
    files(&dir, &[("Dockerfile", &format!("FROM busybox\nADD --checksum={tag} {address}#v1 /all/\n"))]);
    assert_eq!(wharf(&d, &dir, "build .").code, 0, "the tag's own name");
    files(&dir, &[("Dockerfile", &format!("FROM busybox\nADD --checksum={last} {address}#v1 /all/\n"))]);
    let wrong = wharf(&d, &dir, "build .");
    assert!(wrong.err.contains(&format!("expected checksum to match {last}, got {first}")), "{}", wrong.err);
    let left = std::fs::read_dir(d.path().join("tmp")).unwrap().count();
    assert_eq!(left, 0, "checkouts are removed");
}

#[test]
fn commands_ask_the_users_ssh_agent() {
    let Some(d) = Daemon::start() else { return };
    // One that answers each question with itself, in capitals.
    let socket = d.path().join("agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Our program asks over one connection whether an engine is there, and goes on over another.
            std::thread::spawn(move || {
                let mut bytes = [0; 64];
                while let Ok(count @ 1..) = stream.read(&mut bytes) {
                    let _ = stream.write_all(&bytes[..count].to_ascii_uppercase());
                }
            });
        }
    });
    // The only program here that speaks with a socket, and needs no libraries.
    let ask = "echo question | /w/wharf -H unix://$SSH_AUTH_SOCK system dial-stdio";
    let mounts = "--mount=type=ssh,required=true --mount=type=ssh,id=other,mode=0666 --mount=type=bind,target=/w";
    let text = format!(
        "FROM busybox\nRUN {mounts} {ask} > /one && {ask} > /two && ls -l /run/buildkit > /list\nRUN test ! -e \
         /run/buildkit/ssh_agent.0\n"
    );
    let dir = context(&d, "main", &[("Dockerfile", &text)]);
    std::fs::copy(WHARF, dir.join("wharf")).unwrap();
    let words = format!("build --ssh default={0} --ssh other={0} -t asked .", socket.display());
    let said = wharf(&d, &dir, &words);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert_eq!(d.docker("run --rm asked cat /one /two").ok(), "QUESTION\nQUESTION");
    let list = d.docker("run --rm asked cat /list").ok();
    assert!(list.contains("srw-------") && list.contains("srw-rw-rw-"), "{list}");
    let none = wharf(&d, &dir, "build --no-cache .");
    assert!(
        none.code != 0 && none.err.contains("the request gives no SSH agent default (--ssh default)"),
        "{}",
        none.err
    );
    let file = wharf(&d, &dir, "build --ssh default=Dockerfile .");
    assert!(file.err.contains("is not the socket of an SSH agent"), "{}", file.err);
}
