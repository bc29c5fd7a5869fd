//! Failures of the layers below, in the engine's kinds.

use crate::error::{EngineError, ErrorKind};
use wharf_report::chain;

impl From<wharf_image::ImageError> for EngineError {
    fn from(error: wharf_image::ImageError) -> Self {
        use wharf_image::ErrorKind as Kind;
        let kind = match error.kind() {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Invalid => ErrorKind::InvalidParameter,
            Kind::Conflict => ErrorKind::Conflict,
            Kind::Denied => ErrorKind::Forbidden,
            Kind::Full | Kind::System => ErrorKind::System,
        };
        Self::new(kind, chain(&error))
    }
}

impl From<wharf_snapshot::SnapshotError> for EngineError {
    fn from(error: wharf_snapshot::SnapshotError) -> Self {
        Self::system(chain(&error))
    }
}

impl From<wharf_network::NetworkError> for EngineError {
    fn from(error: wharf_network::NetworkError) -> Self {
        use wharf_network::ErrorKind as Kind;
        let kind = match error.kind() {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Invalid => ErrorKind::InvalidParameter,
            Kind::Conflict => ErrorKind::Conflict,
            Kind::Forbidden => ErrorKind::Forbidden,
            Kind::NotImplemented => ErrorKind::NotImplemented,
            Kind::System => ErrorKind::System,
        };
        Self::new(kind, chain(&error))
    }
}

impl From<wharf_volume::VolumeError> for EngineError {
    fn from(error: wharf_volume::VolumeError) -> Self {
        use wharf_volume::ErrorKind as Kind;
        let kind = match error.kind() {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Invalid => ErrorKind::InvalidParameter,
            Kind::Conflict => ErrorKind::Conflict,
            Kind::System => ErrorKind::System,
        };
        Self::new(kind, chain(&error))
    }
}

impl From<wharf_image::registry::DistributionError> for EngineError {
    fn from(error: wharf_image::registry::DistributionError) -> Self {
        use wharf_image::registry::Kind;
        let kind = match error.kind() {
            Kind::NotFound => ErrorKind::NotFound,
            Kind::Invalid => ErrorKind::InvalidParameter,
            Kind::Unauthorized => ErrorKind::Unauthorized,
            Kind::Denied => ErrorKind::Forbidden,
            _ => ErrorKind::System,
        };
        Self::new(kind, chain(&error))
    }
}
