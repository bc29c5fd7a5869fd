//! `checkpoint` and `restore` need CRIU. Their words are read, so that the answer is about that and not about a flag.

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::words::{Flag, Given, switch, value};

pub(crate) const FLAGS: &[Flag] = &[
    value("bundle", "").short("b"),
    value("console-socket", ""),
    value("image-path", ""),
    value("work-path", ""),
    value("parent-path", ""),
    value("status-fd", ""),
    value("page-server", ""),
    value("manage-cgroups-mode", ""),
    value("empty-ns", ""),
    value("pid-file", ""),
    value("lsm-profile", ""),
    value("lsm-mount-context", ""),
    switch("leave-running", ""),
    switch("tcp-established", ""),
    switch("ext-unix-sk", ""),
    switch("shell-job", ""),
    switch("lazy-pages", ""),
    switch("file-locks", ""),
    switch("pre-dump", ""),
    switch("auto-dedup", ""),
    switch("detach", "").short("d"),
    switch("no-subreaper", ""),
    switch("no-pivot", ""),
];

pub(crate) fn refuse(_: &Global, _: &Given) -> Result<u8> {
    Err(Failure::new("checkpoints are not supported: this runtime does not use CRIU"))
}
