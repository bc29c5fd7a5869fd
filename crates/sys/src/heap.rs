//! What the program has of memory that it does not use.

/// Gives back to the kernel what has been freed (malloc_trim(3)): the C library keeps what was needed once, in the
/// arenas of all threads. Takes some milliseconds for each gigabyte, and the locks of one arena at a time.
pub fn trim() {
    // SAFETY: The call takes no pointer, and is safe in programs with threads (malloc_trim(3), ATTRIBUTES).
    unsafe {
        libc::malloc_trim(0);
    }
}

/// As [`trim`], where so many bytes are in use that it is worth it.
pub fn trim_above(bytes: u64) {
    if resident().is_some_and(|resident| resident > bytes) {
        trim();
    }
}

/// Bytes of memory that are this program's now (proc_pid_statm(5)).
fn resident() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_freed_goes_back() {
        // Small pieces with some that stay between them: nothing is at the end of the heap.
        let mut pieces: Vec<Vec<u8>> = (0..200_000_u32).map(|_| vec![1; 512]).collect();
        let full = resident().unwrap();
        let mut at = 0;
        pieces.retain(|_| {
            at += 1;
            at % 1000 == 0
        });
        trim_above(u64::MAX);
        let kept = resident().unwrap();
        trim_above(full / 2);
        let left = resident().unwrap();
        assert!(left + 50_000_000 < kept, "{left} of {kept} bytes");
        drop(pieces);
    }
}
