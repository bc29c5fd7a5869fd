//! Arguments of the request that nothing has asked for.

use wharf_dockerfile::PREDEFINED;

use crate::error::Result;
use crate::session::{Common, lock};

impl Common<'_> {
    /// Says which arguments nothing has asked for.
    pub(crate) fn warn_of_arguments(&self) -> Result<()> {
        let consumed = lock(&self.consumed);
        let known = |name: &String| consumed.contains(name) || PREDEFINED.contains(&name.as_str());
        let automatic = |name: &String| {
            let rest = name.strip_prefix("BUILD").or_else(|| name.strip_prefix("TARGET"));
            rest.is_some_and(|rest| matches!(rest, "PLATFORM" | "OS" | "ARCH" | "VARIANT" | "OSVERSION" | "STAGE"))
                || name.starts_with("BUILDKIT_")
                || name == "SOURCE_DATE_EPOCH"
        };
        let unused: Vec<&str> = self
            .globals
            .build_args()
            .keys()
            .filter(|name| !known(name) && !automatic(name))
            .map(String::as_str)
            .collect();
        if unused.is_empty() {
            return Ok(());
        }
        self.output.text(format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" ")))
    }
}
