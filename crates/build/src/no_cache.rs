//! `--no-cache-filter`: stages that are made again.

use wharf_dockerfile::Dockerfile;

use crate::error::Result;
use crate::output::Output;
use crate::session::Common;

impl Common<'_> {
    /// Whether the request wants this stage made again.
    pub(crate) fn is_made_again(&self, stage: usize) -> bool {
        let name = self.dockerfile.stages[stage].name.as_deref();
        let is_it =
            |text: &String| name.is_some_and(|name| text.eq_ignore_ascii_case(name)) || *text == stage.to_string();
        self.options.no_cache || self.options.no_cache_filter.iter().any(is_it)
    }
}

/// Tells of names of stages that are not there. They are no error: a list may be for several Dockerfiles.
pub(crate) fn check_stages(output: &Output, dockerfile: &Dockerfile, names: &[String]) -> Result<()> {
    for name in names {
        let is_it = |(number, stage): (usize, &wharf_dockerfile::Stage)| {
            stage.name.as_deref().is_some_and(|own| name.eq_ignore_ascii_case(own)) || *name == number.to_string()
        };
        if !dockerfile.stages.iter().enumerate().any(is_it) {
            let names = dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref());
            let hint = wharf_dockerfile::nearest(name, names).map(|hint| format!(" (did you mean {hint}?)"));
            let hint = hint.unwrap_or_default();
            output.text(format!("[Warning] no-cache-filter: there is no stage {name:?}{hint}\n"))?;
        }
    }
    Ok(())
}
