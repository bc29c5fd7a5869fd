//! From `process` of a configuration to a plan: who the program is and what it may do (runtime-spec, config, "Process").

use std::collections::HashSet;
use std::ffi::CString;
use std::path::PathBuf;

use oci_spec::runtime::Process;
use rustix::process::{Resource, Rlimit};
use serde_json::json;
use wharf_sys::process::Words;

use crate::capabilities::{CAPABILITIES, bits};
use crate::create::Inheritance;
use crate::filter::SystemCalls;
use crate::label::Label;
use crate::rlimits::rlimits;
use crate::scheduling::Scheduling;
use crate::{Result, RuntimeError};

/// Who the program is and what it may do: the part that an exec shares with the first process.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) command: String,
    /// Where to look for it, in order.
    pub(crate) candidates: Vec<CString>,
    pub(crate) arguments: Words,
    pub(crate) environment: Words,
    /// Nobody has said where the user is at home: the image is asked.
    pub(crate) homeless: bool,
    pub(crate) cwd: PathBuf,
    pub(crate) terminal: Option<(u16, u16)>,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) umask: u32,
    pub(crate) rlimits: Vec<(Resource, Rlimit)>,
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
    pub(crate) no_new_privileges: bool,
    pub(crate) filter: Option<SystemCalls>,
    pub(crate) scheduling: Scheduling,
    pub(crate) label: Option<Label>,
    /// Not the container's first process.
    pub(crate) exec: bool,
    /// How many fds after the standard streams the program inherits.
    pub(crate) preserve_fds: u32,
    /// The caller's session keyring stays.
    pub(crate) keep_keyring: bool,
    /// The caller's supplementary groups stay.
    pub(crate) keep_groups: bool,
}

/// As with runc. The last of 32 bits means "as it was" to setresuid(2): the program would stay root (CVE-2024-40635).
const LAST_ID: u32 = i32::MAX.cast_unsigned();

pub(crate) fn process_plan(process: &Process, filter: Option<SystemCalls>) -> Result<ProcessPlan> {
    let words = |list: &[String], what: &str| -> Result<Words> {
        let strings = list.iter().map(|w| CString::new(w.as_str())).collect::<std::result::Result<Vec<_>, _>>();
        strings.map(Words::new).map_err(|_| RuntimeError::Invalid(format!("{what} with a NUL in it")))
    };
    let args = process.args().clone().unwrap_or_default();
    // An empty one is a name that no program has.
    let command = args.first().cloned();
    let command = command.ok_or_else(|| RuntimeError::Invalid("there is no command".into()))?;
    let mut env = last_ones(&process.env().clone().unwrap_or_default());
    // As if it had not been said, as with runc.
    env.retain(|pair| pair != "HOME=");
    let cwd = process.cwd().clone();
    if !cwd.is_absolute() {
        return Err(RuntimeError::Invalid(format!("cwd `{}` is not absolute", cwd.display())));
    }
    let sets = process.capabilities().as_ref();
    let set = |pick: fn(&oci_spec::runtime::LinuxCapabilities) -> &Option<oci_spec::runtime::Capabilities>| {
        bits(sets.and_then(|sets| pick(sets).as_ref()))
    };
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    if let Some(id) = [user.uid(), user.gid()].iter().chain(&groups).find(|id| **id > LAST_ID) {
        return Err(RuntimeError::Invalid(format!("user {id}: uids and gids must be in range 0-{LAST_ID}")));
    }
    Ok(ProcessPlan {
        candidates: candidates(&command, &env)?,
        command,
        arguments: words(&args, "an argument")?,
        environment: words(&env, "a variable")?,
        homeless: !env.iter().any(|pair| pair.starts_with("HOME=")),
        cwd,
        terminal: process.terminal().unwrap_or(false).then(|| {
            let size = process.console_size();
            let side = |n: u64| u16::try_from(n).unwrap_or(0);
            size.map_or((0, 0), |size| (side(size.height()), side(size.width())))
        }),
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask().unwrap_or(0o022),
        rlimits: rlimits(process.rlimits().as_deref().unwrap_or_default())?,
        bounding: set(oci_spec::runtime::LinuxCapabilities::bounding)?,
        effective: set(oci_spec::runtime::LinuxCapabilities::effective)?,
        permitted: set(oci_spec::runtime::LinuxCapabilities::permitted)?,
        inheritable: set(oci_spec::runtime::LinuxCapabilities::inheritable)?,
        // The kernel keeps an ambient one only beside an inheritable one (capabilities(7)). `runc spec` and `crun spec`
        // write ambient ones alone, and neither runtime minds.
        ambient: set(oci_spec::runtime::LinuxCapabilities::ambient)?
            & set(oci_spec::runtime::LinuxCapabilities::inheritable)?
            & set(oci_spec::runtime::LinuxCapabilities::permitted)?,
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        filter,
        scheduling: Scheduling::plan(process)?,
        label: Label::plan(process)?,
        exec: false,
        preserve_fds: 0,
        keep_keyring: false,
        keep_groups: false,
    })
}

impl ProcessPlan {
    /// A configuration may have no process (runtime-spec, config, "Process"): a container that waits and cannot be
    /// started. Its first process is root and may do nothing.
    pub(crate) fn of_nobody() -> Result<Self> {
        let odd = |error: serde_json::Error| RuntimeError::Invalid(error.to_string());
        let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["none"] });
        let plan = process_plan(&serde_json::from_value(process).map_err(odd)?, None)?;
        Ok(Self { command: String::new(), candidates: Vec::new(), ..plan })
    }

    /// Whether there is a program to become.
    pub(crate) fn has_program(&self) -> bool {
        !(self.command.is_empty() && self.candidates.is_empty())
    }

    /// Leaves out what this process does not have itself and so cannot give; the names of it. (Runtime-spec: a runtime
    /// warns of it, and does not fail.)
    pub(crate) fn keep_to(&mut self, own: u64) -> Vec<&'static str> {
        let asked = self.bounding | self.effective | self.permitted | self.inheritable | self.ambient;
        for set in
            [&mut self.bounding, &mut self.effective, &mut self.permitted, &mut self.inheritable, &mut self.ambient]
        {
            *set &= own;
        }
        let names = CAPABILITIES.iter().enumerate();
        names.filter(|(bit, _)| asked & !own & (1 << bit) != 0).map(|(_, name)| *name).collect()
    }

    /// In the process itself: what number its parent knows it by.
    pub(crate) fn is_known_as(&self, pid: i32) {
        if let Some(filter) = &self.filter {
            filter.is_known_as(pid);
        }
    }

    pub(crate) fn inherit(&mut self, inheritance: Inheritance) {
        self.preserve_fds = inheritance.fds;
        self.keep_keyring = inheritance.keyring;
        self.keep_groups = inheritance.groups;
    }
}

/// Of several variables of one name the last counts, as with runc: getenv(3) would find the first.
fn last_ones(env: &[String]) -> Vec<String> {
    let name = |pair: &str| pair.split_once('=').map_or(pair, |(name, _)| name).to_owned();
    let mut seen = HashSet::new();
    let mut kept: Vec<String> = env.iter().rev().filter(|pair| seen.insert(name(pair))).cloned().collect();
    kept.reverse();
    kept
}

/// The paths that execvp(3) would try, with the `PATH` that the program itself will have.
fn candidates(command: &str, env: &[String]) -> Result<Vec<CString>> {
    let bad = |_| RuntimeError::Invalid("a command with a NUL in it".into());
    if command.contains('/') {
        return Ok(vec![CString::new(command).map_err(bad)?]);
    }
    if command.is_empty() {
        // Which is found nowhere.
        return Ok(vec![CString::default()]);
    }
    let path = env.iter().rev().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or("/bin:/usr/bin");
    // An empty entry is the working directory, which is no place to look in unasked.
    let entries = path.split(':').filter(|dir| dir.starts_with('/'));
    entries.map(|dir| CString::new(format!("{}/{command}", dir.trim_end_matches('/'))).map_err(bad)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(command: &str, path: &str) -> Vec<String> {
        let env = vec![format!("PATH={path}")];
        candidates(command, &env).unwrap().into_iter().map(|c| c.into_string().unwrap()).collect()
    }

    #[test]
    fn commands_are_looked_for_in_the_container_s_path() {
        assert_eq!(names("ls", "/bin::rel:/usr/bin/"), ["/bin/ls", "/usr/bin/ls"]);
        assert_eq!(names("./run", "/bin"), ["./run"]);
        assert!(candidates("a\0b", &[]).is_err());
    }

    #[test]
    fn of_several_variables_of_a_name_the_last_counts() {
        let env = ["A=1", "B=2", "A=3", "C"].map(str::to_owned);
        assert_eq!(last_ones(&env), ["B=2", "A=3", "C"]);
    }

    #[test]
    fn contradictions_are_refused_before_anything_is_made() {
        let process = |json: &str| {
            let process: Process = serde_json::from_str(json).unwrap();
            process_plan(&process, None)
        };
        let user = r#""user":{"uid":0,"gid":0}"#;
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"]}}"#)).is_ok());
        assert!(process(&format!(r#"{{{user},"cwd":"rel","args":["a"]}}"#)).is_err());
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":[]}}"#)).is_err());
        let limits = r#""rlimits":[{"type":"RLIMIT_NOFILE","soft":9,"hard":8}]"#;
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"],{limits}}}"#)).is_err());
        let limit = r#"{"type":"RLIMIT_NOFILE","soft":8,"hard":8}"#;
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"],"rlimits":[{limit}]}}"#)).is_ok());
        assert!(process(&format!(r#"{{{user},"cwd":"/","args":["a"],"rlimits":[{limit},{limit}]}}"#)).is_err());
    }
}
