//! Archives made entry by entry, as no tool would make them.

#[derive(Clone, Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    fn header(&mut self, name: &str, flag: u8, link: &str, size: usize) {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000755");
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
        block[136..147].copy_from_slice(b"00000000007");
        block[156] = flag;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend(block);
    }

    pub(crate) fn entry(mut self, name: &str, flag: u8, link: &str) -> Self {
        self.header(name, flag, link, 0);
        self
    }

    pub(crate) fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', "")
    }

    /// A file, whose padding is not of zeroes.
    pub(crate) fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.header(name, b'0', "", content.len());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), b'~');
        self
    }

    /// The end, and what a careless tool leaves after it.
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0.extend(b"what nobody reads");
        self.0
    }
}
