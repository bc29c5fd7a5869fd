//! Commands that are programs of their own, as the docker client's own tests have them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::kit::{Said, WHARF};

fn plugin(dir: &Path, name: &str, metadata: &str) {
    let path = dir.join(format!("docker-{name}"));
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{metadata}'; exit; fi\n\
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
        assert!(said.code == 1 && said.out.is_empty() && said.err.contains("Specify only one -H"), "{}", said.out);
    }
}
