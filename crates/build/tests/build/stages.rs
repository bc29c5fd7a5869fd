//! Stages, metadata, the cache, and what is said.

use wharf_build::{BuildRequest, ErrorKind};

use crate::Test;
use crate::bench::{Bench, args, context, request};

pub(crate) const TESTS: &[Test] = &[
    ("stages::the_output_is_the_classic_builders", the_output_is_the_classic_builders),
    ("stages::only_needed_stages_are_built", only_needed_stages_are_built),
    ("stages::metadata_and_history", metadata_and_history),
    ("stages::arguments_have_scopes", arguments_have_scopes),
    ("stages::triggers_of_a_base_run", triggers_of_a_base_run),
    ("stages::mistakes_are_told_before_anything_is_done", mistakes_are_told_before_anything_is_done),
    ("stages::an_image_that_is_nowhere", an_image_that_is_nowhere),
    ("stages::checks_warn_and_can_end_the_build", checks_warn_and_can_end_the_build),
    ("stages::stages_run_side_by_side", stages_run_side_by_side),
    ("stages::a_failing_stage_ends_the_others", a_failing_stage_ends_the_others),
    ("stages::the_cache_can_be_pruned", the_cache_can_be_pruned),
    ("stages::pruning_beside_builds_takes_nothing_of_theirs", pruning_beside_builds_takes_nothing_of_theirs),
    ("stages::leftovers_are_swept", leftovers_are_swept),
];

fn the_output_is_the_classic_builders(bench: &Bench) {
    let files = [("Dockerfile", "ARG V=latest\nFROM busybox:$V\nLABEL v=1\nCOPY a /a\n"), ("a", "x")];
    let tagged = || BuildRequest { tags: vec!["test/app:1".into(), "test/app".into()], ..request(&files) };
    let (image, text) = bench.done(bench.build_with(tagged()));
    let lines: Vec<&str> = text.lines().collect();
    let steps: Vec<&&str> = lines.iter().filter(|line| line.starts_with("Step")).collect();
    assert_eq!(
        steps,
        [&"Step 1/4 : ARG V=latest", &"Step 2/4 : FROM busybox:$V", &"Step 3/4 : LABEL v=1", &"Step 4/4 : COPY a /a"]
    );
    let short = image.id.short();
    assert!(text.ends_with(&format!(
        " ---> {short}\nSuccessfully built {short}\nSuccessfully tagged test/app:1\nSuccessfully tagged test/app:latest\n"
    )));
    assert!(!text.contains("Using cache"));
    assert_eq!(image.tags, ["test/app:1", "test/app:latest"]);
    let (again, text) = bench.done(bench.build_with(tagged()));
    assert_eq!((again.id, text.matches(" ---> Using cache").count()), (image.id.clone(), 2));
    let quiet = BuildRequest { quiet: true, ..request(&files) };
    let (same, text) = bench.done(bench.build_with(quiet));
    assert_eq!((same.id, text.as_str()), (image.id.clone(), ""));
    let no_cache = BuildRequest { no_cache: true, ..request(&files) };
    let (fresh, text) = bench.done(bench.build_with(no_cache));
    assert_eq!((fresh.diff_ids, text.contains("Using cache")), (image.diff_ids, false));
}

fn only_needed_stages_are_built(bench: &Bench) {
    let files = [
        (
            "Dockerfile",
            "FROM busybox AS base\nCOPY a /a\nFROM nowhere/not-needed AS unused\nFROM base AS left\nCOPY b /b\n\
             FROM scratch AS right\nCOPY --from=base /a /from-base\nCOPY --from=1 /x /x\n\
             FROM scratch\nCOPY --from=left /b /b\nCOPY --from=busybox /etc/passwd /passwd\nCOPY --from=0 /a /a\n",
        ),
        ("a", "aa"),
        ("b", "bb"),
    ];
    let (image, text) = bench.build(&files);
    assert!(!text.contains("unused") && !text.contains("right"));
    assert_eq!(bench.layer_names(&image), ["a"]);
    assert_eq!((bench.read(&image, "a"), bench.read(&image, "b")), ("aa".into(), "bb".into()));
    assert!(bench.read(&image, "passwd").starts_with("root:"));
    let left = BuildRequest { target: Some("left".into()), ..request(&files) };
    let (image, _) = bench.done(bench.build_with(left));
    assert_eq!(bench.read(&image, "b"), "bb");
    assert_eq!(image.config.config.cmd.as_deref(), Some(["sh".to_owned()].as_slice()));
}

fn metadata_and_history(bench: &Bench) {
    let dockerfile = "FROM busybox\nENV A=1 B=\"x y\"\nWORKDIR /srv\nWORKDIR app\nEXPOSE 80\nUSER web\nVOLUME /data\n\
                      ENTRYPOINT [\"/bin/sh\"]\nCMD [\"-c\", \"x\"]\nHEALTHCHECK CMD true\nLABEL a=b\nSTOPSIGNAL SIGINT\n";
    let labelled = BuildRequest { labels: args(&[("c", "d")]), ..request(&[("Dockerfile", dockerfile)]) };
    let (image, _) = bench.done(bench.build_with(labelled));
    let config = &image.config.config;
    assert_eq!(config.env.as_deref().unwrap(), ["PATH=/bin", "A=1", "B=x y"]);
    assert_eq!((config.working_dir.as_str(), config.user.as_str()), ("/srv/app", "web"));
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["/bin/sh"]);
    assert_eq!(config.labels.as_ref().unwrap().len(), 2);
    assert!(bench.exists(&image, "srv/app"));
    let history: Vec<_> =
        image.config.history.iter().map(|h| (h.created_by.as_deref().unwrap_or(""), h.empty_layer)).collect();
    assert_eq!(
        history[1..],
        [
            ("ENV A=1 B=x y", true),
            ("WORKDIR /srv", false),
            ("WORKDIR /srv/app", false),
            ("EXPOSE [80/tcp]", true),
            ("USER web", true),
            ("VOLUME [/data]", true),
            ("ENTRYPOINT [\"/bin/sh\"]", true),
            ("CMD [\"-c\" \"x\"]", true),
            ("HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"0s\" \"0s\" \"0s\" \"0s\" '\\x00'}", true),
            ("LABEL a=b", true),
            ("STOPSIGNAL SIGINT", true),
        ]
    );
    assert_eq!(image.diff_ids.len(), image.config.history.iter().filter(|h| !h.empty_layer).count());
    // When it was built, and not when its files were made.
    let age = jiff::Timestamp::now().as_second() - image.created.parse::<jiff::Timestamp>().unwrap().as_second();
    assert!((0..60).contains(&age), "{}", image.created);
    let (scratch, _) = bench.build(&[("Dockerfile", "FROM scratch\nWORKDIR /\nCOPY Dockerfile /\n")]);
    assert!(scratch.config.config.env.as_ref().unwrap()[0].starts_with("PATH="));
    assert_eq!(scratch.diff_ids.len(), 1);
}

fn arguments_have_scopes(bench: &Bench) {
    let dockerfile = "ARG BASE=nowhere\nARG G=global\nFROM $BASE\nARG G\nARG L=local\nARG TARGETARCH\nARG E=arg\nENV E=env\n\
                      LABEL g=$G l=$L t=$TARGETARCH e=$E none=${BASE:-unset} d=${X:-d}\n";
    let files = [("Dockerfile", dockerfile)];
    let with = BuildRequest {
        build_args: args(&[("BASE", "busybox"), ("L", "given"), ("TYPO", "x"), ("http_proxy", "y")]),
        ..request(&files)
    };
    let (image, text) = bench.done(bench.build_with(with));
    let labels = image.config.config.labels.unwrap();
    let arch = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    for (name, value) in [("g", "global"), ("l", "given"), ("t", arch), ("e", "env"), ("none", "unset"), ("d", "d")] {
        assert_eq!(labels[name], value, "{name}");
    }
    assert!(text.contains("[Warning] One or more build-args [TYPO] were not consumed\n"), "{text}");
}

fn triggers_of_a_base_run(bench: &Bench) {
    let base = BuildRequest {
        tags: vec!["base".into()],
        ..request(&[("Dockerfile", "FROM busybox\nONBUILD COPY a /app/\nONBUILD ENV T=1\n")])
    };
    let (image, _) = bench.done(bench.build_with(base));
    assert_eq!(image.config.config.on_build.as_ref().unwrap().len(), 2);
    let files = [("Dockerfile", "FROM base\nLABEL x=y\n"), ("a", "aa")];
    let (image, text) = bench.build(&files);
    assert!(text.contains("# Executing 2 build triggers\n"));
    assert_eq!(bench.read(&image, "app/a"), "aa");
    assert_eq!(image.config.config.on_build, None);
    assert!(image.config.config.env.unwrap().contains(&"T=1".into()));
    // Of a stage in the same file, and with a stage that nothing else needs.
    let dockerfile = "FROM busybox AS other\nCOPY a /other\nFROM busybox AS parent\nONBUILD COPY --from=other /other /got\n\
                      FROM parent\n";
    let (image, _) = bench.build(&[("Dockerfile", dockerfile), ("a", "aa")]);
    assert_eq!(bench.read(&image, "got"), "aa");
    // A trigger that cannot run is the base's fault, told at the FROM.
    let outcome = bench.try_build(&[("Dockerfile", "FROM busybox\n\nFROM base\n")]);
    let error = outcome.result.unwrap_err();
    assert!(
        error.to_string().contains("COPY failed") && error.place.as_ref().unwrap().starts_with("Dockerfile:3"),
        "{error}"
    );
}

fn mistakes_are_told_before_anything_is_done(bench: &Bench) {
    let outcome = bench.try_build(&[("Dockerfile", "FROM busybox\nRUNN x\nCOPY --form=x a b\n")]);
    let error = outcome.result.unwrap_err();
    assert_eq!((error.kind, outcome.text.as_str()), (ErrorKind::Invalid, ""));
    let text = error.to_string();
    assert!(text.starts_with(
        "dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)\n  Dockerfile:2:1"
    ));
    assert!(text.contains("dockerfile parse error on line 3: unknown flag: --form (did you mean from?)"));
    let nothing = bench.build_with(BuildRequest { dockerfile: "Nope".into(), ..request(&[("a", "")]) });
    assert_eq!(nothing.result.unwrap_err().message, "Cannot locate specified Dockerfile: Nope");
    let tag =
        bench.build_with(BuildRequest { tags: vec!["UPPER".into()], ..request(&[("Dockerfile", "FROM scratch")]) });
    assert!(tag.result.unwrap_err().message.contains("must be lowercase"));
    let target =
        bench.build_with(BuildRequest { target: Some("x".into()), ..request(&[("Dockerfile", "FROM busybox AS y")]) });
    assert!(target.result.unwrap_err().message.contains("target stage \"x\" could not be found"));
    for (dockerfile, message) in [
        ("FROM busybox\nEXPOSE x\n", "invalid containerPort: x"),
        ("FROM busybox\nSTOPSIGNAL NOPE\n", "invalid signal: NOPE"),
        (
            "FROM busybox\nCOPY nope /\n",
            "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist",
        ),
        ("FROM busybox\nLABEL a=${X:?missing}\n", "X: missing"),
    ] {
        let error = bench.try_build(&[("Dockerfile", dockerfile)]).result.unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.place.unwrap().starts_with("Dockerfile:2: "));
    }
}

fn an_image_that_is_nowhere(bench: &Bench) {
    let error = bench.try_build(&[("Dockerfile", "FROM scratch\nFROM nowhere/image:1\n")]).result.unwrap_err();
    let words = "nowhere/image:1: failed to resolve source metadata for docker.io/nowhere/image:1: No such image: nowhere/image:1";
    assert_eq!((error.kind, error.message.as_str()), (ErrorKind::NotFound, words));
    assert_eq!(error.place.as_deref(), Some("Dockerfile:2: FROM nowhere/image:1"));
}

fn checks_warn_and_can_end_the_build(bench: &Bench) {
    let dockerfile = "FROM busybox\nENV P=$PATH\nLABEL a=$NOPE\nCMD x\n";
    let (_, text) = bench.build(&[("Dockerfile", dockerfile)]);
    assert!(text.contains("[Warning] UndefinedVar: Usage of undefined variable '$NOPE' (line 3)\n"), "{text}");
    assert!(text.contains("[Warning] JSONArgsRecommended:") && !text.contains("$PATH'"), "{text}");
    let strict = format!("# check=error=true;skip=UndefinedVar\n{dockerfile}");
    let outcome = bench.try_build(&[("Dockerfile", &strict)]);
    assert_eq!(outcome.result.unwrap_err().message, "lint violation found for rules: JSONArgsRecommended");
    assert!(
        outcome.text.contains("[Warning] JSONArgsRecommended:") && !outcome.text.contains("Step"),
        "{}",
        outcome.text
    );
}

fn stages_run_side_by_side(bench: &Bench) {
    let mut dockerfile = String::new();
    for stage in 0..4 {
        // The first is the slowest, so that all the others wait to be heard.
        let time = 12 - stage;
        dockerfile.push_str(&format!(
            "FROM busybox AS s{stage}\nRUN echo begin {stage}; sleep 0.{time:02}; echo end {stage} > /out; cat /out\n"
        ));
    }
    dockerfile.push_str("FROM busybox\nCOPY --from=s0 /out /0\nCOPY --from=s1 /out /1\nCOPY --from=s2 /out /2\nCOPY --from=s3 /out /3\n");
    let slow = dockerfile.replace("sleep 0.", "sleep 1.");
    let began = std::time::Instant::now();
    let (image, text) = bench.build(&[("Dockerfile", &slow)]);
    let took = began.elapsed();
    assert!(took < std::time::Duration::from_secs(4), "one after another: {took:?}");
    for stage in 0..4 {
        assert_eq!(bench.read(&image, &stage.to_string()), format!("end {stage}\n"));
    }
    let heard: Vec<&str> = text
        .lines()
        .filter(|line| ["Step", "begin", "end"].iter().any(|word| line.starts_with(word)))
        .map(|line| line.split(" : ").next().unwrap())
        .collect();
    let mut expected = Vec::new();
    for stage in 0..4 {
        expected.push(format!("Step {}/13", 2 * stage + 1));
        expected.push(format!("Step {}/13", 2 * stage + 2));
        expected.extend([format!("begin {stage}"), format!("end {stage}")]);
    }
    expected.extend((9..14).map(|step| format!("Step {step}/13")));
    assert_eq!(heard, expected, "{text}");
    // The same again is heard the same.
    let (again, text) = bench.build(&[("Dockerfile", &slow)]);
    assert_eq!((again.id, text.matches("Using cache").count()), (image.id, 8), "{text}");
    let steps: Vec<&str> = text.lines().filter(|line| line.starts_with("Step")).collect();
    assert!(steps.iter().enumerate().all(|(at, line)| line.starts_with(&format!("Step {}/13", at + 1))), "{text}");
}

fn a_failing_stage_ends_the_others(bench: &Bench) {
    let dockerfile = "FROM busybox AS slow\nRUN echo waiting; sleep 60\nFROM busybox AS bad\nRUN echo failing; sleep 0.5; exit 3\n\
                      FROM busybox AS last\nRUN echo unheard; sleep 60\nFROM busybox\nCOPY --from=slow /a /\n\
                      COPY --from=bad /a /\nCOPY --from=last /a /\n";
    let began = std::time::Instant::now();
    let outcome = bench.try_build(&[("Dockerfile", dockerfile)]);
    assert!(began.elapsed() < std::time::Duration::from_secs(15), "{:?}", began.elapsed());
    let error = outcome.result.unwrap_err();
    assert_eq!((error.kind, error.exit_code), (ErrorKind::Command, Some(3)), "{error}");
    assert!(error.place.unwrap().starts_with("Dockerfile:4: RUN echo failing"));
    let (above, own) = (outcome.text.find("waiting\n").unwrap(), outcome.text.find("failing\n").unwrap());
    assert!(above < own && !outcome.text.contains("unheard\n"), "{}", outcome.text);
}

fn the_cache_can_be_pruned(bench: &Bench) {
    let files =
        [("Dockerfile", "FROM busybox AS a\nCOPY a /a\nFROM busybox\nCOPY --from=a /a /b\n"), ("a", "some text")];
    let (image, _) = bench.build(&files);
    let pinned = bench.builder.pinned().unwrap();
    let intermediate: Vec<_> = pinned.iter().filter(|layer| !image.diff_ids.contains(layer)).collect();
    assert_eq!(intermediate.len(), 1);
    let pruned = bench.builder.prune(&|_, _| true, true).unwrap();
    assert!(pruned.freed > 0 && !bench.layers.contains(intermediate[0]));
    assert!(image.diff_ids.iter().all(|layer| bench.layers.contains(layer)));
    assert!(bench.builder.records().unwrap().is_empty());
    assert_eq!(bench.read(&image, "b"), "some text");
    let (again, text) = bench.build(&files);
    assert!(!text.contains("Using cache") && again.diff_ids == image.diff_ids);
}

fn pruning_beside_builds_takes_nothing_of_theirs(bench: &Bench) {
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                bench.builder.prune(&|_, _| true, true).unwrap();
                // As an image prune of the daemon does it.
                bench.images.prune(true, &|_| true, &|_| false).unwrap();
                bench.images.collect(&|| bench.builder.pinned().unwrap()).unwrap();
                // Builds must get their turn too: all of it waits for the same disk.
                std::thread::sleep(std::time::Duration::from_millis(3));
            }
        });
        let mut images = Vec::new();
        for round in 0..12 {
            let dockerfile = format!(
                "FROM busybox AS a\nCOPY a /a\nRUN echo {round} >> /a\nFROM busybox\nCOPY --from=a /a /b\nRUN cat /b > /c\n"
            );
            // The same layers come again and again, so that they are found while they go.
            let name = format!("round{}", round % 4);
            let request = BuildRequest {
                tags: vec![name],
                ..request(&[
                    ("Dockerfile", &dockerfile.replace(&round.to_string(), &(round % 4).to_string())),
                    ("a", "x\n"),
                ])
            };
            let (image, _) = bench.done(bench.build_with(request));
            assert_eq!(bench.read(&image, "c"), format!("x\n{}\n", round % 4));
            images.push(image);
        }
        for image in &images {
            // Some have lost their name to a later one and are here all the same.
            assert!(image.diff_ids.iter().all(|layer| bench.layers.contains(layer)), "{:?}", image.diff_ids);
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

fn leftovers_are_swept(bench: &Bench) {
    let left = bench.data.path().join("build/b-crashed/step-1/upper");
    std::fs::create_dir_all(&left).unwrap();
    let cache = bench.data.path().join("build/cache/kept");
    std::fs::create_dir_all(&cache).unwrap();
    std::fs::create_dir_all(bench.exec.path().join("build/dead")).unwrap();
    bench.restarted();
    assert!(!left.exists() && cache.exists());
    assert!(context(&[("a", "")]).len() > 512);
}
