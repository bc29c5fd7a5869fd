//! `SOURCE_DATE_EPOCH`: the time of everything that a build makes (reproducible-builds.org).

use wharf_dockerfile::{Globals, Variables};

use crate::error::{BuildError, Result};

/// The time that the user wants all results to have.
pub(crate) fn source_date_epoch(globals: &Globals, newest: i64) -> Result<Option<i64>> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let Some(text) = globals.build_arg(NAME).or_else(|| globals.value(NAME)).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    if text == "context" {
        return Ok(Some(newest));
    }
    let seconds = text.parse::<i64>().ok().filter(|seconds| *seconds >= 0);
    seconds.map(Some).ok_or_else(|| BuildError::invalid(format!("invalid {NAME}: {text:?} is no number of seconds")))
}
