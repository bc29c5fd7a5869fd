//! Several builds at once that need each other: `buildx bake`, `compose build`.

use std::path::Path;

use crate::kit::{Daemon, Said};
use crate::plugins::{Plugins, directory, plugins};

const BAKE: &str = r#"
group "default" { targets = ["app", "other"] }
target "base" { dockerfile = "Dockerfile.base" }
target "app" {
  dockerfile = "Dockerfile.app"
  contexts = { baseapp = "target:base" }
  tags = ["app:1"]
  secret = ["id=s,src=sec"]
}
target "other" {
  dockerfile-inline = "FROM busybox\nCOPY . /ctx\n"
  tags = ["other:1", "other:2"]
  labels = { a = "b" }
}
"#;

#[test]
fn bake_builds_targets_that_build_on_each_other() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let app = "FROM baseapp\nRUN cat /base > /app\nRUN --mount=type=secret,id=s wc -c < /run/secrets/s > /length\n";
        let base = format!("FROM busybox AS base\nRUN echo {} > /base\n", plugins.release);
        let files =
            [("docker-bake.hcl", BAKE), ("Dockerfile.base", &base), ("Dockerfile.app", app), ("sec", "topsecret")];
        let dir = directory(&d, &format!("bake-{}", plugins.release), &files);
        let said = plugins.buildx(&d, &dir, "bake");
        assert_eq!(said.code, 0, "{}", said.err);
        assert_eq!(d.docker("run --rm app:1 cat /app /length").ok(), format!("{}\n9", plugins.release));
        assert_eq!(d.docker("run --rm other:2 ls /ctx").ok(), "Dockerfile.app\nDockerfile.base\ndocker-bake.hcl\nsec");
        assert_eq!(d.docker("inspect -f {{.Config.Labels.a}} other:1").ok(), "b");
        std::fs::write(dir.join("Dockerfile.app"), "FROM baseapp\nRUN exit 7\n").unwrap();
        let said = plugins.buildx(&d, &dir, "bake app");
        assert!(said.code == 1 && said.err.contains("exit code: 7"), "{}", said.err);
    }
}

/// For each platform the target that is another's base is another image.
const PLATFORMS: &str = r#"
target "base" {
  dockerfile-inline = "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n"
  platforms = ["linux/amd64", "linux/arm64"]
}
target "app" {
  dockerfile-inline = "FROM b\nCOPY a /app\n"
  contexts = { b = "target:base" }
  platforms = ["linux/amd64", "linux/arm64"]
  output = ["out"]
}
"#;

#[test]
fn bake_links_targets_of_several_platforms() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let dir = directory(&d, &format!("linked-{}", plugins.release), &[("docker-bake.hcl", PLATFORMS), ("a", "a")]);
        let said = plugins.buildx(&d, &dir, "bake app");
        assert_eq!(said.code, 0, "{}", said.err);
        for architecture in ["amd64", "arm64"] {
            let made = dir.join(format!("out/linux_{architecture}"));
            assert!(made.join(architecture).exists() && made.join("app").exists(), "{}", said.err);
        }
    }
}

#[test]
fn compose_builds_with_buildkit() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let name = format!("wharf-test-{}", plugins.release);
        let file =
            "services:\n  web:\n    build: {context: web, args: {V: one}}\n    image: web\n    command: sleep 300\n";
        let dockerfile = "FROM busybox\nARG V=none\nCOPY f /f\nRUN echo $V > /v\n";
        let files = [("compose.yaml", file), ("web/Dockerfile", dockerfile), ("web/f", "f")];
        let dir = directory(&d, &format!("compose-{}", plugins.release), &files);
        let inline = "services:\n  inline:\n    build:\n      context: .\n      dockerfile_inline: |\n        FROM base\n        \
                      RUN cat /v > /w\n      additional_contexts: {base: \"service:web\"}\n    image: inline\n    command: \
                      sleep 300\n";
        std::fs::write(dir.join("more.yaml"), inline).unwrap();
        let more = plugins.release != "trixie";
        for bake in ["false", "true"] {
            let said = compose(plugins, &d, &dir, &name, bake, "-f compose.yaml build --no-cache");
            assert_eq!(said.code, 0, "{}{}", said.out, said.err);
            assert_eq!(d.docker("run --rm web cat /v").ok(), "one");
            // A service's image as a context is of later versions.
            if more {
                let said = compose(plugins, &d, &dir, &name, bake, "-f compose.yaml -f more.yaml build");
                assert_eq!(said.code, 0, "{}{}", said.out, said.err);
                assert_eq!(d.docker("run --rm inline cat /w").ok(), "one");
            }
            let said = compose(plugins, &d, &dir, &name, bake, "-f compose.yaml up -d --build");
            assert_eq!(said.code, 0, "{}{}", said.out, said.err);
            assert_eq!(d.docker("ps -q").ok().lines().count(), 1);
            let said = compose(plugins, &d, &dir, &name, bake, "-f compose.yaml down -t 0");
            assert_eq!(said.code, 0, "{}{}", said.out, said.err);
        }
        std::fs::write(dir.join("web/Dockerfile"), "FROM busybox\nRUN exit 5\n").unwrap();
        let said = compose(plugins, &d, &dir, &name, "false", "-f compose.yaml build");
        assert!(said.code != 0 && said.err.contains("exit code: 5"), "{}{}", said.out, said.err);
    }
}

fn compose(plugins: &Plugins, d: &Daemon, dir: &Path, name: &str, bake: &str, words: &str) -> Said {
    let mut command = plugins.compose_command(d, dir);
    command.args(["-p", name]).env("COMPOSE_BAKE", bake);
    command.args(words.split_whitespace()).output().unwrap().into()
}
