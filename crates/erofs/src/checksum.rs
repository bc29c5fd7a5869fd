//! CRC-32C (RFC 3720, appendix B.4) as the kernel has it: begun with ones, and not inverted at the end.

const TABLE: [u32; 256] = table();

const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut at = 0;
    while at < table.len() {
        let mut value = at as u32;
        let mut bit = 0;
        while bit < 8 {
            // The polynomial 0x1edc6f41, bits reversed.
            value = if value & 1 == 1 { (value >> 1) ^ 0x82f6_3b78 } else { value >> 1 };
            bit += 1;
        }
        table[at] = value;
        at += 1;
    }
    table
}

pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_the_one_of_the_rfc() {
        // The check value of the catalogue of CRC algorithms, and RFC 3720's example of 32 zeroes.
        assert_eq!(!super::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(!super::crc32c(&[0; 32]), 0x8a91_36aa);
    }
}
