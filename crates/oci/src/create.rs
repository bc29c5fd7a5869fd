//! `create`: a container whose first process waits for `start`.

use crate::failure::Result;
use crate::global::Global;
use crate::launch::launch;
use crate::words::Given;

pub(crate) fn run(global: &Global, given: &Given) -> Result<u8> {
    let made = launch(global, given, true, true).map_err(|failure| failure.during("runc create failed"))?;
    made.created.leave();
    Ok(0)
}
