//! `docker buildx history`: builds that were, by the names that clients gave them.

use crate::kit::Daemon;
use crate::plugins::{directory, plugins};

#[test]
fn buildx_lists_shows_and_forgets_builds() {
    let Some(mut d) = Daemon::start() else { return };
    for plugins in plugins() {
        let release = &plugins.release;
        let text = format!("FROM busybox\nARG SPOKEN\nRUN echo said-by-{release}\nRUN true\n");
        let files = [("Dockerfile", text.as_str()), ("Bad", "FROM busybox\nRUN echo before; exit 9\n")];
        let dir = directory(&d, &format!("history-{release}"), &files);
        let buildx = |d: &Daemon, words: &str| plugins.buildx(d, &dir, words);
        // It came with 0.20.
        if buildx(&d, "history ls --help").code != 0 || !buildx(&d, "--help").out.contains("history") {
            continue;
        }
        let built = buildx(&d, "build --build-arg SPOKEN=hidden-word --metadata-file meta -t history .");
        assert_eq!(built.code, 0, "{}", built.err);
        // Where it comes from is asked of what is remembered, and has no values of arguments.
        let meta: serde_json::Value = serde_json::from_slice(&std::fs::read(dir.join("meta")).unwrap()).unwrap();
        let provenance = &meta["buildx.build.provenance"];
        let from = provenance["materials"][0]["uri"].as_str().unwrap_or_else(|| panic!("{meta:#}"));
        assert!(from.starts_with("pkg:docker/busybox@latest"), "{from}");
        assert_eq!(provenance["invocation"]["parameters"]["args"]["build-arg:SPOKEN"], "***");
        assert!(!built.err.to_lowercase().contains("warning"), "{}", built.err);
        assert_eq!(buildx(&d, "build -f Bad .").code, 1);
        let listed = buildx(&d, "history ls --format json").ok();
        let records: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let of = |status: &str| {
            let found = records.iter().find(|record| record["status"] == status);
            let record = found.unwrap_or_else(|| panic!("{status}: {listed}"));
            record["ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()
        };
        let (good, bad) = (of("Completed"), of("Error"));
        assert!(records.iter().all(|record| record["total_steps"].as_i64() > Some(0)), "{listed}");
        let shown = buildx(&d, &format!("history inspect {good}")).ok();
        assert!(shown.contains(&good) || shown.contains("Dockerfile"), "{shown}");
        assert!(shown.contains("SPOKEN") && !shown.contains("hidden-word"), "{shown}");
        assert!(shown.contains("pkg:docker/busybox@latest") && shown.contains("slsa.dev/provenance"), "{shown}");
        let attached = buildx(&d, &format!("history inspect attachment --type provenance {good}"));
        assert!(attached.out.contains("mobyproject.org/buildkit@v1"), "{} {}", attached.out, attached.err);
        let shown = buildx(&d, &format!("history inspect {bad}")).ok();
        assert!(shown.contains("exit code: 9") && shown.contains(">>> RUN echo before; exit 9"), "{shown}");
        let logs = buildx(&d, &format!("history logs --progress plain {good}"));
        assert!(
            format!("{}{}", logs.out, logs.err).contains(&format!("said-by-{release}\n")),
            "{}{}",
            logs.out,
            logs.err
        );
        // They outlive the daemon.
        d.stop();
        d.launch();
        let again = buildx(&d, "history ls --format json").ok();
        assert_eq!(again.lines().count(), records.len(), "{again}");
        let logs = buildx(&d, &format!("history logs --progress plain {bad}"));
        assert!(format!("{}{}", logs.out, logs.err).contains("before\n"), "{}{}", logs.out, logs.err);
        buildx(&d, &format!("history rm {good}")).ok();
        let again = buildx(&d, "history ls --format json").ok();
        assert!(!again.contains(&good) && again.contains(&bad), "{again}");
        buildx(&d, "history rm --all").ok();
        assert_eq!(buildx(&d, "history ls --format json").ok(), "");
        assert_ne!(buildx(&d, &format!("history logs {good}")).code, 0);
    }
}

#[test]
fn the_cache_is_listed_and_pruned_by_filters() {
    let Some(d) = Daemon::start() else { return };
    for plugins in plugins() {
        let release = &plugins.release;
        let text = format!("FROM busybox\nCOPY a /a\nRUN echo one-{release} > /b\n");
        let dir = directory(&d, &format!("usage-{release}"), &[("Dockerfile", &text), ("a", "a")]);
        let buildx = |words: &str| plugins.buildx(&d, &dir, words);
        assert_eq!(buildx("build .").code, 0);
        // Their names of 0.13 are the old ones.
        let listed = buildx("du --verbose --filter type=regular").ok();
        assert!(listed.contains("regular") && !listed.contains("source.local"), "{listed}");
        // One record has its fields in lines.
        let record = listed.split("\n\n").find(|record| record.contains(&format!("one-{release}"))).unwrap();
        let id = record.lines().find_map(|line| line.strip_prefix("ID:")).unwrap().trim();
        let one = buildx(&format!("du --verbose --filter id={id}")).ok();
        assert!(one.contains(&format!("one-{release}")) && !one.contains("COPY"), "{one}");
        let said = buildx("prune -f --filter nothing=1");
        assert!(said.code != 0 && said.err.contains("of no known field"), "{}", said.err);
        buildx(&format!("prune -f --filter id={id}")).ok();
        let listed = buildx("du --verbose").ok();
        assert!(!listed.contains(&format!("one-{release}")) && listed.contains("COPY a /a"), "{listed}");
        if buildx("prune --help").out.contains("--min-free-space") {
            buildx("prune -f --min-free-space 1").ok();
            assert!(buildx("du --verbose").ok().contains("COPY a /a"), "there is room");
        }
        buildx("prune -f --all").ok();
        assert!(!buildx("du --verbose").ok().contains("COPY a /a"));
    }
}
