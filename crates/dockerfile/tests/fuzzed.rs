//! The body of the fuzz target `dockerfile_text`, which is an ordinary test as well.

use std::sync::Arc;

use wharf_dockerfile::{
    Contexts, Dockerfile, Globals, Graph, Ignore, Known, Platform, Platforms, Scope, check as lint,
};

/// A text as a Dockerfile is refused with the lines that are wrong, or is a graph of stages whose instructions are expanded
/// or refused.
pub(crate) fn check(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let lines = u32::try_from(text.split('\n').count()).unwrap_or(u32::MAX);
    // The patterns of an ignore file are any lines.
    if let Ok(ignore) = Ignore::parse(&text) {
        let _ = ignore.is_ignored("a/b.c");
    }
    let dockerfile = match Dockerfile::parse("Dockerfile", &text) {
        Ok(dockerfile) => dockerfile,
        Err(errors) => {
            assert!(errors.iter().count() > 0);
            for error in errors.iter() {
                assert!(!error.message.is_empty() && error.position.line <= lines, "{error} in {text:?}");
            }
            return false;
        }
    };
    let host = Platform::host();
    let platforms = Platforms { target: host.clone(), build: host };
    let Ok(globals) = Globals::new(&dockerfile, &platforms, "", Default::default()) else { return true };
    let globals = Arc::new(globals);
    let Ok(graph) = Graph::new(&dockerfile, &globals, None, Contexts::new()) else { return true };
    assert!(graph.needed().iter().all(|stage| *stage < dockerfile.stages.len()));
    for statement in dockerfile.stages.iter().flat_map(|stage| &stage.statements) {
        let span = statement.source.span;
        assert!(span.line() >= 1 && span.line() <= span.end_line && span.end_line <= lines, "{span:?} in {text:?}");
        let scope = Scope::new(Arc::clone(&globals), Vec::new());
        let _ = statement.instruction.expand(dockerfile.directives.escape, &scope);
    }
    let known = Known { globals, graph: &graph, ignore: &Ignore::default(), base_env: &|_| None, stages: None };
    let _ = lint(&dockerfile, &known);
    true
}

#[cfg(test)]
#[path = "../../../fuzz/mutate.rs"]
pub(crate) mod mutate;

#[cfg(test)]
mod tests {
    use super::mutate;

    #[test]
    fn seeds_are_taken_and_what_is_near_them_is_taken_or_refused() {
        let seeds = mutate::seeds("dockerfile_text");
        for seed in &seeds {
            assert!(super::check(seed), "{}", String::from_utf8_lossy(seed));
        }
        let taken = (0..2000).filter(|number| super::check(&mutate::mutated(&seeds, *number))).count();
        assert!(taken > 100, "{taken}");
    }
}
