//! What is said of images that are built: annotations, where they come from, what is in them; and whether they are what they
//! are said to be.

use std::process::Command;

use serde_json::{Value, json};

use crate::build_inputs::{context, files, wharf};
use crate::kit::Daemon;
use crate::ship::Registry;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn annotations_go_where_the_image_goes() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let dir = context(&d, "main", &[("Dockerfile", "FROM busybox\nRUN echo x > /x\n")]);
    let name = format!("{}/app", registry.address);
    wharf(&d, &dir, &format!("build --push -t {name} --annotation a=1 --annotation manifest:b=x=2 .")).ok();
    let manifest = || parsed(&wharf(&d, &dir, &format!("manifest inspect --insecure {name}")).ok());
    assert_eq!(manifest()["annotations"], json!({ "a": "1", "b": "x=2" }));
    let output = format!("type=registry,name={name},annotation.o=3,compression=zstd");
    wharf(&d, &dir, &format!("build --output {output} .")).ok();
    assert_eq!(manifest()["annotations"], json!({ "o": "3" }));
    assert!(manifest()["layers"][0]["mediaType"].as_str().unwrap().ends_with("zstd"), "{}", manifest());
    // The same image without them, and in an archive with others.
    wharf(&d, &dir, "build -t same .").ok();
    wharf(&d, &dir, "build -t same --annotation c=3 -o type=oci,dest=layout,tar=false .").ok();
    let index = parsed(&std::fs::read_to_string(dir.join("layout/index.json")).unwrap());
    let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let saved = parsed(&std::fs::read_to_string(dir.join("layout/blobs").join(digest)).unwrap());
    assert_eq!(saved["annotations"], json!({ "c": "3" }));
    for (annotation, why) in [
        ("x", "expected key=value"),
        ("index:a=1", "an image of one platform has none"),
        ("z:a=1", "unknown annotation"),
    ] {
        let said = wharf(&d, &dir, &format!("build --annotation {annotation} ."));
        assert!(said.code != 0 && said.err.contains(why), "{annotation}: {}", said.err);
    }
}

#[test]
fn where_an_image_comes_from_and_what_is_in_it() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let dockerfile =
        "FROM busybox AS base\nARG PASSWORD\nRUN --network=none echo $PASSWORD > /dev/null\nCOPY files /\n";
    let dir = context(
        &d,
        "main",
        &[
            ("Dockerfile", dockerfile),
            ("files/etc/os-release", "ID=debian\nVERSION_ID=12\n"),
            (
                "files/var/lib/dpkg/status",
                "Package: libc6\nStatus: install ok installed\nVersion: 2.36\nArchitecture: amd64\n",
            ),
            ("files/srv/node_modules/left-pad/package.json", r#"{"name":"left-pad","version":"1.3.0"}"#),
        ],
    );
    let name = format!("{}/app", registry.address);
    let words = "--build-arg PASSWORD=not-to-be-told --label k=v --provenance=true --sbom=true";
    wharf(&d, &dir, &format!("build --push -t {name} {words} --metadata-file meta.json .")).ok();
    let index = parsed(&wharf(&d, &dir, &format!("manifest inspect --insecure {name}")).ok());
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 2, "{index:#}");
    assert_eq!(manifests[1]["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(manifests[1]["annotations"]["vnd.docker.reference.digest"], manifests[0]["digest"]);
    assert_eq!(manifests[1]["platform"], json!({ "architecture": "unknown", "os": "unknown" }));
    let meta = parsed(&std::fs::read_to_string(dir.join("meta.json")).unwrap());
    // They are here, too, and come back from the registry.
    let statements = |d: &Daemon| d.get(&format!("/v1.56/images/{name}/attestations?statement=1"));
    let here = statements(&d);
    d.docker(&format!("rmi {name}")).ok();
    d.docker(&format!("pull -q {name}")).ok();
    assert_eq!(statements(&d), here);
    assert_eq!(here.as_array().unwrap().len(), 2, "{here:#}");
    let of = |kind: &str| {
        here.as_array().unwrap().iter().find(|one| one["PredicateType"] == kind).unwrap()["Statement"].clone()
    };
    let provenance = of("https://slsa.dev/provenance/v1");
    let subject = provenance["subject"][0]["digest"]["sha256"].as_str().unwrap();
    assert_eq!(format!("sha256:{subject}"), manifests[0]["digest"]);
    let predicate = &provenance["predicate"];
    assert_eq!(predicate["buildDefinition"]["externalParameters"]["request"]["args"], json!({ "label:k": "v" }));
    assert_eq!(predicate["runDetails"]["metadata"]["buildkit_hermetic"], true);
    assert_eq!(predicate["runDetails"]["metadata"]["invocationID"], meta["buildx.build.ref"]);
    let from = predicate["buildDefinition"]["resolvedDependencies"][0]["uri"].as_str().unwrap();
    assert!(from.starts_with("pkg:docker/busybox@latest?platform=linux%2F"), "{from}");
    assert!(!here.to_string().contains("not-to-be-told"));
    let sbom = of("https://spdx.dev/Document");
    let urls: Vec<&str> = sbom["predicate"]["packages"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str())
        .collect();
    assert_eq!(urls, ["pkg:deb/debian/libc6@2.36?arch=amd64&distro=debian-12", "pkg:npm/left-pad@1.3.0"]);
    // And in an archive.
    wharf(&d, &dir, &format!("build -t archived {words} -o type=oci,dest=../image.tar .")).ok();
    let Some(other) = Daemon::start() else { return };
    other.docker(&format!("load -i {}", d.path().join("image.tar").display())).ok();
    let loaded = other.get("/v1.56/images/archived/attestations");
    assert_eq!(loaded, d.get("/v1.56/images/archived/attestations"));
    assert_eq!(
        (loaded.as_array().unwrap().len(), other.docker("run --rm archived echo runs").ok().as_str()),
        (2, "runs")
    );
    // With all of it, that is told which may be told.
    let all = "--build-arg PASSWORD=to-be-told --attest type=provenance,mode=max,builder-id=me";
    wharf(&d, &dir, &format!("build -t more {all} .")).ok();
    let more = d.get("/v1.56/images/more/attestations?statement=1")[0]["Statement"]["predicate"].clone();
    assert_eq!(more["buildDefinition"]["externalParameters"]["request"]["args"]["build-arg:PASSWORD"], "to-be-told");
    assert_eq!(more["runDetails"]["builder"]["id"], "me");
    assert_eq!(more["buildDefinition"]["internalParameters"]["buildConfig"]["steps"][0]["line"], 1);
    assert_eq!(d.docker("run --rm more cat /etc/os-release").ok(), "ID=debian\nVERSION_ID=12");
    // In the older form.
    wharf(&d, &dir, "build -t older --attest type=provenance,version=v0.2,mode=max .").ok();
    let older = d.get("/v1.56/images/older/attestations?statement=1");
    assert_eq!(older[0]["PredicateType"], "https://slsa.dev/provenance/v0.2");
    let older = &older[0]["Statement"]["predicate"];
    assert_eq!(older["invocation"]["configSource"]["entryPoint"], "Dockerfile");
    assert_eq!(older["materials"], more["buildDefinition"]["resolvedDependencies"]);
    assert_eq!(older["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"], true);
    assert_eq!(older["buildConfig"]["steps"][0]["line"], 1);
    for (attest, why) in
        [("type=sbom,generator=x", "no other generator"), ("type=vex", "unknown type"), ("sbom", "expected")]
    {
        let said = wharf(&d, &dir, &format!("build --attest {attest} ."));
        assert!(said.code != 0 && said.err.contains(why), "{attest}: {}", said.err);
    }
}

#[test]
fn several_platforms_are_one_name() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    // No command of another platform: it can be built anywhere.
    let dockerfile = "FROM --platform=$BUILDPLATFORM busybox AS made\nARG TARGETARCH\nRUN echo for $TARGETARCH > /for\n\
                      FROM scratch\nCOPY --from=made /for /for\n";
    let dir = context(&d, "main", &[("Dockerfile", dockerfile)]);
    let name = format!("{}/app", registry.address);
    let words = "--platform linux/amd64,linux/s390x --annotation index:i=1 --annotation manifest[linux/s390x]:m=2";
    wharf(&d, &dir, &format!("build --push -t {name} {words} -o out .")).ok();
    assert_eq!(std::fs::read_to_string(dir.join("out/linux_amd64/for")).unwrap(), "for amd64\n");
    assert_eq!(std::fs::read_to_string(dir.join("out/linux_s390x/for")).unwrap(), "for s390x\n");
    let index = parsed(&wharf(&d, &dir, &format!("manifest inspect --insecure {name}")).ok());
    assert_eq!(index["annotations"], json!({ "i": "1" }));
    let of = |entry: &Value| entry["platform"]["architecture"].as_str().unwrap().to_owned();
    assert_eq!(index["manifests"].as_array().unwrap().iter().map(of).collect::<Vec<_>>(), ["amd64", "s390x"]);
    assert_eq!(d.docker("images -q").ok().lines().count(), 2, "busybox, and one name for both");
    assert!(d.wharf("images --tree").ok().contains("linux/s390x"));
    // What has to run is told of.
    files(
        &dir,
        &[
            ("Dockerfile", "FROM --platform=linux/s390x scratch\nCOPY not /sh\nRUN [\"/sh\"]\n"),
            ("not", "\x7fELF\x02\x02\x01 nothing that runs"),
        ],
    );
    let chmod = Command::new("chmod").arg("+x").arg(dir.join("not")).status().unwrap();
    assert!(chmod.success());
    let said = wharf(&d, &dir, "build --platform linux/s390x .");
    assert!(said.code != 0 && said.err.contains("this host runs no programs for s390x"), "{}", said.err);
}

#[test]
fn an_image_is_what_its_build_makes_or_it_is_told_what_is_not() {
    let Some(d) = Daemon::start() else { return };
    let dockerfile = "FROM busybox\nENV A=1\nCOPY f /f\nRUN echo same > /same\nRUN mkdir /d && cat /proc/sys/kernel/random/uuid > /d/random && chmod 600 /d/random\n";
    let dir = context(&d, "main", &[("Dockerfile", "FROM busybox\nCOPY f /f\nRUN echo x > /x\n"), ("f", "content")]);
    wharf(&d, &dir, "build -t good .").ok();
    let before = d.docker("images -aq").ok();
    let said = wharf(&d, &dir, "build -q --verify good .");
    assert!(said.code == 0 && said.out.contains("good is what this build makes"), "{}{}", said.out, said.err);
    wharf(&d, &dir, "build --build-arg SOURCE_DATE_EPOCH=1700000000 -t exact .").ok();
    let said = wharf(&d, &dir, "build -q --verify exact .");
    assert!(said.code == 0 && said.out.contains("byte for byte"), "{}{}", said.out, said.err);
    d.docker("rmi exact").ok();
    assert_eq!(d.docker("images -aq").ok(), before, "nothing stays of it");
    files(&dir, &[("Dockerfile", dockerfile)]);
    wharf(&d, &dir, "build -t random .").ok();
    files(&dir, &[("Dockerfile", &dockerfile.replace("A=1", "A=2")), ("f", "changed")]);
    let said = wharf(&d, &dir, "build -q --verify random .");
    for words in [
        "configuration: config.Env[1]: \"A=2\", was \"A=1\"",
        "made by: COPY f /f",
        "  /f: content (7 bytes in both)",
        "made by: RUN /bin/sh -c mkdir /d",
        "  /d/random: content (37 bytes in both)",
        "random is not what this build makes",
    ] {
        assert!(said.code == 1 && said.out.contains(words), "{words}: {}{}", said.out, said.err);
    }
    assert!(!said.out.contains("/same"), "{}", said.out);
    let said = wharf(&d, &dir, "build --verify random -t x .");
    assert!(said.code != 0 && said.err.contains("conflicting options"), "{}", said.err);
    assert!(wharf(&d, &dir, "build --verify nobody .").err.contains("nobody"));
}
