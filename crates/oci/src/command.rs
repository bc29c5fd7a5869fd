//! The commands, as data: what they are called, what they take, what they do.

use crate::failure::Result;
use crate::global::Global;
use crate::words::{Flag, Given, Order, switch, value, values};
use crate::{
    checkpoint, create, delete, events, exec, features, freeze, kill, list, ps, run, spec, start, state, update,
};

/// One command.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    /// What follows the flags.
    pub(crate) usage: &'static str,
    pub(crate) flags: &'static [Flag],
    pub(crate) order: Order,
    pub(crate) arguments: Count,
    /// The value is the exit code.
    pub(crate) run: fn(&Global, &Given) -> Result<u8>,
}

/// How many arguments a command takes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Count {
    Exactly(usize),
    AtLeast(usize),
    Between(usize, usize),
}

impl Count {
    /// What is wrong with `count` arguments of `command`.
    pub(crate) fn complaint(self, command: &str, count: usize) -> Option<String> {
        match self {
            Self::Exactly(n) if count != n => Some(format!("runc: {command:?} requires exactly {n} argument(s)")),
            Self::AtLeast(n) if count < n => Some(format!("runc: {command:?} requires a minimum of {n} argument(s)")),
            Self::Between(n, _) if count < n => {
                Some(format!("runc: {command:?} requires a minimum of {n} argument(s)"))
            }
            Self::Between(_, n) if count > n => {
                Some(format!("runc: {command:?} requires a maximum of {n} argument(s)"))
            }
            _ => None,
        }
    }
}

const BUNDLE: Flag = value("bundle", "the bundle's directory (default: the working directory)").short("b");
const CONFIG: Flag = value("config", "the configuration's file, in the bundle (default: config.json)").short("f");
const CONSOLE: Flag = value("console-socket", "a unix socket that is sent the master of the container's terminal");
const PIDFD_SOCKET: Flag = value("pidfd-socket", "a unix socket that is sent a pidfd of the process");
const PID_FILE: Flag = value("pid-file", "write the process ID to this file");
const PRESERVE: Flag = value("preserve-fds", "pass on so many file descriptors after the standard streams");
const NO_PIVOT: Flag = switch("no-pivot", "accepted; the root is always changed by pivot_root");
const NO_KEYRING: Flag = switch("no-new-keyring", "stay in the caller's session keyring");
const DETACH: Flag = switch("detach", "do not wait for the process").short("d");
const FORMAT: Flag = value("format", "table or json (default: table)").short("f");

/// All of them, in the order of the help.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "checkpoint",
        help: "checkpoint a running container (needs CRIU, which is not supported)",
        usage: "<container-id>",
        flags: checkpoint::FLAGS,
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: checkpoint::refuse,
    },
    Command {
        name: "create",
        help: "create a container",
        usage: "<container-id>",
        flags: &[BUNDLE, CONFIG, CONSOLE, PIDFD_SOCKET, PID_FILE, NO_PIVOT, NO_KEYRING, PRESERVE],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: create::run,
    },
    Command {
        name: "delete",
        help: "delete any resources held by the container",
        usage: "<container-id>",
        flags: &[
            switch("force", "end the container with SIGKILL if it still runs").short("f"),
            switch("regex", "the ID is a regular expression: delete all containers that it matches").short("r"),
        ],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: delete::run,
    },
    Command {
        name: "events",
        help: "display container events such as OOM notifications, cpu, memory, and IO usage statistics",
        usage: "<container-id>",
        flags: &[value("interval", "time between statistics (default: 5s)"), switch("stats", "one reading, then end")],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: events::run,
    },
    Command {
        name: "exec",
        help: "execute new process inside the container",
        usage: "<container-id> <command> [command options]",
        flags: &[
            CONSOLE,
            value("cwd", "working directory in the container"),
            values("env", "set a variable").short("e"),
            switch("tty", "give the process a terminal").short("t"),
            value("user", "UID[:GID]").short("u"),
            values("additional-gids", "supplementary group").short("g"),
            value("process", "a file with the process as the configuration has it").short("p"),
            DETACH,
            PIDFD_SOCKET,
            PID_FILE,
            value("process-label", "SELinux label"),
            value("apparmor", "AppArmor profile"),
            switch("no-new-privs", "no privilege can be gained by an exec"),
            values("cap", "a capability more").short("c"),
            PRESERVE,
            values("cgroup", "an existing sub-group to run in: [controller,…:]path"),
            switch("ignore-paused", "also in a paused container"),
        ],
        order: Order::First,
        arguments: Count::AtLeast(1),
        run: exec::run,
    },
    Command {
        name: "kill",
        help: "send a signal (default: SIGTERM) to the container's first process",
        usage: "<container-id> [signal]",
        flags: &[switch("all", "send it to all processes of the container").short("a")],
        order: Order::Any,
        arguments: Count::Between(1, 2),
        run: kill::run,
    },
    Command {
        name: "list",
        help: "list the containers of this root",
        usage: "",
        flags: &[FORMAT, switch("quiet", "only the IDs").short("q")],
        order: Order::Any,
        arguments: Count::Exactly(0),
        run: list::run,
    },
    Command {
        name: "pause",
        help: "suspend all processes of a container",
        usage: "<container-id>",
        flags: &[],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: freeze::pause,
    },
    Command {
        name: "ps",
        help: "display the processes running inside a container",
        usage: "<container-id> [ps options]",
        flags: &[FORMAT],
        order: Order::First,
        arguments: Count::AtLeast(1),
        run: ps::run,
    },
    Command {
        name: "restore",
        help: "restore a container from a checkpoint (needs CRIU, which is not supported)",
        usage: "<container-id>",
        flags: checkpoint::FLAGS,
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: checkpoint::refuse,
    },
    Command {
        name: "resume",
        help: "resume a paused container",
        usage: "<container-id>",
        flags: &[],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: freeze::resume,
    },
    Command {
        name: "run",
        help: "create and run a container",
        usage: "<container-id>",
        flags: &[
            BUNDLE,
            CONFIG,
            CONSOLE,
            DETACH,
            switch("keep", "do not delete the container after its end"),
            PIDFD_SOCKET,
            PID_FILE,
            switch("no-subreaper", "do not become the parent of orphaned processes"),
            NO_PIVOT,
            NO_KEYRING,
            PRESERVE,
        ],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: run::run,
    },
    Command {
        name: "spec",
        help: "write a configuration to start from",
        usage: "",
        flags: &[BUNDLE, switch("rootless", "for who is not root")],
        order: Order::Any,
        arguments: Count::Exactly(0),
        run: spec::run,
    },
    Command {
        name: "start",
        help: "execute the user's process in a created container",
        usage: "<container-id>",
        flags: &[],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: start::run,
    },
    Command {
        name: "state",
        help: "output the state of a container",
        usage: "<container-id>",
        flags: &[],
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: state::run,
    },
    Command {
        name: "update",
        help: "update the limits of a container",
        usage: "<container-id>",
        flags: update::FLAGS,
        order: Order::Any,
        arguments: Count::Exactly(1),
        run: update::run,
    },
    Command {
        name: "features",
        help: "show what is supported, as JSON",
        usage: "",
        flags: &[],
        order: Order::Any,
        arguments: Count::Exactly(0),
        run: features::run,
    },
];
