//! What is stated about results that are files and archives, and have no name: statements are beside them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::build_inputs::{context, wharf};
use crate::kit::{Daemon, Said};
use crate::plugins::plugins;

const DOCKERFILE: &str = "FROM --platform=$BUILDPLATFORM busybox AS made\nRUN echo one > /one\nFROM scratch\n\
                          COPY --from=made /one /d/one\nCOPY --from=made /one /sz\n";
const STATED: &str = "--provenance=mode=max --sbom=true";

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(bytes)))
}

fn tar(archive: &Path, words: &[&str]) -> Vec<u8> {
    let said = Command::new("tar").args(words).arg("-f").arg(archive).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    said.stdout
}

/// The statement of a file, which has to be about the two files of the result.
fn about_files(statement: &Value) -> String {
    let subjects = statement["subject"].as_array().unwrap();
    let names: Vec<&str> = subjects.iter().map(|subject| subject["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["d/one", "sz"]);
    let sum = Said::from(Command::new("sh").args(["-c", "echo one | sha256sum"]).output().unwrap()).ok();
    let sum = sum.split(' ').next().unwrap();
    assert!(subjects.iter().all(|subject| subject["digest"]["sha256"] == sum), "{statement:#} {sum}");
    statement["predicateType"].as_str().unwrap().to_owned()
}

/// The index of an archive that has what is stated about its image, whose manifests name what is there.
fn stated_archive(blob: &dyn Fn(&str) -> Vec<u8>) -> String {
    let index = json(&blob("index.json"));
    let path = |digest: &Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
    let own = json(&blob(&path(&index["manifests"][0]["digest"])));
    let [image, about] = own["manifests"].as_array().unwrap().as_slice() else { panic!("{own:#}") };
    assert_eq!(about["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    let about = json(&blob(&path(&about["digest"])));
    assert_eq!(about["layers"].as_array().unwrap().len(), 2, "{about:#}");
    let statement = json(&blob(&path(&about["layers"][0]["digest"])));
    let subject = &statement["subject"][0];
    assert_eq!(Value::from(format!("sha256:{}", subject["digest"]["sha256"].as_str().unwrap())), image["digest"]);
    subject["name"].as_str().unwrap().to_owned()
}

#[test]
fn statements_are_beside_files_and_in_archives() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, "main", &[("Dockerfile", DOCKERFILE)]);
    let outs = d.path().join("outs");
    std::fs::create_dir(&outs).unwrap();
    let images = d.docker("images -aq").ok();
    let plugins = plugins();
    let with_buildx = plugins.iter().map(|plugins| (plugins.release.as_str(), Some(plugins)));
    for (face, plugins) in std::iter::once(("wharf", None)).chain(with_buildx) {
        let build = |words: &str| {
            let said = match plugins {
                Some(plugins) => plugins.buildx(&d, &dir, &format!("build {words} .")),
                None => wharf(&d, &dir, &format!("build {words} .")),
            };
            assert_eq!(said.code, 0, "{face}: {words}: {}", said.err);
        };
        let out = |name: &str| outs.join(format!("{face}-{name}"));
        let dest = |name: &str| out(name).display().to_string();
        build(&format!("{STATED} -o type=local,dest={},attestation-prefix=p-", dest("local")));
        let read = |name: &str| json(&std::fs::read(out("local").join(name)).unwrap());
        assert!(about_files(&read("p-provenance.json")).contains("slsa.dev/provenance"));
        assert!(about_files(&read("p-sbom.spdx.json")).contains("spdx.dev/Document"));
        build(&format!("{STATED} -o type=tar,dest={}", dest("files.tar")));
        let statement = json(&tar(&out("files.tar"), &["-xO", "sbom.spdx.json"]));
        assert!(about_files(&statement).contains("spdx.dev/Document"));
        let names = String::from_utf8(tar(&out("files.tar"), &["-t"])).unwrap();
        assert_eq!(names.lines().filter(|name| !name.ends_with(".json")).collect::<Vec<_>>(), ["d/", "d/one", "sz"]);

        build(&format!("{STATED} -o type=oci,dest={}", dest("image.tar")));
        let blob = |name: &str| tar(&out("image.tar"), &["-xO", name]);
        assert_eq!(stated_archive(&blob), "_", "a result without a name");
        let index = json(&blob("index.json"));
        assert!(!index.to_string().contains("wharf-build-result"), "{index}");
        build(&format!("{STATED} -o type=oci,dest={},tar=false", dest("layout")));
        assert_eq!(stated_archive(&|name: &str| std::fs::read(out("layout").join(name)).unwrap()), "_");
        if plugins.is_some() {
            // A name that it has there alone.
            build(&format!("{STATED} -o type=oci,name=other/app:1,dest={}", dest("named.tar")));
            let subject = stated_archive(&|name: &str| tar(&out("named.tar"), &["-xO", name]));
            assert!(subject.starts_with("pkg:docker/other/app@1?"), "{subject}");
        }
        // Nothing of it stays, whether it was made for that or not.
        assert_eq!(d.docker("images -aq").ok(), images, "{face}");
    }
    assert_eq!(d.wharf("system fsck").code, 0);
}

#[test]
fn an_image_that_was_here_without_a_name_stays() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, "main", &[("Dockerfile", DOCKERFILE)]);
    let id = wharf(&d, &dir, "build -q .").ok();
    wharf(&d, &dir, &format!("build {STATED} -o ../out .")).ok();
    d.docker(&format!("image inspect {id}")).ok();
    assert_eq!(d.docker("images -q --no-trunc -f dangling=true").ok(), id);
    std::thread::sleep(std::time::Duration::from_millis(1100));
    // Nobody hears of the name that its index has meanwhile.
    let said = d.docker("events --since 1 --until 0s --filter type=image").ok();
    assert!(said.contains("image") && !said.contains("wharf-build-result"), "{said}");
}

#[test]
fn several_platforms_are_one_archive_of_files() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, "main", &[("Dockerfile", DOCKERFILE)]);
    let both = "--platform linux/amd64,linux/s390x";
    for plugins in plugins() {
        let archive = d.path().join(format!("{}.tar", plugins.release));
        let words = format!("build {both} --sbom=true -o type=tar,dest={} .", archive.display());
        let said = plugins.buildx(&d, &dir, &words);
        assert_eq!(said.code, 0, "{}", said.err);
        let names = String::from_utf8(tar(&archive, &["-t"])).unwrap();
        for name in ["linux_amd64/sz", "linux_amd64/sbom.spdx.json", "linux_s390x/d/one", "linux_s390x/sbom.spdx.json"]
        {
            assert!(names.lines().any(|line| line == name), "{name}: {names}");
        }
        let words = format!("build {both} -o type=local,dest=x,platform-split=false .");
        let said = plugins.buildx(&d, &dir, &words);
        assert!(said.code != 0 && said.err.contains("platform-split=false"), "{}", said.err);
    }
    wharf(&d, &dir, &format!("build {both} --sbom=true -o type=local,dest=../merged,platform-split=false .")).ok();
    for name in ["sz", "sbom.spdx.linux_amd64.json", "sbom.spdx.linux_s390x.json"] {
        assert!(d.path().join("merged").join(name).exists(), "{name}");
    }
}
