//! What the process waits for.

use wharf_companion::{pack, unpack};

/// What the process waits for, and how.
pub(crate) type Poller = wharf_companion::Poller<Token>;

/// Whose event it is. Numbers are never given twice, so that an event that is late is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Token {
    /// Where daemons connect.
    Daemons,
    Control(u64),
    /// What a container's life hangs on.
    Until(u64),
    /// A port of the host's.
    Port(u64),
    /// Either end of a connection that is passed on.
    Stream(u64),
    /// A container's answers to one sender of datagrams.
    Flow(u64),
}

impl wharf_companion::Token for Token {
    fn encode(self) -> u64 {
        let (kind, number) = match self {
            Self::Daemons => (0, 0),
            Self::Control(number) => (1, number),
            Self::Until(number) => (2, number),
            Self::Port(number) => (3, number),
            Self::Stream(number) => (4, number),
            Self::Flow(number) => (5, number),
        };
        pack(kind, number)
    }

    fn decode(bits: u64) -> Self {
        let (kind, number) = unpack(bits);
        match kind {
            1 => Self::Control(number),
            2 => Self::Until(number),
            3 => Self::Port(number),
            4 => Self::Stream(number),
            5 => Self::Flow(number),
            _ => Self::Daemons,
        }
    }
}

#[cfg(test)]
mod tests {
    use wharf_companion::Token as _;

    use super::*;

    #[test]
    fn tokens_come_back() {
        let number = (1 << 56) - 1;
        for token in [
            Token::Daemons,
            Token::Control(number),
            Token::Until(1),
            Token::Port(2),
            Token::Stream(number),
            Token::Flow(0),
        ] {
            assert_eq!(Token::decode(token.encode()), token);
        }
    }
}
