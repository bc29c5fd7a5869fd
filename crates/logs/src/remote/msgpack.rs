//! As much of MessagePack as a log entry needs (the MessagePack specification, "Formats").

pub(super) fn array(out: &mut Vec<u8>, length: u8) {
    out.push(0x90 | length.min(15));
}

/// The head of a map of so many pairs.
pub(super) fn map(out: &mut Vec<u8>, pairs: usize) {
    match u16::try_from(pairs) {
        Ok(pairs @ 0..=15) => out.push(0x80 | pairs as u8),
        Ok(pairs) => {
            out.push(0xde);
            out.extend_from_slice(&pairs.to_be_bytes());
        }
        Err(_) => {
            out.push(0xdf);
            out.extend_from_slice(&u32::try_from(pairs).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

/// A string, whose bytes need not be UTF-8 for those who read them here.
pub(super) fn string(out: &mut Vec<u8>, text: &[u8]) {
    match text.len() {
        length @ 0..=31 => out.push(0xa0 | length as u8),
        length @ 32..=0xff => out.extend_from_slice(&[0xd9, length as u8]),
        length @ 0x100..=0xffff => {
            out.push(0xda);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(0xdb);
            out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(text);
}

pub(super) fn unsigned(out: &mut Vec<u8>, number: u64) {
    out.push(0xcf);
    out.extend_from_slice(&number.to_be_bytes());
}

/// Eight bytes of an extension type.
pub(super) fn extension(out: &mut Vec<u8>, kind: u8, bytes: [u8; 8]) {
    out.extend_from_slice(&[0xd7, kind]);
    out.extend_from_slice(&bytes);
}
