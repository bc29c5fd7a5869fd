//! Builds with one layer, with images from layouts, with cache mounts that travel, and with all rights.

use crate::build_inputs::{context, files, wharf};
use crate::kit::Daemon;

#[test]
fn new_layers_become_one() {
    let Some(d) = Daemon::start() else { return };
    let base = "FROM busybox\nRUN mkdir -p /d/sub /e/sub /f && for f in d/x d/sub/y e/x e/sub/y f/x; do echo base > /$f; done\n";
    let dir = context(&d, "base", &[("Dockerfile", base)]);
    wharf(&d, &dir, "build -t base .").ok();
    let dockerfile = "FROM base\n\
                      RUN mkdir -p /a/b /c && echo 1 > /a/b/one && echo 2 > /gone && echo 3 > /c/kept && ln /c/kept /c/again\n\
                      RUN rm -r /gone /bin/ash /f && echo new > /a/b/two && rm -r /d && mkdir /d && echo own > /d/own\n\
                      RUN rm -r /a /e/sub && mkdir /a && echo 4 > /a/four && echo file > /e/sub && ln -s e /link\n\
                      RUN rm -r /e && ln -s d /e && mkdir -p /d/sub && touch /d/sub/z\nCMD echo squashed\n";
    let dir = context(&d, "main", &[("Dockerfile", dockerfile)]);
    wharf(&d, &dir, "build -t plain .").ok();
    let said = wharf(&d, &dir, "build --squash -t flat .").ok();
    let count = |name: &str| d.get(&format!("/images/{name}/json"))["RootFS"]["Layers"].as_array().unwrap().len();
    assert_eq!((count("base"), count("plain"), count("flat")), (2, 6, 3), "{said}");
    // The same is to be seen in both, and nothing of what has gone is in the new layer.
    let list = "find / -xdev -path /proc -prune -o -path /sys -prune -o -path /dev -prune -o -path /etc -prune -o -type f -exec md5sum {} + -o -print";
    let seen = |name: &str| {
        let said = d.client().args(["run", "--rm", name, "sh", "-c", &format!("{list} | sort")]).output().unwrap();
        String::from_utf8(said.stdout).unwrap()
    };
    assert_eq!(seen("plain"), seen("flat"));
    assert!(seen("flat").contains("/a/four") && seen("flat").contains("/d/sub/z"));
    for gone in ["/gone", "/d/x", "/d/sub/y", "/bin/ash", "/e/", "/f"] {
        assert!(
            !seen("flat").lines().any(|line| line.contains(&format!(" {gone}")) || line.starts_with(gone)),
            "{gone}"
        );
    }
    assert_eq!(d.docker("run --rm flat stat -c %h /c/again").ok(), "2");
    let history = d.docker("history --no-trunc --format {{.Comment}} flat").ok();
    assert!(history.lines().next().unwrap().starts_with("merge sha256:"), "{history}");
    // It is found again.
    let id = d.docker("inspect -f {{.Id}} flat").ok();
    wharf(&d, &dir, "build --squash -t flat .").ok();
    assert_eq!(d.docker("inspect -f {{.Id}} flat").ok(), id);
    // Of nothing comes nothing.
    files(&dir, &[("Dockerfile", "FROM busybox\nENV A=1\n")]);
    wharf(&d, &dir, "build --squash -t env .").ok();
    assert_eq!(count("env"), 1);
}

#[test]
fn images_in_layouts_are_contexts() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, "base", &[("Dockerfile", "FROM busybox\nRUN echo from the layout > /said\n")]);
    wharf(&d, &dir, "build -t base:v1 -o type=oci,dest=../layout,tar=false .").ok();
    d.docker("rmi base:v1").ok();
    d.docker("builder prune -af").ok();
    let dir = context(
        &d,
        "main",
        &[("Dockerfile", "FROM base\nCOPY --from=other /said /again\nRUN cat /said /again > /both\n")],
    );
    let layout = d.path().join("layout");
    let words =
        format!("--build-context base=oci-layout://{0}:v1 --build-context other=oci-layout://{0}", layout.display());
    wharf(&d, &dir, &format!("build -t app {words} .")).ok();
    assert_eq!(d.docker("run --rm app cat /both").ok(), "from the layout\nfrom the layout");
    let names = d.docker("images -a --format {{.Repository}}").ok();
    assert!(!names.contains("wharf-build-context"), "they have gone: {names}");
    let again = wharf(&d, &dir, &format!("build -t app {words} .")).ok();
    assert!(!again.contains("Running in"), "the same image is the same step: {again}");
    for (place, why) in [
        ("oci-layout://../layout:v2", "no such image"),
        ("oci-layout://nowhere", "nowhere"),
        ("target:x", "for bake alone"),
    ] {
        let said = wharf(&d, &dir, &format!("build --build-context base={place} ."));
        assert!(said.code != 0 && said.err.contains(why), "{place}: {}", said.err);
    }
}

#[test]
fn cache_mounts_travel_when_that_is_asked() {
    let Some(d) = Daemon::start() else { return };
    let text = |what: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,id=mine,target=/c,uid=7 echo {what} && echo kept >> /c/f && wc -l < /c/f > /lines\n"
        )
    };
    let dir = context(&d, "main", &[("Dockerfile", &text("one"))]);
    wharf(&d, &dir, "build -t one --cache-to type=local,dest=without .").ok();
    wharf(&d, &dir, "build -t one --cache-to type=local,dest=with,cache-mounts=true .").ok();
    let Some(other) = Daemon::start() else { return };
    files(&dir, &[("Dockerfile", &text("two"))]);
    wharf(&other, &dir, "build -t two --cache-from type=local,src=without .").ok();
    assert_eq!(other.docker("run --rm two cat /lines").ok(), "1");
    wharf(&other, &dir, "builder prune -af").ok();
    files(&dir, &[("Dockerfile", &text("three"))]);
    wharf(&other, &dir, "build -t three --cache-from type=local,src=with .").ok();
    assert_eq!(other.docker("run --rm three cat /lines").ok(), "2", "what the first engine had put there");
    assert!(wharf(&d, &dir, "build --cache-to type=inline,cache-mounts=true .").err.contains("no cache mounts"));
}

#[test]
fn cache_mounts_are_listed_and_go_when_they_are_meant() {
    let Some(d) = Daemon::start() else { return };
    let text = "FROM busybox\nRUN --mount=type=cache,id=kept,target=/c echo x > /c/f\nRUN echo a layer > /l\n";
    let dir = context(&d, "main", &[("Dockerfile", text)]);
    wharf(&d, &dir, "build -t app .").ok();
    let kinds = || {
        let all = d.get("/v1.51/system/df?type=build-cache");
        let list = all["BuildCache"].as_array().cloned().unwrap_or_default();
        list.iter().map(|one| one["Type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let count = |kind: &str| kinds().iter().filter(|one| *one == kind).count();
    assert_eq!(count("exec.cachemount"), 1);
    // A prune takes what its filters mean, and nothing else.
    for filter in ["until=1h", "id=nothing", "inuse=true", "unused-for=24h", "type=frontend", "parent=x"] {
        d.wharf(&format!("builder prune -af --filter {filter}")).ok();
        assert_eq!((count("exec.cachemount"), count("regular") == 2), (1, true), "{filter}: {:?}", kinds());
    }
    d.wharf("builder prune -af --filter type=source.local --filter shared=true").ok();
    assert!(count("exec.cachemount") == 1 && count("regular") == 2);
    let dry = d.wharf("builder prune -af --dry-run --filter type=exec.cachemount").ok();
    assert!(dry.contains("mount-") && count("exec.cachemount") == 1, "{dry}");
    d.wharf("builder prune -af --filter type=exec.cachemount").ok();
    assert!(count("exec.cachemount") == 0 && count("regular") == 2);
    d.wharf("builder prune -af").ok();
    assert_eq!(kinds(), [""; 0]);
}

#[test]
fn a_cache_mount_is_its_owner_s() {
    let Some(d) = Daemon::start() else { return };
    let mount = "--mount=type=cache,id=mine,target=/c";
    let shown = "stat -c '%a %u %g' /c";
    let dockerfile = format!(
        "FROM busybox\nRUN {mount},uid=5,gid=6,mode=0700 touch /c/f && {shown} > /own\nRUN {mount} {shown} > /other && ls /c >> /other\n\
         RUN {mount},uid=5,gid=6,mode=0700 ls /c > /again\n"
    );
    let dir = context(&d, "main", &[("Dockerfile", &dockerfile)]);
    wharf(&d, &dir, "build -t owned .").ok();
    assert_eq!(d.docker("run --rm owned cat /own /other /again").ok(), "700 5 6\n755 0 0\nf");
}

#[test]
fn all_rights_have_to_be_allowed() {
    let Some(d) = Daemon::start() else { return };
    let dockerfile = "FROM busybox\nRUN grep CapEff /proc/self/status > /usual\n\
                      RUN --security=insecure mkdir /m && mount -t tmpfs x /m && grep CapEff /proc/self/status > /all && \
                      mknod /dev/probe b 7 0 && umount /m && grep Seccomp: /proc/self/status > /filter\n";
    let dir = context(&d, "main", &[("Dockerfile", dockerfile)]);
    let refused = wharf(&d, &dir, "build .");
    assert!(
        refused.code != 0 && refused.err.contains("granting entitlement security.insecure is not allowed"),
        "{}",
        refused.err
    );
    let refused = wharf(&d, &dir, "build --allow network.host .");
    assert!(refused.code != 0 && refused.err.contains("--allow security.insecure"), "{}", refused.err);
    wharf(&d, &dir, "build --allow security.insecure -t app .").ok();
    let (usual, all) = (d.docker("run --rm app cat /usual").ok(), d.docker("run --rm app cat /all").ok());
    assert!(usual != all && all.len() == usual.len(), "{usual} {all}");
    assert_eq!(d.docker("run --rm app cat /filter").ok().split_whitespace().last(), Some("0"));
    // What was made with them is not for whoever is not given them.
    assert_ne!(wharf(&d, &dir, "build .").code, 0);
}

#[test]
fn arguments_of_the_builder_itself() {
    let Some(d) = Daemon::start() else { return };
    let dockerfile = "FROM busybox\nRUN hostname > /host\nRUN --mount=type=cache,id=c,target=/c echo x >> /c/f && wc -l < /c/f > /lines\n";
    let dir = context(&d, "main", &[("Dockerfile", dockerfile)]);
    wharf(&d, &dir, "build -t app --build-arg BUILDKIT_SANDBOX_HOSTNAME=mine .").ok();
    assert_eq!(d.docker("run --rm app cat /host /lines").ok(), "mine\n1");
    let again = dockerfile.replace("hostname >", "true && hostname >");
    files(&dir, &[("Dockerfile", &again)]);
    wharf(&d, &dir, "build -t app .").ok();
    assert_eq!(d.docker("run --rm app cat /host /lines").ok(), "buildkitsandbox\n2");
    files(&dir, &[("Dockerfile", &again.replace("true", "true x"))]);
    wharf(&d, &dir, "build -t app --build-arg BUILDKIT_CACHE_MOUNT_NS=apart .").ok();
    assert_eq!(d.docker("run --rm app cat /lines").ok(), "1");
    wharf(&d, &dir, "build -t app --build-arg BUILDKIT_MULTI_PLATFORM=1 .").ok();
    let shown = d.get("/v1.51/images/app/json?manifests=1");
    assert_eq!(shown["Descriptor"]["mediaType"], "application/vnd.oci.image.index.v1+json", "{shown:#}");
    wharf(&d, &dir, "build -t app --build-arg BUILDKIT_SYNTAX=docker/dockerfile:1 .").ok();
    files(&dir, &[("Dockerfile", "FROM busybox AS Named\n")]);
    wharf(&d, &dir, "build .").ok();
    files(&dir, &[("other", "# syntax=r2d4/mocker\nFROM busybox\n")]);
    for (words, why) in [
        ("--build-arg BUILDKIT_DOCKERFILE_CHECK=error=true", "lint violation found for rules: StageNameCasing"),
        ("--build-arg BUILDKIT_DOCKERFILE_CHECK=skipp=all", "invalid check option"),
        ("--build-arg BUILDKIT_SYNTAX=r2d4/mocker", "unknown frontend \"r2d4/mocker\""),
        ("-f other", "unknown frontend \"r2d4/mocker\""),
    ] {
        let said = wharf(&d, &dir, &format!("build {words} ."));
        assert!(said.code != 0 && said.err.contains(why), "{words}: {}", said.err);
    }
    wharf(&d, &dir, "build --build-arg BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true .").ok();
}

#[test]
fn commands_find_the_directories_of_volumes() {
    let Some(d) = Daemon::start() else { return };
    let dockerfile = "FROM busybox\nVOLUME /data /a/b\nRUN touch /data/f && ls -d /a/b\nRUN ls /data\n";
    let dir = context(&d, "main", &[("Dockerfile", dockerfile)]);
    wharf(&d, &dir, "build -t volumes .").ok();
    // What a command has written there stays, as with BuildKit.
    let listed = d.docker("run --rm --entrypoint ls volumes / /data").ok();
    assert!(listed.lines().any(|name| name == "f"), "{listed}");
    // A version of the API's builder that there is not.
    let (status, said) = d.post("/build?version=3", "", true).unwrap();
    assert!(status == 400 && said.contains("invalid version"), "{status} {said}");
}

#[test]
fn a_linked_copy_leaves_directories_as_they_are() {
    let Some(d) = Daemon::start() else { return };
    let dockerfile = "FROM busybox\nRUN mkdir -m 1777 /st && mkdir -m 700 /own && chown 5:6 /own\n\
                      COPY --link f /st/f\nCOPY --link --chmod=640 --chown=7:8 f /own/\nCOPY --link --chmod=750 f /new/f\n";
    let dir = context(&d, "main", &[("Dockerfile", dockerfile), ("f", "x")]);
    wharf(&d, &dir, "build -t linked .").ok();
    let shown = d.docker("run --rm linked stat -c %a,%u,%g /st /own /own/f /new").ok();
    assert_eq!(shown, "1777,0,0\n700,5,6\n640,7,8\n750,0,0");
    // Upon the same it is the same, whatever else has changed.
    files(&dir, &[("Dockerfile", &dockerfile.replacen("RUN ", "RUN touch /more && ", 1))]);
    let again = wharf(&d, &dir, "build -t linked .").ok();
    assert_eq!(again.matches("Using cache").count(), 3, "{again}");
}

/// BuildKit takes them without a word, Docker's classic builder not at all.
#[test]
fn what_is_probably_not_meant_is_taken_and_told() {
    let Some(d) = Daemon::start() else { return };
    let dir = context(&d, "main", &[("Dockerfile", "FROM busybox\nCOPY a b /t\n"), ("a", "1"), ("b", "2")]);
    let said = wharf(&d, &dir, "build -t several .").ok();
    assert!(said.contains("[Warning] COPY of 2 files to /t, which is no directory: only the last is there"), "{said}");
    assert_eq!(d.docker("run --rm several cat /t").ok(), "2");
    let classic = d.docker(&format!("build {}", dir.display()));
    assert!(classic.err.contains("the destination must be a directory and end with a /"), "{}", classic.err);
    files(&dir, &[("Dockerfile", "FROM busybox\nCOPY --chown=nosuch:7 a /t\n")]);
    let said = wharf(&d, &dir, "build -t owner .").ok();
    assert!(said.contains("[Warning] the image has no nosuch"), "{said}");
    assert_eq!(d.docker("run --rm owner stat -c %u:%g /t").ok(), "0:7");
    assert!(d.docker(&format!("build {}", dir.display())).err.contains("can't find uid for user nosuch"));
}
