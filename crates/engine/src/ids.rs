//! IDs of the host for user namespaces: each container that asks for one gets a range that nobody else has.

use rustix::process::{Gid, Uid, getgid, getuid};
use rustix::thread::{capabilities, set_capabilities, set_thread_res_gid, set_thread_res_uid};
use wharf_archive::IdRange;

use crate::engine::{CONTAINERS, Engine};
use crate::error::{EngineError, Result};
use crate::record::{Container, MountPoint};
use crate::slot::lock;

/// A container's IDs with `--userns=auto`: as many as a distribution's users and its dynamic ranges need.
pub(crate) const IDS_PER_CONTAINER: u32 = 65_536;

/// Does something as the root of a container with these IDs, with all that this process may do: in the mounts of a user
/// namespace only an ID that they know makes files. The thread that does it is there for this alone, and others stay who
/// they are.
///
/// # Errors
/// When this process may not take that user.
pub(crate) fn as_root_of<T: Send>(ids: Option<IdRange>, work: impl FnOnce() -> T + Send) -> Result<T> {
    let Some(ids) = ids else { return Ok(work()) };
    let become_it = || {
        // The kernel's calls, which are about one thread; what it was stays, and with that what it may do.
        let (uid, gid) = (Uid::from_raw(ids.first), Gid::from_raw(ids.first));
        set_thread_res_gid(getgid(), gid, getgid())?;
        set_thread_res_uid(getuid(), uid, getuid())?;
        let mut sets = capabilities(None)?;
        sets.effective = sets.permitted;
        set_capabilities(None, sets)
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| become_it().map(|()| work()));
        match thread.join() {
            Ok(done) => done.map_err(|e| EngineError::from_source("cannot act as the container's root", &e)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

impl Engine {
    /// The container's own range: its first ID, and how many there are. It is written down before anything runs with
    /// it, as the next daemon must not give it to another one.
    ///
    /// # Errors
    /// When all are taken.
    pub(crate) fn id_range(&self, record: &Container) -> Result<(u32, u32)> {
        let slot = self.inner.slots.find(&record.id)?;
        let _one_at_a_time = lock(&self.inner.ids);
        let first = match slot.record().first_id {
            Some(first) => first,
            None => {
                let first = self.free_range(record)?;
                let record = slot.change(|record| record.first_id = Some(first));
                self.store()
                    .write(|tx| tx.put(CONTAINERS, &record.id, &*record))
                    .map_err(|e| EngineError::from_source("cannot write the container", &e))?;
                first
            }
        };
        Ok((first, IDS_PER_CONTAINER))
    }

    /// Where its mounts are that show their files' owners as they are on the disk: images, binds that ask for it, and
    /// volumes, which are for containers with other ranges too. What a volume mounts of its own may not be able to.
    pub(crate) fn mapped(&self, record: &Container) -> Vec<String> {
        let plain = |name: &str| self.volumes().get(name).is_ok_and(|volume| volume.is_own());
        let points = record.mounts.iter();
        let mapped = points.filter(|point| {
            asks_for_mapping(point) || point.image.is_some() || (point.kind == "volume" && plain(&point.name))
        });
        mapped.map(|point| point.destination.clone()).collect()
    }

    fn free_range(&self, record: &Container) -> Result<u32> {
        let (first, size) = self.inner.options.id_range;
        if size < IDS_PER_CONTAINER {
            return Err(EngineError::system(if self.inner.options.told.rootless {
                "--userns auto is not supported by an ordinary user's daemon, which is in a user namespace itself: only root \
                 of the host can give the image's files to other IDs"
            } else {
                "there are no user IDs for containers: give them to the user `wharf` in /etc/subuid and /etc/subgid, at \
                 least 65536"
            }));
        }
        let own = self.list().into_iter().filter(|other| other.id != record.id);
        let mut taken: Vec<(u32, u32)> = own.filter_map(|other| Some((other.first_id?, IDS_PER_CONTAINER))).collect();
        taken.extend(in_use());
        let count = size / IDS_PER_CONTAINER;
        (0..count)
            .map(|number| first + number * IDS_PER_CONTAINER)
            .find(|start| !taken.iter().any(|range| overlap(*range, (*start, IDS_PER_CONTAINER))))
            .ok_or_else(|| EngineError::system(format!("all {count} ranges of user IDs are in use")))
    }
}

/// `-v SOURCE:TARGET:idmap`, as podman has it.
pub(crate) fn asks_for_mapping(point: &MountPoint) -> bool {
    point.mode.split(',').any(|word| word == "idmap")
}

fn overlap((a, a_size): (u32, u32), (b, b_size): (u32, u32)) -> bool {
    a < b.saturating_add(b_size) && b < a.saturating_add(a_size)
}

/// What user namespaces of this host have now, whoever made them: of another daemon, of another engine.
fn in_use() -> Vec<(u32, u32)> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut all = Vec::new();
    for process in processes {
        for map in ["uid_map", "gid_map"] {
            let text = std::fs::read_to_string(process.path().join(map)).unwrap_or_default();
            all.extend(text.lines().filter_map(host_range));
        }
    }
    all.sort_unstable();
    all.dedup();
    all
}

/// A line of user_namespaces(7)'s maps. Where IDs are the host's own, as in the first namespace and in those that have all
/// of it, they are nobody's: anybody may make such a one.
fn host_range(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
    let (inside, start, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
    (inside != start).then_some((start, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_do_not_overlap() {
        assert!(!overlap((0, 10), (10, 10)) && !overlap((10, 10), (0, 10)));
        assert!(overlap((0, 11), (10, 10)) && overlap((5, 1), (0, 10)) && overlap((0, 10), (5, 1)));
        assert!(overlap((u32::MAX - 5, 10), (u32::MAX - 1, 1)));
    }

    #[test]
    fn a_map_tells_the_host_s_ids() {
        assert_eq!(host_range("         0     100000      65536"), Some((100_000, 65_536)));
        assert_eq!(host_range("         0          0 4294967295"), None);
        assert_eq!(host_range("         1          1 4294967294"), None);
        assert_eq!(host_range("odd"), None);
    }
}
