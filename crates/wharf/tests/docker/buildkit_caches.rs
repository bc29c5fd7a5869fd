//! What goes to and comes from content stores and registries by BuildKit's protocol: caches, images by their digests, layouts.

use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use crate::kit::{Daemon, Said};
use crate::plugins::{directory, plugins};
use crate::ship::Registry;

/// A step that says when it is made, and is another one for each release.
fn dockerfile(release: &str) -> String {
    format!(
        "FROM busybox AS aside\nRUN echo made-aside-{release} > /b\nFROM busybox\nRUN echo made-main-{release} > /a\nCOPY \
         --from=aside /b /b\n"
    )
}

fn ok(said: Said) -> Said {
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    said
}

fn forget(d: &Daemon) {
    d.docker("image prune -af").ok();
    d.wharf("builder prune -af").ok();
}

fn index(dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dir.join("index.json")).unwrap()).unwrap()
}

#[test]
fn caches_go_to_directories_and_registries_and_come_back() {
    let Some(d) = Daemon::start() else { return };
    d.docker("tag busybox keep:1").ok();
    d.docker("create --name keeper keep:1 true").ok();
    let registry = Registry::start(&d);
    for plugins in plugins() {
        let release = &plugins.release;
        let dir = directory(&d, &format!("cache-{release}"), &[("Dockerfile", &dockerfile(release))]);
        let cached = |said: &Said| said.err.matches("CACHED").count();
        let name = format!("{}/cache:{release}", registry.address);
        for (number, (to, from, steps)) in [
            ("type=local,dest=c1,mode=max".to_owned(), "type=local,src=c1".to_owned(), 3),
            ("type=local,dest=c2,mode=max,compression=zstd,tag=v2".into(), "type=local,src=c2,tag=v2".into(), 3),
            ("type=local,dest=c3,mode=max,image-manifest=false".into(), "type=local,src=c3".into(), 3),
            (format!("type=registry,ref={name},mode=max"), format!("type=registry,ref={name}"), 3),
            (format!("type=registry,ref={name}-min"), format!("type=registry,ref={name}-min"), 2),
        ]
        .into_iter()
        .enumerate()
        {
            let said = ok(plugins.buildx(&d, &dir, &format!("build --no-cache --cache-to {to} -t out:{number} .")));
            assert!(said.err.contains("exporting cache to "), "{}", said.err);
            let id = d.docker(&format!("inspect -f {{{{.Id}}}} out:{number}")).ok();
            forget(&d);
            let said = ok(plugins.buildx(&d, &dir, &format!("build --cache-from {from} -t out:{number} .")));
            assert!(said.err.contains("importing cache manifest from"), "{}", said.err);
            assert!(cached(&said) >= steps, "{from}: {}", said.err);
            // Also of `mode=min`, which has not what the other stage made.
            assert_eq!(d.docker(&format!("inspect -f {{{{.Id}}}} out:{number}")).ok(), id, "{from}");
            forget(&d);
        }
        let manifest = index(&dir.join("c3"))["manifests"][0]["mediaType"].to_string();
        assert!(manifest.contains("image.index"), "{manifest}");
        // In the image, which is pulled from its registry.
        let image = format!("{}/inline:{release}", registry.address);
        ok(plugins.buildx(&d, &dir, &format!("build --no-cache --push --cache-to type=inline -t {image} .")));
        forget(&d);
        let said = ok(plugins.buildx(&d, &dir, &format!("build --cache-from type=registry,ref={image} .")));
        assert!(cached(&said) >= 2, "{}", said.err);
        forget(&d);
        // What cannot be had is told of, and made; what cannot be done is refused by name.
        let missing = format!("build --cache-from type=registry,ref={}/none:1 .", registry.address);
        let said = ok(plugins.buildx(&d, &dir, &missing));
        assert!(said.err.contains("ERROR") && cached(&said) == 0, "{}", said.err);
        // buildx leaves out what the engine does not say that it can; what it sends all the same is refused by name.
        for kind in ["gha", "azblob"] {
            let mut command = plugins.buildx_command(&d, &dir);
            command.env("ACTIONS_RUNTIME_TOKEN", "x").env("ACTIONS_CACHE_URL", "http://127.0.0.1:1/");
            let cache = format!("type={kind},account_url=http://127.0.0.1:1,name=x,secret_access_key=x");
            let said = Said::from(command.args(["build", "--cache-to", &cache, "."]).output().unwrap());
            let refused = format!("{kind:?} are not supported");
            assert!(said.code == 0 || said.err.contains(&refused), "{kind}: {}", said.err);
        }
        // An export that fails is the build's failure, unless that is not wanted.
        let nowhere = "type=registry,ref=127.0.0.1:1/x";
        let said = plugins.buildx(&d, &dir, &format!("build --cache-to {nowhere} ."));
        assert!(said.code != 0 && said.err.contains("error writing cache"), "{}", said.err);
        ok(plugins.buildx(&d, &dir, &format!("build --cache-to {nowhere},ignore-error=true .")));
        forget(&d);
        assert!(
            std::fs::read_dir(d.path().join("data/build"))
                .unwrap()
                .flatten()
                .all(|entry| { !entry.file_name().to_string_lossy().starts_with("b-") })
        );
    }
}

/// buildx itself refuses this where it takes the engine for Docker's; clients with sessions of their own ask for it so.
#[test]
fn images_go_by_their_digests_alone_and_are_put_together() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let connect = || std::os::unix::net::UnixStream::connect(d.socket()).unwrap();
    let mut session = connect();
    let head = "POST /session HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nX-Docker-Expose-Session-Uuid: \
                mine\r\n\r\n";
    session.write_all(head.as_bytes()).unwrap();
    session.read_exact(&mut [0; 12]).unwrap();
    let text = "FROM scratch\nARG TARGETARCH\nCOPY a /$TARGETARCH\n";
    let dir = directory(&d, "digest", &[("Dockerfile", text), ("a", "a")]);
    let archive = Command::new("tar").arg("-C").arg(&dir).args(["-c", "."]).output().unwrap().stdout;
    let build = |attributes: serde_json::Value, query: &str| {
        let outputs = serde_json::json!([{ "Type": "image", "Attrs": attributes }]).to_string();
        let outputs: String = outputs.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let mut stream = connect();
        let head = format!(
            "POST /build?version=2&session=mine&outputs={outputs}&{query} HTTP/1.1\r\nHost: d\r\nConnection: \
             close\r\nContent-Length: {}\r\n\r\n",
            archive.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&archive).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
    };
    let name = format!("{}/multi", registry.address);
    let by_digest = |name: &str, query: &str| {
        let attributes = serde_json::json!({
            "push": "true", "push-by-digest": "true", "name-canonical": "true", "name": name,
        });
        build(attributes, query)
    };
    let mut seen: Vec<String> = Vec::new();
    let mut digest = |query: &str| {
        let said = by_digest(&name, query);
        let (_, rest) = said.split_once("{\"ID\":\"").unwrap_or_else(|| panic!("{said}"));
        let id = rest.split('"').next().unwrap();
        let image = d.get(&format!("/images/{id}/json"));
        let digests = image["RepoDigests"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
        let mut digests = digests.map(|name| name.split_once('@').unwrap().1.to_owned());
        let digest = digests.find(|digest| !seen.contains(digest)).unwrap_or_else(|| panic!("{said}"));
        seen.push(digest.clone());
        digest
    };
    let (one, other) = (digest("platform=linux/amd64"), digest("platform=linux/arm64"));
    let several = digest("platform=linux/amd64,linux/arm64");
    assert!(one != other && several != one && several != other);
    // By no tag, neither here nor there.
    assert_ne!(d.docker(&format!("inspect {name}")).code, 0);
    for plugins in plugins() {
        ok(plugins.buildx(&d, &dir, &format!("imagetools create -t {name}:1 {name}@{one} {name}@{other}")));
        let said = ok(plugins.buildx(&d, &dir, &format!("imagetools inspect {name}:1")));
        assert!(said.out.contains("linux/amd64") && said.out.contains("linux/arm64"), "{}", said.out);
        let said = ok(plugins.buildx(&d, &dir, &format!("imagetools inspect --raw {name}@{several}")));
        assert!(said.out.contains(&one) && said.out.contains(&other), "{}", said.out);
        // Layers in another form.
        let zstd = "type=image,push=true,compression=zstd,force-compression=true";
        ok(plugins.buildx(&d, &dir, &format!("build -o {zstd} --metadata-file meta -t {name}:zstd .")));
        let said = ok(plugins.buildx(&d, &dir, &format!("imagetools inspect --raw {name}:zstd")));
        assert!(said.out.contains("tar+zstd"), "{}", said.out);
        let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("meta")).unwrap()).unwrap();
        assert_eq!(meta["containerimage.descriptor"]["digest"], meta["containerimage.digest"]);
    }
    // A tag and a digest at once is what BuildKit refuses.
    assert!(by_digest(&format!("{name}:1"), "").contains("can't push tagged ref"));
}

#[test]
fn layouts_are_written_to_directories_and_are_contexts() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let release = &plugins.release;
        let text = format!("FROM scratch\nARG TARGETARCH\nCOPY a /from-{release}-$TARGETARCH\n");
        let files = [("Dockerfile", text.as_str()), ("a", "a"), ("Other", "FROM base\nCOPY a /more\n")];
        let dir = directory(&d, &format!("layout-{release}"), &files);
        let both = "--platform linux/amd64,linux/arm64";
        ok(plugins.buildx(&d, &dir, &format!("build {both} -o type=oci,tar=false,dest=both -t some/name:v1 .")));
        let entry = index(&dir.join("both"))["manifests"][0].clone();
        // Under which key depends on the client.
        assert!(entry["annotations"].to_string().contains("\"docker.io/some/name:v1\""), "{entry}");
        ok(plugins.buildx(&d, &dir, "build -o type=oci,tar=false,dest=one ."));
        let words = format!("--build-context base=oci-layout://{}", dir.join("one").display());
        ok(plugins.buildx(&d, &dir, &format!("build -f Other {words} -o files .")));
        let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
        assert!(dir.join(format!("files/from-{release}-{architecture}")).exists() && dir.join("files/more").exists());
        let digest = entry["digest"].as_str().unwrap();
        let words = format!("--build-context base=oci-layout://{}@{digest}", dir.join("both").display());
        ok(plugins.buildx(&d, &dir, &format!("build {both} -f Other {words} -o several .")));
        for architecture in ["amd64", "arm64"] {
            let made = dir.join(format!("several/linux_{architecture}/from-{release}-{architecture}"));
            assert!(made.exists(), "{}", made.display());
        }
        let missing = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
        let words = format!("--build-context base=oci-layout://{}@{missing}", dir.join("both").display());
        let said = plugins.buildx(&d, &dir, &format!("build -f Other {words} ."));
        assert!(said.code != 0 && said.err.contains("is not in the client's directory"), "{}", said.err);
        assert_eq!(d.docker("images -aq").ok(), d.docker("images -aq busybox").ok(), "contexts are images for a while");
        // To the standard output.
        let mut command = plugins.buildx_command(&d, &dir);
        command.args(["build", "-o", "type=oci,dest=-", "."]);
        let archive = command.output().unwrap();
        assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
        std::fs::write(dir.join("out.tar"), &archive.stdout).unwrap();
        let listed = Command::new("tar").arg("-tf").arg(dir.join("out.tar")).output().unwrap();
        assert!(Said::from(listed).ok().contains("oci-layout"));
    }
}
