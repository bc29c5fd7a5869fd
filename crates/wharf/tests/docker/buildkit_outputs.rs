//! What buildx takes for an engine whose store has several platforms: images of these, archives, pushes, statements.

use std::process::Command;

use crate::kit::{Daemon, Said};
use crate::plugins::{directory, plugins};
use crate::registries::peer;
use crate::ship::Registry;

pub(crate) fn file_of(archive: &std::path::Path, name: &str) -> serde_json::Value {
    let said = Command::new("tar").args(["-xOf"]).arg(archive).arg(name).output().unwrap();
    serde_json::from_str(&Said::from(said).ok()).unwrap()
}

#[test]
fn several_platforms_are_one_image_and_one_archive() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let files = [("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n"), ("a", "a")];
        let dir = directory(&d, &format!("platforms-{}", plugins.release), &files);
        let name = format!("platforms-{}", plugins.release);
        let both = "--platform linux/amd64,linux/arm64";
        let said = plugins.buildx(&d, &dir, &format!("build {both} -t {name} ."));
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(said.err.contains("[linux/arm64 1/1] COPY a /arm64"), "{}", said.err);
        for architecture in ["amd64", "arm64"] {
            let words = format!("image inspect --platform linux/{architecture} -f {{{{.Architecture}}}} {name}");
            assert_eq!(d.wharf(&words).ok(), architecture);
        }
        // An archive has the name that it is given, and the store has not.
        let said = plugins.buildx(&d, &dir, &format!("build {both} -o type=oci,dest=both.tar -t other/{name} ."));
        assert_eq!(said.code, 0, "{}", said.err);
        let index = file_of(&dir.join("both.tar"), "index.json");
        let annotations = &index["manifests"][0]["annotations"];
        assert_eq!(annotations["io.containerd.image.name"], format!("docker.io/other/{name}:latest"));
        assert_ne!(d.docker(&format!("image inspect other/{name}")).code, 0);
        d.docker(&format!("rmi {name}")).ok();
        let loaded = d.docker(&format!("load -q -i {}", dir.join("both.tar").display())).ok();
        assert!(loaded.contains(&format!("other/{name}:latest")), "{loaded}");
        let said = plugins.buildx(&d, &dir, &format!("build -o type=docker,dest=one.tar -t {name}:1 ."));
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(file_of(&dir.join("one.tar"), "manifest.json")[0]["RepoTags"][0], format!("{name}:1"));
        let said = plugins.buildx(&d, &dir, &format!("build {both} -o out ."));
        assert_eq!(said.code, 0, "{}", said.err);
        assert!(dir.join("out/linux_amd64/amd64").exists() && dir.join("out/linux_arm64/arm64").exists());
    }
}

#[test]
fn images_are_pushed_and_statements_kept() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    for plugins in plugins() {
        let text = format!("FROM busybox\nRUN echo {} > /a\n", plugins.release);
        let dir = directory(&d, &format!("push-{}", plugins.release), &[("Dockerfile", &text)]);
        let name = format!("{}/push:{}", registry.address, plugins.release);
        let said = plugins.buildx(&d, &dir, &format!("build --push --metadata-file meta -t {name} ."));
        assert_eq!(said.code, 0, "{}", said.err);
        let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("meta")).unwrap()).unwrap();
        let digests = d.docker(&format!("inspect -f {{{{.RepoDigests}}}} {name}")).ok();
        assert!(digests.contains(meta["containerimage.digest"].as_str().unwrap()), "{digests} {meta}");
        d.docker(&format!("rmi {name}")).ok();
        let base = format!("FROM {name}\nRUN cat /a\n");
        std::fs::write(dir.join("Dockerfile"), base).unwrap();
        let said = plugins.buildx(&d, &dir, "build .");
        assert!(said.err.contains(&format!(" {}\n", plugins.release)), "{}", said.err);
        let stated = format!("stated-{}", plugins.release);
        let said = plugins.buildx(&d, &dir, &format!("build --provenance=true --sbom=true -t {stated} ."));
        assert_eq!(said.code, 0, "{}", said.err);
        let statements = d.get(&format!("/images/{stated}/attestations"));
        let kinds = statements.to_string();
        assert!(kinds.contains("slsa.dev/provenance") && kinds.contains("spdx.dev/Document"), "{kinds}");
        // What is not there is told by its name, and nothing is built.
        let said = plugins.buildx(&d, &dir, "build --build-context a=oci-layout://nowhere .");
        assert!(said.code != 0 && said.err.contains("nowhere"), "{}", said.err);
    }
}

#[test]
fn credentials_are_asked_of_the_session() {
    let Some(d) = Daemon::start() else { return };
    let Some(registry) = peer(&d) else {
        eprintln!("skipped: there is no docker-registry");
        return;
    };
    for plugins in plugins() {
        let text = format!("FROM busybox\nRUN echo {} > /a\n", plugins.release);
        let dir = directory(&d, &format!("login-{}", plugins.release), &[("Dockerfile", &text)]);
        let name = format!("{}/login:{}", registry.address, plugins.release);
        let push = format!("build --push -t {name} .");
        let said = plugins.buildx(&d, &dir, &push);
        assert!(said.code != 0 && said.err.contains("failed to push"), "{}", said.err);
        // `ann:secret`.
        let config = serde_json::json!({ "auths": { &registry.address: { "auth": "YW5uOnNlY3JldA==" } } });
        std::fs::write(plugins.config(&d).join("config.json"), config.to_string()).unwrap();
        let said = plugins.buildx(&d, &dir, &push);
        assert_eq!(said.code, 0, "{}", said.err);
        d.docker(&format!("rmi {name}")).ok();
        std::fs::write(dir.join("Dockerfile"), format!("FROM {name}\nRUN cat /a\n")).unwrap();
        let said = plugins.buildx(&d, &dir, "build .");
        assert!(said.err.contains(&format!(" {}\n", plugins.release)), "{}", said.err);
    }
}

/// Each makes the same image for its files alone, and the last one takes it away.
#[test]
fn builds_of_the_same_at_once_lose_no_image_to_each_other() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        for round in 0..4 {
            let text = format!("FROM busybox\nRUN echo {}-{round} > /a\n", plugins.release);
            let dir = directory(&d, &format!("same-{}-{round}", plugins.release), &[("Dockerfile", &text)]);
            let builds = (0..4).map(|number| {
                let mut command = plugins.buildx_command(&d, &dir);
                command.args(["build", "-o", &format!("type=tar,dest={number}.tar"), "."]);
                command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap()
            });
            for build in builds.collect::<Vec<_>>() {
                let said = Said::from(build.wait_with_output().unwrap());
                assert_eq!(said.code, 0, "{}", said.err);
            }
            assert_eq!(d.docker("images -aq --filter dangling=true").ok(), "");
        }
    }
}

/// As deep as a path can be: whoever goes through it by recursion is at the end of a thread's stack.
#[test]
fn a_tree_may_be_deep() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox AS made\n\
                RUN mkdir -p /x/$(yes d/ | head -2030 | tr -d '\\n') && touch /x/a.b /x/z\n\
                FROM scratch\nCOPY --from=made /x /\n";
    for plugins in plugins() {
        let dir = directory(&d, &format!("deep-{}", plugins.release), &[("Dockerfile", text)]);
        plugins.buildx(&d, &dir, "build -o out .").ok();
        let names = std::fs::read_dir(dir.join("out")).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<std::collections::BTreeSet<_>>(), ["a.b", "d", "z"].map(Into::into).into());
    }
}
