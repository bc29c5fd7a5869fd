//! Processes of a container that has no control group: an ordinary user's, to whom none was delegated.

use std::collections::BTreeMap;
use std::path::Path;

/// All in the PID namespace of the first one; where that is this process's own too, the first one and those that come
/// from it and have not been given to another (`clone(2)`, `PR_SET_CHILD_SUBREAPER`).
pub(crate) fn processes(first: i32) -> Vec<i32> {
    let space = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid")).ok();
    let (own, its) = (space("self"), space(&first.to_string()));
    let Some(its) = its else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let all = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    if own.as_ref() != Some(&its) {
        return all.filter(|pid| space(&pid.to_string()).as_ref() == Some(&its)).collect();
    }
    let parents: BTreeMap<i32, i32> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let comes_from = |pid: i32| {
        let mut at = Some(pid);
        // No longer than there are processes: numbers are given anew meanwhile.
        for _ in 0..=parents.len() {
            match at {
                Some(pid) if pid == first => return true,
                Some(pid) => at = parents.get(&pid).copied().filter(|parent| *parent > 0),
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|pid| comes_from(*pid)).collect()
}

/// Whether a process is a child of the monitor of the container `id`.
pub(crate) fn has_monitor(pid: i32, id: &str) -> bool {
    let title = parent(pid).and_then(|monitor| std::fs::read(format!("/proc/{monitor}/cmdline")).ok());
    title.is_some_and(|title| title.starts_with(format!("wharf-monitor {id}").as_bytes()))
}

/// proc_pid_stat(5), the fourth field; the second may hold blanks and brackets.
fn parent(pid: i32) -> Option<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn those_that_come_from_the_first_are_found() {
        let mut first = Command::new("sh")
            .args(["-c", "sleep 1000 & echo $!; read line"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(first.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let sleep: i32 = line.trim().parse().unwrap();
        let pid = i32::try_from(first.id()).unwrap();
        let mut found = processes(pid);
        found.sort_unstable();
        let mut expected = vec![pid, sleep];
        expected.sort_unstable();
        assert_eq!(found, expected);
        rustix::process::kill_process(rustix::process::Pid::from_raw(sleep).unwrap(), rustix::process::Signal::KILL)
            .unwrap();
        first.kill().unwrap();
        first.wait().unwrap();
        assert_eq!(processes(pid), [0; 0]);
    }
}
