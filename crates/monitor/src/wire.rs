//! The words of `monitor.sock`: [`wharf_sys::message`] frames of JSON, one request per connection.

use oci_spec::runtime::Process;
use serde::{Deserialize, Serialize};

use crate::launch::{Attach, Restart};
use crate::state::{ExecState, Exit, HealthState, State};

/// Name of the socket in [`crate::Launch::dir`].
pub(crate) const SOCKET: &str = "monitor.sock";

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    Watch,
    /// With the client's stream.
    Attach(Attach),
    Resize {
        rows: u16,
        cols: u16,
    },
    Signal {
        signal: i32,
        #[serde(default)]
        no_restart: bool,
    },
    StdinClose,
    Update {
        restart: Restart,
    },
    NoRestart,
    /// With a stream, unless it is detached.
    Exec(Box<ExecRequest>),
    ExecResize {
        id: String,
        rows: u16,
        cols: u16,
    },
    ExecSignal {
        id: String,
        signal: i32,
    },
}

/// A further program in the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The caller's name for it, for [`crate::client::exec_resize`] and [`crate::client::exec_signal`].
    pub id: String,
    pub process: Process,
    #[serde(default)]
    pub stdin: bool,
    #[serde(default)]
    pub stdout: bool,
    #[serde(default)]
    pub stderr: bool,
    #[serde(default)]
    pub detach_keys: Option<String>,
    /// The caller's own, given back in [`crate::State::execs`].
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub note: serde_json::Value,
}

/// The monitor's word for a container that has ended, or has not begun: to who asks it is as if nobody listened.
pub(crate) const NOT_RUNNING: &str = "the container is not running";

/// The first answer to a request, and the only one but for `watch` and `exec`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Reply {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) ok: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exit: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<u8>,
    /// Of a launch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) monitor_pid: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<String>,
    /// Of an attach: what was read of the container before is in its log, and what is read later is the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attached_at: Option<String>,
}

impl Reply {
    pub(crate) fn ok() -> Self {
        Self { ok: true, ..Self::default() }
    }

    pub(crate) fn error(message: impl Into<String>, code: u8) -> Self {
        Self { error: Some(message.into()), code: Some(code), ..Self::default() }
    }
}

/// A frame of `watch`: an object with one of these keys. Keys that are not known are passed over, as a later
/// monitor may tell more.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct EventFrame {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<State>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exited: Option<Exit>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restarting: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<Started>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<HealthState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oom: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) exec_ended: Option<ExecState>,
    /// Beside `oom`: whose limit it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oom_group: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Started {
    pub(crate) pid: i32,
    pub(crate) started_at: String,
    pub(crate) restart_count: u32,
}
