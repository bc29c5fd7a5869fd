//! Commands that are programs of their own, as the docker client's own tests have them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::kit::{Said, WHARF};

fn plugin(dir: &Path, name: &str, metadata: &str) {
    let path = dir.join(format!("docker-{name}"));
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{metadata}'; exit; fi\n\
         if [ \"$1\" = __complete ]; then printf '%s\\tdescribed\\nother\\n:4\\nno word\\n' \"$*\"; exit; fi\n\
         echo \"ran with $* for $DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND\"\n"
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_plugin_is_a_command() {
    let dir = tempfile::Builder::new().prefix("wharf-plugins-").tempdir().unwrap();
    let (plugins, config) = (dir.path().join("plugins"), dir.path().join("config"));
    [&plugins, &config].into_iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    let docker = dir.path().join("docker");
    std::os::unix::fs::symlink(WHARF, &docker).unwrap();
    std::fs::write(config.join("config.json"), format!(r#"{{"cliPluginsExtraDirs":[{plugins:?}]}}"#)).unwrap();
    let about = |version: &str, vendor: &str| {
        format!(
            r#"{{"SchemaVersion":"{version}","Vendor":"{vendor}","Version":"7","ShortDescription":"Says what it got"}}"#
        )
    };
    plugin(&plugins, "echoing", &about("0.1.0", "Us"));
    plugin(&plugins, "broken", "{nothing");
    plugin(&plugins, "nobodys", &about("0.1.0", ""));
    plugin(&plugins, "later", &about("2.0.0", "Us"));
    plugin(&plugins, "ps", &about("0.1.0", "Us"));
    let run = |words: &str| {
        let mut docker = Command::new(&docker);
        // Nobody listens there, and nobody has to.
        docker.env("DOCKER_HOST", "unix:///nonexistent.sock").arg("--config").arg(&config);
        Said::from(docker.args(words.split_whitespace()).output().unwrap())
    };
    let given = format!("--config {} ", config.display());
    // It reads the global flags itself, so it is given all of them.
    for words in ["echoing one --two", "-D echoing", "help echoing topic", "--version echoing", "--help echoing"] {
        assert_eq!(run(words).ok(), format!("ran with {given}{words} for {}", docker.display()));
    }
    // What may come next it knows itself.
    assert_eq!(run("__complete -- echoing one __com").ok(), "__complete echoing one __com\n:4");
    assert_eq!(run("__complete -- echoing one o").ok(), "other\n:4");
    assert_eq!(run("__complete -- echo").ok(), "echoing\n:4");
    // What says of itself that it is none does not run.
    for none in ["broken", "nobodys", "later"] {
        let said = run(none);
        assert!(said.code == 1 && said.out.is_empty(), "{}", said.out);
        assert!(said.err.starts_with(&format!("docker: unknown command: docker {none}\n")), "{}", said.err);
        assert_eq!(run(&format!("help {none}")).err, format!("unknown help topic: {none}\n"));
    }
    let help = run("help").ok();
    let (valid, invalid) = help.split_once("\nInvalid Plugins:\n").unwrap();
    assert!(valid.contains("\n  container   Manage containers\n"), "{help}");
    assert!(valid.contains("\n  echoing*    Says what it got\n"), "{help}");
    for line in [
        "  broken      invalid metadata: ",
        "  later       plugin SchemaVersion \"2.0.0\" is not supported",
        "  nobodys     plugin metadata does not define a vendor\n",
        "  ps          plugin \"ps\" duplicates builtin command\n",
    ] {
        assert!(invalid.contains(line), "{help}");
    }
    let shown = run("info --format {{range.ClientInfo.Plugins}}{{.Name}}:{{.Path}};{{end}}").ok();
    assert!(shown.contains(&format!("echoing:{}/docker-echoing;", plugins.display())), "{shown}");
    let said = run("info");
    assert!(said.out.contains(" Plugins:\n  echoing: Says what it got (Us)\n    Version:  7\n    Path:     /"));
    assert!(
        said.err.contains("docker-nobodys\" is not valid: plugin metadata does not define a vendor"),
        "{}",
        said.err
    );
}

#[test]
fn help_and_version_are_for_the_command_that_follows() {
    let dir = tempfile::Builder::new().prefix("wharf-plugins-").tempdir().unwrap();
    let run = |words: &str| {
        let mut wharf = Command::new(WHARF);
        wharf.env("DOCKER_HOST", "unix:///nonexistent.sock").env("DOCKER_CONFIG", dir.path());
        Said::from(wharf.args(words.split_whitespace()).output().unwrap())
    };
    let (root, ps, group) = (run("--help").ok(), run("ps --help").ok(), run("image --help").ok());
    for (words, wanted) in [
        ("--help ps", &ps),
        ("--help nonexistent", &root),
        ("nonexistent --help", &root),
        ("--help image", &group),
        ("image nonexistent --help", &group),
        ("image --help nonexistent", &group),
    ] {
        assert_eq!(&run(words).ok(), wanted, "{words}");
    }
    assert!(run("container --help ls").ok().starts_with("Usage:  wharf container ls [OPTIONS]"));
    assert!(run("image -h nonexistent").ok().starts_with("Flag shorthand -h has been deprecated"));
    assert!(run("--version nonexistent").ok().starts_with("wharf version "));
    assert_eq!(run("--version help ps").ok(), ps);
    assert_eq!(run("help container nope now").err, "unknown help topic: nope now\n");
    assert_eq!(run("help ps nope now").err, "unknown help topic: nope now\n");
    for words in ["version", "context ls", "ps"] {
        let said = run(&format!("-H unix:///a -H unix:///b {words}"));
        assert!(said.code == 125 && said.out.is_empty() && said.err.contains("specify only one -H"), "{}", said.out);
    }
}

#[test]
fn an_engine_by_tcp_is_reached_through_the_environment_s_proxy() {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = std::thread::spawn(move || {
        let mut heads = Vec::new();
        while !heads.iter().any(|head: &String| head.starts_with("CONNECT")) {
            let (mut stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            let body = r#"{"Version":"99.99.9","ApiVersion":"1.41"}"#;
            let body = if head.starts_with("HEAD") { "" } else { body };
            let status = if head.starts_with("CONNECT") { "403 No" } else { "200 OK" };
            let length = body.len();
            let more = "Api-Version: 1.41\r\nConnection: close";
            write!(stream, "HTTP/1.1 {status}\r\n{more}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
            heads.push(head);
        }
        heads
    });
    let dir = tempfile::Builder::new().prefix("wharf-plugins-").tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut wharf = Command::new(WHARF);
        wharf.env("DOCKER_CONFIG", dir.path()).env("http_proxy", format!("http://ann:word@{address}"));
        wharf.env("HTTPS_PROXY", format!("http://{address}")).env("NO_PROXY", "direct.invalid");
        Said::from(wharf.args(words).output().unwrap())
    };
    let version = ["version", "--format", "{{.Server.Version}}"];
    let of = |host: &str, options: &[&str]| run(&[&["-H", host][..], options, &version[..]].concat());
    assert_eq!(of("tcp://docker.acme.invalid:2375", &[]).ok(), "99.99.9");
    // The proxy would have answered.
    assert_ne!(of("tcp://direct.invalid:2375", &[]).code, 0);
    let said = of("tcp://docker.acme.invalid:2376", &["--tls"]);
    assert_ne!(said.code, 0);
    let heads = proxy.join().unwrap();
    assert!(heads[0].starts_with("HEAD http://docker.acme.invalid:2375/_ping HTTP/1.1\r\n"), "{heads:?}");
    assert!(heads[1].starts_with("GET http://docker.acme.invalid:2375/v1.41/version HTTP/1.1\r\n"), "{heads:?}");
    let login = |head: &String| head.to_lowercase().contains("\r\nproxy-authorization: basic yw5uondvcmq=\r\n");
    assert!(heads[..2].iter().all(login), "{heads:?}");
    assert!(heads.last().unwrap().starts_with("CONNECT docker.acme.invalid:2376 HTTP/1.1\r\n"), "{heads:?}");
}
