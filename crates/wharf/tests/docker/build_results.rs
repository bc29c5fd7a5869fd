//! What becomes of a build: images, files, pushes, what is remembered, what is said of it.

use std::process::Command;

use crate::build_inputs::{context, files, wharf};
use crate::buildkit_outputs::file_of;
use crate::kit::Daemon;
use crate::ship::Registry;

#[test]
fn results_go_where_they_are_asked_to() {
    let Some(d) = Daemon::start() else { return };
    let registry = Registry::start(&d);
    let dir = context(&d, "main", &[("Dockerfile", "FROM scratch\nCOPY a b /d/\nLABEL x=y\n"), ("a", "A"), ("b", "B")]);
    let before = d.docker("images -aq").ok();
    wharf(&d, &dir, "build -o out -o type=tar,dest=files.tar -o type=oci,dest=image.tar .").ok();
    assert_eq!(d.docker("images -aq").ok(), before, "whoever wants files gets no image");
    assert_eq!(std::fs::read_to_string(dir.join("out/d/b")).unwrap(), "B");
    let list = Command::new("tar").args(["-tf", "files.tar"]).current_dir(&dir).output().unwrap();
    assert!(String::from_utf8_lossy(&list.stdout).lines().any(|line| line.ends_with("d/a")));
    // To standard output, and nothing else there.
    std::fs::remove_dir_all(dir.join("out")).unwrap();
    let said = wharf(&d, &dir, "build -o - -o type=oci,dest=layout,tar=false -t named .");
    assert!(said.code == 0 && said.err.contains("Successfully tagged named:latest"), "{}", said.err);
    assert!(said.out.contains("ustar") && !said.out.contains("Step"));
    assert!(dir.join("layout/oci-layout").exists() && dir.join("layout/index.json").exists());
    d.docker("rmi named").ok();
    d.docker(&format!("load -i {}", dir.join("image.tar").display())).ok();
    // Pushed under two names.
    let name = format!("{}/team/app:1", registry.address);
    let words =
        format!("build -t {name} --output type=registry,name={}/other --metadata-file meta.json .", registry.address);
    wharf(&d, &dir, &words).ok();
    let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("meta.json")).unwrap()).unwrap();
    let id = d.docker(&format!("inspect -f {{{{.Id}}}} {name}")).ok();
    assert_eq!(meta["containerimage.config.digest"], id.as_str());
    assert!(meta["containerimage.digest"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(meta["image.name"], format!("{name},{}/other", registry.address));
    d.docker(&format!("rmi {name} {}/other", registry.address)).ok();
    d.docker(&format!("pull {}/other", registry.address)).ok();
    // Layers of archives are as registries get them, unless something else is asked for.
    for (words, kind) in
        [("", "+gzip"), (",compression=zstd,name=z:1", "+zstd"), (",compression=uncompressed,name=z:1", ".tar")]
    {
        wharf(&d, &dir, &format!("build -t here:1 -o type=oci,dest=packed.tar{words} .")).ok();
        let index = file_of(&dir.join("packed.tar"), "index.json");
        let first = &index["manifests"][0];
        let named = if words.contains("name=") { "docker.io/library/z:1" } else { "docker.io/library/here:1" };
        assert_eq!(first["annotations"]["io.containerd.image.name"], named, "{words}");
        let blob = |digest: &serde_json::Value| format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
        let manifest = file_of(&dir.join("packed.tar"), &blob(&first["digest"]));
        let layer = &manifest["layers"][0];
        assert!(layer["mediaType"].as_str().unwrap().ends_with(kind), "{words}: {layer}");
        let older = file_of(&dir.join("packed.tar"), "manifest.json");
        assert_eq!(older[0]["Layers"][0], blob(&layer["digest"]));
        d.docker("rmi here:1").ok();
        let loaded = d.docker(&format!("load -q -i {}", dir.join("packed.tar").display())).ok();
        assert_eq!(d.docker(&format!("inspect -f {{{{.Id}}}} {}", loaded.rsplit_once(' ').unwrap().1)).ok(), id);
    }
    assert!(wharf(&d, &dir, "build --push .").err.contains("tag is needed when pushing to registry"));
    assert!(wharf(&d, &dir, "build -o type=nope .").err.contains("unknown type of output"));
}

#[test]
fn what_is_wrong_is_shown_with_its_lines() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox AS Base\n# what for\nRUN echo said && \\\n  false\nCMD echo x\n";
    let dir = context(&d, "main", &[("Dockerfile", text)]);
    let said = wharf(&d, &dir, "build .");
    let lines = "Dockerfile:3\n--------------------\n   1 |     FROM busybox AS Base\n   2 |     # what for\n   3 | >>> \
                 RUN echo said && \\\n   4 | >>>   false\n   5 |     CMD echo x\n   6 |     \n--------------------\n";
    assert!(
        said.code == 1 && said.out.contains(lines) && said.out.contains("[Warning] StageNameCasing"),
        "{}",
        said.out
    );
    // What failed is shown where nothing else is.
    let quiet = wharf(&d, &dir, "build -q .");
    assert!(quiet.out.is_empty() && quiet.err.contains("said\n") && quiet.err.contains(">>>   false"), "{}", quiet.err);
    let check = wharf(&d, &dir, "build --check .");
    assert_eq!(check.code, 1);
    assert!(check.out.starts_with("Check complete, 2 warnings have been found!\n"), "{}", check.out);
    assert!(
        check.out.contains("WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/")
    );
    files(
        &dir,
        &[(
            "Dockerfile",
            "# VERSION of the base\nARG VERSION=1\nFROM busybox AS base\n# app what is shipped\nFROM base AS app\nARG VERSION\n\
         RUN --mount=type=secret,id=tok,required true\nCMD [\"sh\"]\n",
        )],
    );
    assert_eq!(wharf(&d, &dir, "build --check .").ok(), "Check complete, no warnings found.");
    let outline: serde_json::Value =
        serde_json::from_str(&wharf(&d, &dir, "build --call outline,format=json --build-arg VERSION=2 .").ok())
            .unwrap();
    assert_eq!(
        outline["args"][0],
        serde_json::json!({
            "name": "VERSION", "description": "of the base", "value": "2",
            "location": { "ranges": [{ "start": { "line": 2 }, "end": { "line": 2 } }] },
        })
    );
    let lines = serde_json::json!({ "ranges": [{ "start": { "line": 7 }, "end": { "line": 7 } }] });
    assert_eq!(outline["secrets"][0], serde_json::json!({ "name": "tok", "required": true, "location": lines }));
    let targets = wharf(&d, &dir, "build --call targets .").ok();
    assert_eq!(targets, "TARGET        DESCRIPTION\nbase          \napp (default) what is shipped");
    // What the images here have in their environment is known.
    files(&dir, &[("Dockerfile", "FROM busybox\nENV A=$PATH B=$NOPE\n")]);
    let check = wharf(&d, &dir, "build --check .");
    assert!(check.code == 1 && check.out.contains("undefined variable '$NOPE'"), "{}", check.out);
    assert!(!check.out.contains("$PATH'"), "{}", check.out);
    // And what cannot be expanded ends it.
    files(&dir, &[("Dockerfile", "FROM busybox\nENV A=${B:?no}\n")]);
    let check = wharf(&d, &dir, "build --check .");
    assert!(
        check.code == 1 && check.err.contains("B: no\nDockerfile:2\n") && check.err.contains("2 | >>> ENV A=${B:?no}"),
        "{}",
        check.err
    );
}

#[test]
fn builds_are_remembered() {
    let Some(mut d) = Daemon::start() else { return };
    let dir = context(
        &d,
        "main",
        &[("Dockerfile", "FROM busybox AS one\nRUN echo said\nCOPY a /\nFROM one\nRUN test -f /b\n"), ("a", "")],
    );
    wharf(&d, &dir, "build --target one -t first .").ok();
    assert_eq!(wharf(&d, &dir, "build -q .").code, 1);
    // A plugin's commands are here without it.
    let said = wharf(&d, &dir, "buildx build --load --target one -t again -t more .").ok();
    assert!(said.contains("Using cache"), "{said}");
    d.stop();
    d.launch();
    let list = wharf(&d, &dir, "builder history ls").ok();
    assert_eq!(wharf(&d, &dir, "build history ls").ok(), list);
    assert_eq!(wharf(&d, &dir, "build history --format {{.Name}} ls").code, 0);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 4, "{list}");
    assert!(lines[1].contains("again, more") && lines[1].contains("completed"), "{list}");
    assert!(lines[2].contains("error") && lines[3].contains("first"), "{list}");
    let last: serde_json::Value = serde_json::from_str(&wharf(&d, &dir, "builder history inspect").ok()).unwrap();
    assert_eq!((&last["Steps"], &last["Cached"]), (&3.into(), &2.into()));
    assert_eq!(last["Image"], d.docker("inspect -f {{.Id}} more").ok().as_str());
    let references = wharf(&d, &dir, "buildx history ls -q").ok();
    let failed = references.lines().nth(1).unwrap();
    let log = wharf(&d, &dir, &format!("builder history logs {failed}")).ok();
    assert!(log.contains("RUN test -f /b") && log.ends_with("Dockerfile:5: RUN test -f /b"), "{log}");
    wharf(&d, &dir, &format!("builder history rm {failed}")).ok();
    assert_eq!(wharf(&d, &dir, "builder history -q").ok().lines().count(), 2);
    let gone = wharf(&d, &dir, &format!("builder history logs {failed}"));
    assert!(gone.code == 1 && gone.err.contains("No such build"), "{}", gone.err);
    let usage = wharf(&d, &dir, "builder du").ok();
    assert!(usage.starts_with("CACHE ID") && usage.contains("Total:"), "{usage}");
}

#[test]
fn an_image_with_a_secret_in_it_gets_no_name() {
    let Some(d) = Daemon::start() else { return };
    let run = "RUN --mount=type=secret,id=TOKEN";
    for (step, place) in [
        (
            format!("{run} mkdir /d && head -c 1048570 /dev/zero > /d/f && cat /run/secrets/TOKEN >> /d/f"),
            "file /d/f, made by: RUN",
        ),
        ("RUN : from-the-environment".to_owned(), "history"),
        ("ENV A=from-the-environment".to_owned(), "history"),
    ] {
        let dir = context(&d, "main", &[("Dockerfile", &format!("FROM busybox\n{step}\n"))]);
        let said = wharf(&d, &dir, "build --secret id=TOKEN -t leak .");
        assert!(
            said.code != 0 && said.err.contains("the secret TOKEN is in the image's"),
            "{step}: {}{}",
            said.out,
            said.err
        );
        assert!(said.err.contains(place), "{}", said.err);
        assert_ne!(d.docker("inspect leak").code, 0);
        // The step is in the cache now.
        for output in ["-t leak", "-o type=tar,dest=leak.tar", "-o type=oci,dest=leak.tar"] {
            let said = wharf(&d, &dir, &format!("build --secret id=TOKEN {output} ."));
            assert!(said.code != 0 && said.err.contains(place), "{output}: {}", said.err);
        }
        assert!(!dir.join("leak.tar").exists() && d.docker("inspect leak").code != 0);
    }
    // Who does not have it gets nothing that has been made with it.
    let dir =
        context(&d, "main", &[("Dockerfile", &format!("FROM busybox\n{run} cat /run/secrets/TOKEN > /t || :\n"))]);
    assert_ne!(wharf(&d, &dir, "build --secret id=TOKEN -t leak .").code, 0);
    wharf(&d, &dir, "build -t without .").ok();
    assert_eq!(d.docker("run --rm without wc -c /t").ok(), "0 /t");
    // In a stage that is no part of the image it does no harm.
    let text = format!(
        "FROM busybox AS one\n{run} cat /run/secrets/TOKEN > /t && echo good > /u\nFROM busybox\nCOPY --from=one /u /\n"
    );
    let dir = context(&d, "main", &[("Dockerfile", &text)]);
    wharf(&d, &dir, "build --secret id=TOKEN -t good .").ok();
    assert_eq!(d.docker("run --rm good cat /u").ok(), "good");
    // What is copied from there does, also when the stage comes from the cache.
    let dir = context(&d, "main", &[("Dockerfile", &text.replace("--from=one /u /", "--from=one /t /"))]);
    let said = wharf(&d, &dir, "build --secret id=TOKEN -t leak .");
    assert!(said.code != 0 && said.err.contains("file /t, made by: COPY"), "{}", said.err);
}

#[test]
fn a_cache_goes_to_another_engine() {
    let (Some(one), Some(two)) = (Daemon::start(), Daemon::start()) else { return };
    let text = "FROM scratch AS root\nADD root.tar /\nFROM root AS other\nRUN echo other > /other\nFROM root\nRUN echo made > \
                /made\nCOPY --from=other /other /\nCMD [\"cat\", \"/made\", \"/other\"]\n";
    let dir = context(&one, "main", &[("Dockerfile", text)]);
    let container = one.docker("create busybox true").ok();
    one.docker(&format!("export -o {} {container}", dir.join("root.tar").display())).ok();
    wharf(
        &one,
        &dir,
        "build --cache-to type=local,dest=../small --cache-to type=local,dest=../cache,mode=max -t app .",
    )
    .ok();
    // The second has the place of the first, which another build has taken.
    wharf(&one, &dir, "build --cache-to type=local,dest=../cache,mode=max -t app .").ok();
    let id = one.docker("inspect -f {{.Id}} app").ok();
    let nothing = wharf(&two, &dir, "build --cache-from type=local,src=../nowhere --target root .");
    assert!(nothing.code == 0 && nothing.err.contains("no cache was found in ../nowhere"), "{}", nothing.err);
    two.docker("builder prune -af").ok();
    let said =
        wharf(&two, &dir, "build --cache-from type=local,src=../small --cache-from type=local,src=../cache -t app .");
    assert!(said.code == 0 && !said.out.contains("Running in"), "{}{}", said.out, said.err);
    assert_eq!(two.docker("inspect -f {{.Id}} app").ok(), id, "the same steps are the same image");
    assert_eq!(two.docker("run --rm app").ok(), "made\nother");
    for entry in std::fs::read_dir(one.path().join("cache/blobs/sha256")).unwrap().flatten() {
        std::fs::write(entry.path(), "damaged").unwrap();
    }
    let damaged = wharf(&two, &dir, "build --cache-from type=local,src=../cache .");
    assert!(damaged.code == 0 && damaged.err.contains("this is no build cache"), "{}", damaged.err);
    assert!(wharf(&two, &dir, "build --cache-to type=gha .").err.contains("type=local, type=registry and"));
}

#[test]
fn a_cache_goes_through_a_registry() {
    let (Some(one), Some(two)) = (Daemon::start(), Daemon::start()) else { return };
    let registry = Registry::start(&one);
    let at = &registry.address;
    let text = "FROM scratch AS root\nADD root.tar /\nFROM root AS other\nRUN echo other > /other\nFROM root\nRUN echo made > \
                /made\nCOPY --from=other /other /\nCMD [\"cat\", \"/made\", \"/other\"]\n";
    let dir = context(&one, "main", &[("Dockerfile", text)]);
    let container = one.docker("create busybox true").ok();
    one.docker(&format!("export -o {} {container}", dir.join("root.tar").display())).ok();
    let to = format!(
        "build --cache-to type=registry,ref={at}/app:min --cache-to type=registry,ref={at}/app:max,mode=max -t app ."
    );
    wharf(&one, &dir, &to).ok();
    let id = one.docker("inspect -f {{.Id}} app").ok();
    // An image that has the steps in it is another image, and runs as the one without.
    wharf(&one, &dir, &format!("build --cache-to type=inline -t {at}/app:inline --push .")).ok();
    // A smaller cache has not what the other stage made, and need not: what takes from it is there.
    let build = |from: &str, made: usize| {
        two.docker("builder prune -af").ok();
        let said = wharf(&two, &dir, &format!("build --cache-from type=registry,ref={at}/app:{from} -t app ."));
        assert!(said.code == 0, "{}{}", said.out, said.err);
        assert_eq!(said.out.matches("Running in").count(), made, "{from}: {}{}", said.out, said.err);
        assert_eq!(two.docker("run --rm app").ok(), "made\nother");
        let id = two.docker("inspect -f {{.Id}} app").ok();
        two.docker("rmi -f app").ok();
        id
    };
    assert_eq!(build("max", 0), id, "the same steps are the same image");
    assert_eq!(build("min", 0), id);
    assert_eq!(build("inline", 0), id);
    // What is none, or not there, is no failure: the build goes on without it.
    one.docker(&format!("tag busybox {at}/app:plain")).ok();
    one.docker(&format!("push {at}/app:plain")).ok();
    for (name, why) in [("nothing", "not found"), ("plain", "an image without a cache in it")] {
        two.docker("builder prune -af").ok();
        let said = wharf(&two, &dir, &format!("build --cache-from type=registry,ref={at}/app:{name} ."));
        assert!(said.code == 0 && said.err.contains(why), "{name}: {}", said.err);
        assert_eq!(said.out.matches("Running in").count(), 2, "{name}");
    }
    let wrong = wharf(&two, &dir, "build --cache-from type=registry,ref=127.0.0.1:1/x .");
    assert!(wrong.code == 0 && wrong.err.contains("WARNING: the cache 127.0.0.1:1/x is not used"), "{}", wrong.err);
}

#[test]
fn builds_are_shown_as_it_is_asked_for() {
    let Some(d) = Daemon::start() else { return };
    let dir =
        context(&d, "main", &[("Dockerfile", "FROM busybox\nRUN echo said\n"), ("bad", "FROM busybox\nRUN exit 7\n")]);
    let id = wharf(&d, &dir, "build --progress quiet .").ok();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let plain = wharf(&d, &dir, "build --progress=plain --no-cache .").ok();
    assert!(plain.contains("Step 2/2 : RUN echo said") && !plain.contains('\x1b'), "{plain}");
    let raw = wharf(&d, &dir, "build --progress=rawjson --no-cache .").ok();
    let lines: Vec<serde_json::Value> = raw.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert!(
        lines.iter().any(|line| line["stream"] == "said\n") && lines.iter().any(|line| line["aux"]["ID"].is_string())
    );
    let failed = wharf(&d, &dir, "build --progress=rawjson -f bad .");
    assert!(
        failed.code == 7 && failed.out.contains("errorDetail") && failed.err.contains("non-zero code: 7"),
        "{}",
        failed.err
    );
    for (kind, why) in [("tty", "needs a terminal"), ("fancy", "is no type of progress output")] {
        let said = wharf(&d, &dir, &format!("build --progress={kind} ."));
        assert!(said.code != 0 && said.err.contains(why), "{}", said.err);
    }
}

#[test]
fn why_steps_were_made_is_told() {
    let Some(d) = Daemon::start() else { return };
    let text = |arg: &str| {
        format!(
            "FROM busybox AS a\nARG WHO\nRUN echo $WHO > /who\nFROM busybox\nRUN --mount=type=bind,source=bound,target=/m cat \
             /m/x > /x\nCOPY src /src\nRUN echo {arg}\nCOPY --from=a /who /who\n"
        )
    };
    let given = [("src/one", "1"), ("src/two", "2"), ("bound/x", "x")];
    let dir = context(&d, "main", &[&[("Dockerfile", text("a").as_str())][..], &given].concat());
    wharf(&d, &dir, "build --build-arg WHO=me -t app .").ok();
    let first = wharf(&d, &dir, "builder why-miss").ok();
    assert!(first.contains("no earlier build with such a step is remembered"), "{first}");
    let built = wharf(&d, &dir, "builder history ls -q").ok();
    wharf(&d, &dir, "build --build-arg WHO=me -t app .").ok();
    assert!(wharf(&d, &dir, "build why-miss").ok().contains("No step was made"));
    files(&dir, &[("src/two", "changed"), ("src/three", "3"), ("Dockerfile", &text("b"))]);
    std::fs::remove_file(dir.join("src/one")).unwrap();
    wharf(&d, &dir, "build --build-arg WHO=you -t app .").ok();
    let why: serde_json::Value =
        serde_json::from_str(&wharf(&d, &dir, &format!("builder why-miss --format json latest {built}")).ok()).unwrap();
    assert_eq!(why["Against"], built);
    let of = |line: u64| {
        let step = why["Steps"].as_array().unwrap().iter().find(|step| step["Line"] == line);
        step.map(|step| step["Reasons"].clone()).unwrap_or_default()
    };
    assert_eq!(of(3), serde_json::json!(["the variable WHO is another one"]));
    assert_eq!(of(5), serde_json::Value::Null, "it came from the cache");
    let changed = ["the file src/three is new", "the file src/two was changed", "the file src/one is there no more"];
    assert_eq!(of(6), serde_json::json!(changed));
    assert_eq!(of(7), serde_json::json!(["the instruction is another one: it was RUN echo a"]));
    let last = of(8);
    assert!(last.to_string().contains("what the steps before it have made was changed"), "{last}");
    assert!(last.to_string().contains("the file who was changed"), "{last}");
    // Values are nobody's business.
    assert!(!why.to_string().contains("you"), "{why}");
    files(&dir, &[("bound/x", "y")]);
    wharf(&d, &dir, "build --build-arg WHO=you -t app .").ok();
    let why = wharf(&d, &dir, "build why-miss").ok();
    assert!(why.contains("the file bound/x was changed"), "{why}");
    wharf(&d, &dir, "builder prune -af").ok();
    wharf(&d, &dir, "build --build-arg WHO=you -t app .").ok();
    let why = wharf(&d, &dir, "build why-miss").ok();
    assert!(why.contains("nothing has changed: what it had made was in the cache no more"), "{why}");
    wharf(&d, &dir, "build --no-cache --build-arg WHO=you -t app .").ok();
    let why = wharf(&d, &dir, "build why-miss").ok();
    assert!(why.contains("the cache was not to be used (--no-cache)"), "{why}");
}

#[test]
fn the_hosts_network_has_to_be_allowed() {
    let Some(d) = Daemon::start() else { return };
    let dir =
        context(&d, "main", &[("Dockerfile", "FROM busybox\nRUN --network=host readlink /proc/self/ns/net > /net\n")]);
    let refused = wharf(&d, &dir, "build .");
    assert!(
        refused.code != 0 && refused.err.contains("granting entitlement network.host is not allowed"),
        "{}",
        refused.err
    );
    wharf(&d, &dir, "build --allow network.host -t app .").ok();
    let hosts = std::fs::read_link(format!("/proc/{}/ns/net", d.pid())).unwrap();
    assert_eq!(d.docker("run --rm app cat /net").ok(), hosts.to_string_lossy());
    let said = wharf(&d, &dir, "build --allow network.hots .");
    assert!(said.code != 0 && said.err.contains("unknown entitlement"), "{}", said.err);
    // The host has an address for commands that are not in its network.
    let gate = context(&d, "gate", &[("Dockerfile", "FROM busybox\nRUN grep gate /etc/hosts\n")]);
    let classic = format!("build --no-cache --add-host gate:host-gateway {}", gate.display());
    for said in [wharf(&d, &gate, "build --add-host gate:host-gateway ."), d.docker(&classic)] {
        assert!(said.code == 0 && said.out.contains("\tgate\n"), "{}{}", said.out, said.err);
    }
}
