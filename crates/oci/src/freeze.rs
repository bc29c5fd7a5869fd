//! `pause` and `resume`.

use crate::failure::{Failure, Result};
use crate::global::Global;
use crate::state::{Container, Status};
use crate::words::Given;

pub(crate) fn pause(global: &Global, given: &Given) -> Result<u8> {
    let container = Container::lock(global, &given.arguments[0])?;
    if !matches!(container.status(), Status::Running | Status::Created) {
        return Err(Failure::new("container not running"));
    }
    container.group.freeze(true)?;
    Ok(0)
}

pub(crate) fn resume(global: &Global, given: &Given) -> Result<u8> {
    let container = Container::lock(global, &given.arguments[0])?;
    if container.status() != Status::Paused {
        return Err(Failure::new("container not paused"));
    }
    container.group.freeze(false)?;
    Ok(0)
}
