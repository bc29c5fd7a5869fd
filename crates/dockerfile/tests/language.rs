//! Whole Dockerfiles: what they become, and what is said of those that are wrong.

use wharf_dockerfile::{CommandLine, Dockerfile, Instruction, RunNetwork, Scope, Script, Variables};

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse("Dockerfile", text).unwrap_or_else(|e| panic!("{text}\n{e}"))
}

/// The instructions of the only stage.
fn steps(text: &str) -> Vec<Instruction> {
    let dockerfile = parse(&format!("FROM scratch\n{text}"));
    dockerfile.stages[0].statements.iter().map(|s| s.instruction.clone()).collect()
}

fn step(text: &str) -> Instruction {
    steps(text).remove(0)
}

fn errors(text: &str) -> Vec<(u32, u32, String)> {
    let errors = Dockerfile::parse("Dockerfile", text).expect_err(text);
    let one = |e: &wharf_dockerfile::ParseError| {
        let hint = e.hint.as_ref().map(|hint| format!(" ({hint}?)")).unwrap_or_default();
        (e.position.line, e.position.column, format!("{}{hint}", e.message))
    };
    errors.iter().map(one).collect()
}

#[test]
fn stages_have_names_platforms_and_steps() {
    let dockerfile = parse(
        "# syntax=docker/dockerfile:1\n# escape=`\nARG V=1\nFROM --platform=$BUILDPLATFORM go:$V AS Build\n\
         RUN a `\n  b\nfrom scratch\ncopy --from=build /a /b\n",
    );
    assert_eq!(dockerfile.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(dockerfile.global_arguments().count(), 1);
    let [build, last] = dockerfile.stages.as_slice() else { panic!("two stages") };
    assert_eq!((build.name.as_deref(), build.base.as_str()), (Some("build"), "go:$V"));
    assert_eq!(build.platform.as_deref(), Some("$BUILDPLATFORM"));
    assert_eq!(build.statements[0].source.text, "RUN a   b");
    assert_eq!((build.statements[0].source.span.line(), build.statements[0].source.span.end_line), (5, 6));
    assert_eq!((last.name.as_deref(), last.label(1).as_str()), (None, "stage-1"));
}

#[test]
fn commands_have_a_shell_form_and_an_exec_form() {
    for (text, args, shell) in [
        ("CMD echo  \"hi\"", vec!["echo  \"hi\""], true),
        ("CMD [\"echo\", \"hi there\"]", vec!["echo", "hi there"], false),
        ("CMD ['echo']", vec!["['echo']"], true),
        ("CMD [\"echo\" hi]", vec!["[\"echo\" hi]"], true),
        ("CMD []", vec![], false),
        ("CMD", vec![""], true),
    ] {
        let Instruction::Cmd(command) = step(text) else { panic!("{text}") };
        assert_eq!((command.args, command.shell), (args.into_iter().map(str::to_owned).collect(), shell), "{text}");
    }
    let Instruction::Run(run) = step("RUN --network=none --mount=type=cache,target=/c [\"a\", \"b\"]") else {
        panic!()
    };
    assert_eq!((run.network, run.command.args.len(), run.mounts().unwrap().len()), (RunNetwork::None, 2, 1));
    assert_eq!(step("SHELL [\"/bin/bash\", \"-c\"]"), Instruction::Shell(vec!["/bin/bash".into(), "-c".into()]));
}

#[test]
fn copies_have_sources_flags_and_contents() {
    let Instruction::Copy(copy) =
        step("COPY --from=x --chown=a:b --chmod=u+x --link --parents --exclude=*.md --exclude=.git a b /c/")
    else {
        panic!()
    };
    assert_eq!((copy.sources, copy.destination.as_str()), (vec!["a".to_owned(), "b".into()], "/c/"));
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("x"), Some("a:b"), Some("u+x"))
    );
    assert!(copy.link && copy.parents && copy.exclude == ["*.md", ".git"]);
    let Instruction::Copy(copy) = step("COPY [\"a b\", \"c d/\"]") else { panic!() };
    assert_eq!((copy.sources, copy.destination.as_str()), (vec!["a b".to_owned()], "c d/"));
    let Instruction::Add(add) = step("ADD --keep-git-dir --checksum=sha256:x --unpack=false http://h/f /") else {
        panic!()
    };
    assert_eq!((add.keep_git_dir, add.checksum.as_deref(), add.unpack), (Some(true), Some("sha256:x"), Some(false)));
}

#[test]
fn heredocs_become_files_and_scripts() {
    let text = "COPY <<a.txt <<-'b.txt' real /dir/\n$X\na.txt\n\t$X\nb.txt\nENV X=1";
    let steps = steps(text);
    let Instruction::Copy(copy) = &steps[0] else { panic!() };
    assert_eq!(copy.sources, ["real"]);
    let contents: Vec<_> = copy.contents.iter().map(|c| (c.name.as_str(), c.data.as_str(), c.expand)).collect();
    assert_eq!(contents, [("a.txt", "$X\n", true), ("b.txt", "$X\n", false)]);
    assert_eq!(steps.len(), 2);

    let Instruction::Copy(copy) = steps[0].expand('\\', [("X", "don't")].as_slice()).unwrap() else { panic!() };
    assert_eq!((copy.contents[0].data.as_str(), copy.contents[1].data.as_str()), ("don't\n", "$X\n"));

    let Instruction::Run(run) = step("RUN <<EOF\napt-get update\nEOF") else { panic!() };
    assert_eq!((run.command.args[0].as_str(), run.heredocs[0].content.as_str()), ("<<EOF", "apt-get update\n"));
    assert_eq!(step("ONBUILD RUN <<EOF\nhi\nEOF\n"), Instruction::Onbuild("RUN <<EOF\nhi\nEOF".into()));
}

#[test]
fn a_run_with_heredocs_is_a_script() {
    let script = |text: &str| match step(text) {
        Instruction::Run(run) => run.script(),
        other => panic!("{other:?}"),
    };
    let shell = |text: &str| Script::Command(CommandLine { args: vec![text.into()], shell: true });
    assert_eq!(script("RUN <<EOF\na\nb\nEOF"), shell("a\nb\n"));
    assert_eq!(script("RUN <<-EOF\n\ta\nEOF"), shell("a\n"));
    assert_eq!(script("RUN cat <<A 3<<B\na\nA\nb\nB"), shell("cat <<A 3<<B\na\nA\nb\nB"));
    assert_eq!(script("RUN python3 <<EOF\nprint(1)\nEOF"), shell("python3 <<EOF\nprint(1)\nEOF"));
    let program = Script::Program { name: "EOF".into(), text: "#!/bin/awk -f\nx\n".into() };
    assert_eq!(script("RUN <<EOF\n#!/bin/awk -f\nx\nEOF"), program);
    assert_eq!(script("RUN echo 1"), shell("echo 1"));
}

#[test]
fn metadata_is_read() {
    assert_eq!(step("EXPOSE 80/tcp  53/udp"), Instruction::Expose(vec!["53/udp".into(), "80/tcp".into()]));
    assert_eq!(step("VOLUME /a /b"), Instruction::Volume(vec!["/a".into(), "/b".into()]));
    assert_eq!(step("VOLUME [\"/a b\"]"), Instruction::Volume(vec!["/a b".into()]));
    assert_eq!(step("WORKDIR /a b"), Instruction::Workdir("/a b".into()));
    assert_eq!(step("STOPSIGNAL SIGINT"), Instruction::StopSignal("SIGINT".into()));
    let Instruction::Healthcheck(check) = step(
        "HEALTHCHECK --interval=1m30s --timeout=3s --start-period=5s --start-interval=100ms --retries=4 CMD curl x",
    ) else {
        panic!()
    };
    assert_eq!(check.test, ["CMD-SHELL", "curl x"]);
    assert_eq!((check.interval, check.retries, check.start_interval), (90_000_000_000, 4, 100_000_000));
    let Instruction::Healthcheck(none) = step("HEALTHCHECK NONE") else { panic!() };
    assert_eq!(none.test, ["NONE"]);
    let Instruction::Healthcheck(exec) = step("HEALTHCHECK CMD [\"a\", \"b\"]") else { panic!() };
    assert_eq!(exec.test, ["CMD", "a", "b"]);
    let Instruction::Arg(arguments) = step("ARG A B=2 C='x y'") else { panic!() };
    let got: Vec<_> = arguments.iter().map(|a| (a.name.as_str(), a.default.as_deref())).collect();
    assert_eq!(got, [("A", None), ("B", Some("2")), ("C", Some("'x y'"))]);
}

#[test]
fn variables_are_expanded_where_the_language_says_so() {
    let vars: &[(&str, &str)] = &[("A", "1"), ("PORTS", "80 90")];
    let expand = |text: &str| step(text).expand('\\', vars).unwrap();
    assert_eq!(expand("WORKDIR /x$A"), Instruction::Workdir("/x1".into()));
    assert_eq!(expand("EXPOSE $PORTS 1$A"), Instruction::Expose(vec!["80".into(), "90".into(), "11".into()]));
    assert_eq!(expand("RUN echo $A"), step("RUN echo $A"));
    assert_eq!(expand("CMD echo $A"), step("CMD echo $A"));
    let Instruction::Env(env) = expand("ENV X='$A' Y=\"$A b\" Z=$A\\ c") else { panic!() };
    let values: Vec<_> = env.iter().map(|pair| pair.value.as_str()).collect();
    assert_eq!(values, ["$A", "1 b", "1 c"]);
    let Instruction::Label(labels) = expand("LABEL a.$A=\"x\" b=c") else { panic!() };
    assert_eq!(labels[0].name, "a.1");
    let Instruction::Run(run) = expand("RUN --mount=type=cache,target=/c$A x") else { panic!() };
    assert_eq!(run.mounts().unwrap()[0].target.as_deref(), Some("/c1"));
}

#[test]
fn all_mistakes_are_told_at_once_and_where() {
    let text = "FROM debian\nRUNN echo\n\nCOPY --form=x a b\nCOPY a\nRUN ok\nENV a=b c\n  HEALTHCHECK CM x\n";
    let what = "COPY requires at least two arguments, but only one was provided. Destination could not be determined";
    assert_eq!(
        errors(text),
        [
            (2, 1, "unknown instruction: RUNN (RUN?)".to_owned()),
            (4, 6, "unknown flag: --form (from?)".into()),
            (5, 1, what.into()),
            (7, 9, "Syntax error - can't find = in \"c\". Must be of the form: name=value".into()),
            (8, 15, "unknown type \"CM\" in HEALTHCHECK (try CMD) (CMD?)".into()),
        ]
    );
    let shown =
        Dockerfile::parse("sub/Dockerfile", "FROM a\nRUN x\nRUNN echo hi \\\n there\n").unwrap_err().to_string();
    assert_eq!(
        shown,
        "dockerfile parse error on line 3: unknown instruction: RUNN (did you mean RUN?)\n  \
         sub/Dockerfile:3:1: RUNN echo hi  there"
    );
}

#[test]
fn mistakes_of_each_kind() {
    for (text, message) in [
        ("", "the Dockerfile cannot be empty"),
        ("# nothing\n", "file with no instructions"),
        ("ARG A\n", "dockerfile contains no stages to build"),
        ("RUN x\nFROM a\n", "no build stage in current context: RUN comes before FROM"),
        ("FROM\n", "FROM requires either one or three arguments"),
        ("FROM a b\n", "FROM requires either one or three arguments"),
        ("FROM a AS 1x\n", "invalid name for build stage: \"1x\", name can't start with a number or contain symbols"),
        ("FROM a\nENV\n", "ENV requires at least one argument"),
        ("FROM a\nARG\n", "ARG requires at least one argument"),
        ("FROM a\nARG =x\n", "ARG names can not be blank"),
        ("FROM a\nWORKDIR\n", "WORKDIR requires exactly one argument"),
        ("FROM a\nEXPOSE\n", "EXPOSE requires at least one argument"),
        ("FROM a\nSHELL bash -c\n", "SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSHELL []\n", "SHELL requires at least one argument"),
        ("FROM a\nVOLUME [\"\"]\n", "VOLUME specified can not be an empty string"),
        ("FROM a\nCMD [1]\n", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("FROM a\nONBUILD ONBUILD RUN x\n", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM x\n", "FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD COPYY x y\n", "unknown instruction: COPYY (COPY?)"),
        ("FROM a\nCOPY a <<E\nE\n", "COPY cannot accept a heredoc as a destination"),
        ("FROM a\nRUN <<E\n", "unterminated heredoc"),
        ("FROM a\nRUN --network=hots x\n", "invalid network mode \"hots\" (host?)"),
        ("FROM a\nRUN --mount=type=bnd x\n", "unsupported mount type \"bnd\" (bind?)"),
        (
            "FROM a\nRUN --mount=from=$x,target=/y x\n",
            "'from' doesn't support variable expansion, define alias stage instead",
        ),
        ("FROM a\nHEALTHCHECK --interval=1 CMD x\n", "time: invalid duration \"1\""),
        ("FROM a\nHEALTHCHECK --interval=1us CMD x\n", "Interval \"interval\" cannot be less than 1ms"),
        ("FROM a\nHEALTHCHECK --retries=-1 CMD x\n", "--retries cannot be negative (-1)"),
        ("FROM a\nHEALTHCHECK CMD\n", "missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK NONE x\n", "HEALTHCHECK NONE takes no arguments"),
        ("# escape=x\nFROM a\n", "invalid escape token 'x' does not match ` or \\"),
    ] {
        let found = errors(text);
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert_eq!(found[0].2, message, "{text}");
    }
}

#[test]
fn a_wrong_from_is_not_followed_by_errors_about_its_absence() {
    assert_eq!(errors("FROM a b\nRUN x\n").len(), 1);
}

#[test]
fn triggers_are_single_instructions() {
    let dockerfile = parse("FROM base\n");
    let from = &dockerfile.stages[0].from;
    let trigger = |text: &str| Dockerfile::parse_trigger("Dockerfile", text, from);
    let copy = trigger("COPY . /app").unwrap();
    assert_eq!((copy.instruction.name(), copy.source.span.line()), ("COPY", 1));
    assert!(trigger("RUN <<EOF\nx\nEOF").is_ok());
    for bad in ["", "FROM x", "RUN a\nRUN b", "ONBUILD RUN x", "NOPE", "MAINTAINER me"] {
        assert!(trigger(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_scope_expands_as_the_stage_goes_on() {
    let dockerfile = parse("FROM x\nARG V=1\nENV W=$V-2\n");
    let mut scope = Scope::new(std::sync::Arc::default(), vec![("PATH".into(), "/bin".into())]);
    for statement in &dockerfile.stages[0].statements {
        match statement.instruction.expand('\\', &scope).unwrap() {
            Instruction::Arg(arguments) => {
                scope.declare(&arguments[0], '\\').unwrap();
            }
            Instruction::Env(pairs) => scope.set(&pairs[0].name, &pairs[0].value),
            _ => {}
        }
    }
    assert_eq!(scope.value("W"), Some("1-2"));
}

/// Hostile text must end in an error or a result, never in a panic or without end.
#[test]
fn nonsense_does_not_panic() {
    let pieces = [
        "FROM a\n", "RUN ", "<<EOF", "\n", "\\\n", "${", "}", "'", "\"", "[", "--mount=", "é", "#", "\0", "`", "$",
        "<<-''", "ONBUILD ",
    ];
    let mut state = 12345u64;
    for _ in 0..3_000 {
        let mut text = String::from("FROM a\n");
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        if let Ok(dockerfile) = Dockerfile::parse("f", &text) {
            for statement in dockerfile.stages.iter().flat_map(|stage| &stage.statements) {
                let _ = statement.instruction.expand('\\', &wharf_dockerfile::NoVariables);
            }
        }
    }
}
