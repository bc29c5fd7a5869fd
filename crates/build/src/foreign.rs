//! Commands of other platforms.

use wharf_dockerfile::Platform;
use wharf_image::ImageConfig;

use crate::error::BuildError;

/// Says of a program that is none to this kernel what would make it one.
pub(crate) fn foreign(mut error: BuildError, image: &ImageConfig) -> BuildError {
    let host = Platform::host();
    if image.architecture != host.architecture && error.message.to_lowercase().contains("exec format error") {
        error.message.push_str(&format!(
            ": this host runs no programs for {}; register an emulator with binfmt_misc (qemu-user-static), or run the \
             command in a stage that is FROM --platform=$BUILDPLATFORM",
            image.architecture
        ));
    }
    error
}
