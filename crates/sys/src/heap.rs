//! What the program has of memory that it does not use.

/// Gives back to the kernel what has been freed (malloc_trim(3)): the C library keeps what was needed once, in the
/// arenas of all threads. Takes some milliseconds for each gigabyte, and the locks of one arena at a time.
pub fn trim() {
    // SAFETY: The call takes no pointer, and is safe in programs with threads (malloc_trim(3), ATTRIBUTES).
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident() -> u64 {
        let text = std::fs::read_to_string("/proc/self/statm").unwrap();
        text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
    }

    #[test]
    fn what_was_freed_goes_back() {
        // Small pieces with some that stay between them: nothing is at the end of the heap.
        let mut pieces: Vec<Vec<u8>> = (0..200_000_u32).map(|_| vec![1; 512]).collect();
        let full = resident();
        let mut at = 0;
        pieces.retain(|_| {
            at += 1;
            at % 1000 == 0
        });
        trim();
        assert!(resident() + 50_000 < full, "{} of {full} KiB", resident());
        drop(pieces);
    }
}
