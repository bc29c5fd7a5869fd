//! The commands, and the tree they hang in.

mod build;
mod builder;
mod capture;
mod completion;
mod container;
mod context;
mod context_file;
mod docs;
mod image;
mod inspect;
mod login;
mod manifest;
mod manifest_store;
mod network;
mod plugin;
mod reach;
pub(crate) mod swarm;
mod system;
mod volume;
mod volume_copies;

use crate::command::{Command, Entry, Group, Section};

/// The groups, in the order of `--help`.
pub(crate) const GROUPS: &[Group] = &[
    group("builder", "Manage builds"),
    group("container", "Manage containers"),
    group("context", "Manage contexts"),
    Group { name: "docs", about: "Write documentation", hidden: true },
    group("image", "Manage images"),
    group("manifest", "Manage Docker image manifests and manifest lists"),
    group("network", "Manage networks"),
    group("plugin", "Manage plugins"),
    group("system", "Manage Docker"),
    group("volume", "Manage volumes"),
];

const fn group(name: &'static str, about: &'static str) -> Group {
    Group { name, about, hidden: false }
}

const fn entry(
    group: &'static str,
    name: &'static str,
    aliases: &'static [&'static str],
    command: &'static Command,
) -> Entry {
    Entry { group, name, aliases, command, hidden: false, section: Section::Other }
}

const fn common(place: u8, name: &'static str, command: &'static Command) -> Entry {
    Entry { group: "", name, aliases: &[], command, hidden: false, section: Section::Common(place) }
}

const fn hidden(group: &'static str, name: &'static str, command: &'static Command) -> Entry {
    Entry { group, name, aliases: &[], command, hidden: true, section: Section::Other }
}

/// Every place where a command can be called.
pub(crate) static TREE: &[Entry] = &[
    entry("container", "attach", &[], &container::attach::COMMAND),
    entry("", "attach", &[], &container::attach::COMMAND),
    entry("container", "commit", &[], &container::commit::COMMAND),
    entry("", "commit", &[], &container::commit::COMMAND),
    entry("container", "cp", &[], &container::cp::COMMAND),
    entry("", "cp", &[], &container::cp::COMMAND),
    entry("container", "create", &[], &container::create::COMMAND),
    entry("", "create", &[], &container::create::COMMAND),
    entry("container", "diff", &[], &container::diff::COMMAND),
    entry("", "diff", &[], &container::diff::COMMAND),
    entry("container", "exec", &[], &container::exec::COMMAND),
    common(1, "exec", &container::exec::COMMAND),
    entry("container", "export", &[], &container::export::COMMAND),
    entry("", "export", &[], &container::export::COMMAND),
    entry("container", "inspect", &[], &inspect::CONTAINER),
    entry("", "inspect", &[], &inspect::ANY),
    entry("container", "kill", &[], &container::lifecycle::KILL),
    entry("", "kill", &[], &container::lifecycle::KILL),
    entry("container", "logs", &[], &container::logs::COMMAND),
    entry("", "logs", &[], &container::logs::COMMAND),
    entry("container", "ls", &["list", "ps"], &container::ls::COMMAND),
    common(2, "ps", &container::ls::COMMAND),
    entry("container", "pause", &[], &container::lifecycle::PAUSE),
    entry("", "pause", &[], &container::lifecycle::PAUSE),
    entry("container", "port", &[], &container::port::COMMAND),
    entry("", "port", &[], &container::port::COMMAND),
    entry("container", "prune", &[], &container::prune::COMMAND),
    entry("container", "rename", &[], &container::lifecycle::RENAME),
    entry("", "rename", &[], &container::lifecycle::RENAME),
    entry("container", "restart", &[], &container::lifecycle::RESTART),
    entry("", "restart", &[], &container::lifecycle::RESTART),
    entry("container", "rm", &["remove"], &container::lifecycle::REMOVE),
    entry("", "rm", &[], &container::lifecycle::REMOVE),
    entry("container", "run", &[], &container::run::COMMAND),
    common(0, "run", &container::run::COMMAND),
    entry("container", "start", &[], &container::start::COMMAND),
    entry("", "start", &[], &container::start::COMMAND),
    entry("container", "stats", &[], &container::stats::COMMAND),
    entry("", "stats", &[], &container::stats::COMMAND),
    entry("container", "stop", &[], &container::lifecycle::STOP),
    entry("", "stop", &[], &container::lifecycle::STOP),
    entry("container", "top", &[], &container::top::COMMAND),
    entry("", "top", &[], &container::top::COMMAND),
    entry("container", "unpause", &[], &container::lifecycle::UNPAUSE),
    entry("", "unpause", &[], &container::lifecycle::UNPAUSE),
    entry("container", "update", &[], &container::update::COMMAND),
    entry("", "update", &[], &container::update::COMMAND),
    entry("container", "wait", &[], &container::lifecycle::WAIT),
    entry("", "wait", &[], &container::lifecycle::WAIT),
    entry("image", "history", &[], &image::history::COMMAND),
    entry("", "history", &[], &image::history::COMMAND),
    entry("image", "import", &[], &image::archive::IMPORT),
    entry("", "import", &[], &image::archive::IMPORT),
    entry("image", "inspect", &[], &inspect::IMAGE),
    entry("image", "load", &[], &image::archive::LOAD),
    entry("", "load", &[], &image::archive::LOAD),
    entry("image", "ls", &["list"], &image::ls::COMMAND),
    common(6, "images", &image::ls::COMMAND),
    entry("image", "pin", &[], &image::pin::PIN),
    entry("image", "prune", &[], &image::prune::COMMAND),
    entry("image", "pull", &[], &image::pull::COMMAND),
    common(4, "pull", &image::pull::COMMAND),
    entry("image", "push", &[], &image::push::COMMAND),
    common(5, "push", &image::push::COMMAND),
    entry("image", "rm", &["remove"], &image::rm::COMMAND),
    entry("", "rmi", &[], &image::rm::COMMAND),
    entry("image", "save", &[], &image::archive::SAVE),
    entry("", "save", &[], &image::archive::SAVE),
    entry("image", "unpin", &[], &image::pin::UNPIN),
    common(9, "search", &image::search::COMMAND),
    entry("manifest", "annotate", &[], &manifest::ANNOTATE),
    entry("manifest", "create", &[], &manifest::CREATE),
    entry("manifest", "inspect", &[], &manifest::INSPECT),
    entry("manifest", "push", &[], &manifest::PUSH),
    entry("manifest", "rm", &[], &manifest::REMOVE),
    entry("network", "capture", &[], &capture::CAPTURE),
    entry("network", "reach", &[], &reach::REACH),
    entry("network", "connect", &[], &network::CONNECT),
    entry("network", "create", &[], &network::CREATE),
    entry("network", "disconnect", &[], &network::DISCONNECT),
    entry("network", "inspect", &[], &inspect::NETWORK),
    entry("network", "ls", &["list"], &network::LIST),
    entry("network", "prune", &[], &network::PRUNE),
    entry("network", "rm", &["remove"], &network::REMOVE),
    entry("plugin", "disable", &[], &plugin::DISABLE),
    entry("plugin", "enable", &[], &plugin::ENABLE),
    entry("plugin", "inspect", &[], &inspect::PLUGIN),
    entry("plugin", "ls", &["list"], &plugin::LIST),
    entry("plugin", "rm", &["remove"], &plugin::REMOVE),
    entry("plugin", "set", &[], &plugin::SET),
    entry("volume", "clone", &[], &volume_copies::CLONE),
    entry("volume", "create", &[], &volume::CREATE),
    entry("volume", "export", &[], &volume_copies::EXPORT),
    entry("volume", "import", &[], &volume_copies::IMPORT),
    entry("volume", "inspect", &[], &inspect::VOLUME),
    entry("volume", "ls", &["list"], &volume::LIST),
    entry("volume", "prune", &[], &volume::PRUNE),
    entry("volume", "rename", &[], &volume_copies::RENAME),
    entry("volume", "restore", &[], &volume_copies::RESTORE),
    entry("volume", "rm", &["remove"], &volume::REMOVE),
    entry("volume", "snapshot", &[], &volume_copies::SNAPSHOT),
    entry("volume", "snapshots", &[], &volume_copies::SNAPSHOTS),
    hidden("", "completion", &completion::COMPLETION),
    hidden("", "__complete", &completion::COMPLETE),
    hidden("", "__completeNoDesc", &completion::COMPLETE),
    hidden("docs", "man", &docs::MAN),
    entry("context", "create", &[], &context::CREATE),
    entry("context", "export", &[], &context_file::EXPORT),
    entry("context", "import", &[], &context_file::IMPORT),
    entry("context", "inspect", &[], &context::INSPECT),
    entry("context", "ls", &["list"], &context::LIST),
    entry("context", "rm", &["remove"], &context::REMOVE),
    entry("context", "show", &[], &context::SHOW),
    entry("context", "update", &[], &context::UPDATE),
    entry("context", "use", &[], &context::USE),
    common(7, "login", &login::LOGIN),
    common(8, "logout", &login::LOGOUT),
    entry("image", "build", &[], &build::COMMAND),
    common(3, "build", &build::COMMAND),
    entry("builder", "build", &[], &build::COMMAND),
    entry("builder", "du", &[], &system::df::BUILDER),
    entry("builder", "history", &[], &builder::history::COMMAND),
    entry("builder", "prune", &[], &system::prune::BUILDER),
    entry("builder", "why-miss", &[], &builder::why_miss::COMMAND),
    entry("system", "df", &[], &system::df::COMMAND),
    hidden("system", "dial-stdio", &system::dial::COMMAND),
    entry("system", "events", &[], &system::events::COMMAND),
    entry("", "events", &[], &system::events::COMMAND),
    entry("container", "why", &[], &container::why::COMMAND),
    entry("", "why", &[], &container::why::COMMAND),
    entry("system", "fsck", &[], &system::fsck::COMMAND),
    entry("system", "info", &[], &system::info::COMMAND),
    common(11, "info", &system::info::COMMAND),
    entry("system", "prune", &[], &system::prune::SYSTEM),
    common(10, "version", &system::version::COMMAND),
    entry("image", "tag", &[], &image::tag::COMMAND),
    entry("", "tag", &[], &image::tag::COMMAND),
];
