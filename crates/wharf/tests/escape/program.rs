//! Programs of an attacker's, made here: static ones of a few system calls in machine code, so that no compiler is
//! needed and a call can be made that no C library would make.

use std::path::Path;

/// Where the program lies in memory: below 4 GiB, so that an address is one for 32-bit calls too.
const BASE: u64 = 0x40_0000;
const HEADERS: usize = 64 + 56;
/// Bytes of a pointer's target that the kernel may fill or read.
const ROOM: usize = 256;

/// How a call enters the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    Native,
    /// `int 0x80`, as 32-bit programs do.
    I386,
}

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arg<'a> {
    Number(u64),
    /// The address of these bytes, with zeroes after them.
    Bytes(&'a [u8]),
}

#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) abi: Abi,
    pub(crate) number: u64,
    pub(crate) arguments: Vec<Arg<'a>>,
}

pub(crate) fn call<'a>(number: u64, arguments: &[Arg<'a>]) -> Call<'a> {
    Call { abi: Abi::Native, number, arguments: arguments.to_vec() }
}

/// Writes a program that makes these calls and prints what each returned, as 32-bit numbers for `od`.
pub(crate) fn once(path: &Path, calls: &[Call<'_>]) {
    write(path, &Program::new(calls, false).bytes());
}

/// Writes a program that makes these calls for ever.
pub(crate) fn forever(path: &Path, calls: &[Call<'_>]) {
    write(path, &Program::new(calls, true).bytes());
}

fn write(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Code, with the places in it where the address of a piece of data belongs.
#[derive(Debug, Default)]
struct Program {
    code: Vec<u8>,
    data: Vec<u8>,
    /// Where in the code, and which byte of the data.
    addresses: Vec<(usize, usize)>,
}

impl Program {
    fn new(calls: &[Call<'_>], forever: bool) -> Self {
        let mut program = Self::default();
        // The results come first in the data.
        program.data.resize(4 * calls.len(), 0);
        for (index, call) in calls.iter().enumerate() {
            program.call(call, index);
        }
        if forever {
            let back = i32::try_from(program.code.len() + 5).unwrap();
            program.code.push(0xe9);
            program.code.extend((-back).to_le_bytes());
        } else {
            let length = u64::try_from(4 * calls.len()).unwrap();
            program.load(Register::Number, 1);
            program.load(Register::Argument(0), 1);
            program.load_address(Register::Argument(1), 0);
            program.load(Register::Argument(2), length);
            program.code.extend([0x0f, 0x05]);
            program.load(Register::Number, 231);
            program.load(Register::Argument(0), 0);
            program.code.extend([0x0f, 0x05]);
        }
        program
    }

    fn call(&mut self, call: &Call<'_>, index: usize) {
        for (place, argument) in call.arguments.iter().enumerate() {
            let register = match call.abi {
                Abi::Native => Register::Argument(place),
                Abi::I386 => Register::Old(place),
            };
            match argument {
                Arg::Number(number) => self.load(register, *number),
                Arg::Bytes(bytes) => {
                    let at = self.data.len();
                    self.data.extend_from_slice(bytes);
                    self.data.resize(at + bytes.len() + ROOM, 0);
                    self.load_address(register, at);
                }
            }
        }
        self.load(Register::Number, call.number);
        self.code.extend(match call.abi {
            Abi::Native => [0x0f, 0x05],
            Abi::I386 => [0xcd, 0x80],
        });
        // mov rbx, ADDRESS; mov [rbx], eax
        self.load_address(Register::Old(0), 4 * index);
        self.code.extend([0x89, 0x03]);
    }

    /// mov r64, imm64
    fn load(&mut self, register: Register, value: u64) {
        self.code.extend(register.load());
        self.code.extend(value.to_le_bytes());
    }

    fn load_address(&mut self, register: Register, data: usize) {
        self.code.extend(register.load());
        self.addresses.push((self.code.len(), data));
        self.code.extend([0; 8]);
    }

    /// The file: one segment with all in it (elf(5)).
    fn bytes(mut self) -> Vec<u8> {
        let start = BASE + u64::try_from(HEADERS + self.code.len()).unwrap();
        for (at, data) in &self.addresses {
            let address = start + u64::try_from(*data).unwrap();
            self.code[*at..at + 8].copy_from_slice(&address.to_le_bytes());
        }
        let length = u64::try_from(HEADERS + self.code.len() + self.data.len()).unwrap();
        let entry = BASE + u64::try_from(HEADERS).unwrap();
        let mut file = b"\x7fELF\x02\x01\x01".to_vec();
        file.resize(16, 0);
        for (value, size) in [
            // An executable for x86-64, version 1.
            (2, 2),
            (62, 2),
            (1, 4),
            (entry, 8),
            (64, 8),
            (0, 8),
            (0, 4),
            (64, 2),
            (56, 2),
            (1, 2),
            (0, 2),
            (0, 2),
            (0, 2),
            // PT_LOAD, readable, writable and executable.
            (1, 4),
            (7, 4),
            (0, 8),
            (BASE, 8),
            (BASE, 8),
            (length, 8),
            (length, 8),
            (4096, 8),
        ] {
            let bytes: [u8; 8] = u64::to_le_bytes(value);
            file.extend(&bytes[..size]);
        }
        assert_eq!(file.len(), HEADERS);
        file.extend(self.code);
        file.extend(self.data);
        file
    }
}

#[derive(Clone, Copy, Debug)]
enum Register {
    Number,
    /// rdi rsi rdx r10 r8 r9
    Argument(usize),
    /// rbx rcx rdx rsi rdi rbp
    Old(usize),
}

impl Register {
    fn load(self) -> [u8; 2] {
        match self {
            Self::Number => [0x48, 0xb8],
            Self::Argument(place) => {
                [[0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]][place]
            }
            Self::Old(place) => {
                [[0x48, 0xbb], [0x48, 0xb9], [0x48, 0xba], [0x48, 0xbe], [0x48, 0xbf], [0x48, 0xbd]][place]
            }
        }
    }
}
