//! Owners in a user namespace and on the host.

/// The host's IDs that a user namespace has: its 0 is `first` there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdRange {
    pub first: u32,
    pub count: u32,
}

impl IdRange {
    /// What the host calls `id` of the namespace; an ID that the namespace does not have stays.
    pub fn to_host(self, id: u32) -> u32 {
        if id < self.count { self.first.saturating_add(id) } else { id }
    }

    /// The other way round.
    pub fn from_host(self, id: u32) -> u32 {
        id.checked_sub(self.first).filter(|own| *own < self.count).unwrap_or(id)
    }
}

#[cfg(test)]
mod tests {
    use super::IdRange;

    #[test]
    fn what_is_outside_of_the_range_stays() {
        let range = IdRange { first: 1000, count: 10 };
        assert_eq!((range.to_host(3), range.to_host(10)), (1003, 10));
        assert_eq!((range.from_host(1003), range.from_host(1010), range.from_host(3)), (3, 1010, 3));
    }
}
