//! Who asks for something: a container's end can then say who wanted it.

use std::fs;

tokio::task_local! {
    static CALLER: Caller;
}

/// A process that is connected to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub pid: i32,
    pub uid: u32,
}

impl Caller {
    /// Does `work` in its name.
    pub async fn does<T>(self, work: impl Future<Output = T>) -> T {
        CALLER.scope(self, work).await
    }
}

/// In whose name this task works, if it is known.
pub fn current() -> Option<Caller> {
    CALLER.try_with(|caller| *caller).ok()
}

/// The same in words: `docker (process 12, user 0)`.
pub(crate) fn described() -> String {
    let Some(Caller { pid, uid }) = current() else { return "a client whose process is not known".into() };
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.trim();
    format!("{} (process {pid}, user {uid})", if name.is_empty() { "a client" } else { name })
}
