//! What clients may ask for: moby/buildkit `frontend/gateway/pb/caps.go`, `solver/pb/caps.go`.

use crate::proto::gateway::Capability;

/// Of the bridge.
const FRONTEND: &[&str] = &[
    "solve.base",
    "resolveimage",
    "resolveimage.resolvemode",
    "source.metaresolver",
    "readfile",
    "return",
    "returnmap",
    "readdir",
    "statfile",
    "importcaches",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "frontend.caps",
    "gateway.solve.evaluate",
];

/// Of graphs. Clients look here for what Dockerfiles may have and exporters can do, and compare what they send with it.
const GRAPH: &[&str] = &[
    "source.image",
    "source.image.resolvemode",
    "source.local",
    "source.local.unique",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.git",
    "source.git.keepgitdir",
    "source.git.fullurl",
    "source.ocilayout",
    "source.http",
    "constraints",
    "platform",
    "meta.description",
    "exporter.image.annotations",
    "exporter.image.attestations",
    "exporter.sourcedateepoch",
    "exporter.multiple",
    "gc.freespacefilter",
];

fn all(names: &[&str]) -> Vec<Capability> {
    names.iter().map(|name| Capability { id: (*name).to_owned(), enabled: true }).collect()
}

pub(crate) fn frontend() -> Vec<Capability> {
    all(FRONTEND)
}

pub(crate) fn graph() -> Vec<Capability> {
    all(GRAPH)
}
