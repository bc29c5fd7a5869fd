//! Images of another architecture that the machine runs too: 32-bit x86 on x86_64.
#![cfg(target_arch = "x86_64")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::kit::{Daemon, Said};

const LINE: &str = "32 bits\n";

/// A static program for i386 that maps memory, writes a line and ends with 7: an ELF header, a program header, code.
fn program() -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    // mmap2(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), and to the end with 9 if that is an errno.
    let mut code = vec![0xb8, 192, 0, 0, 0, 0x31, 0xdb, 0xb9, 0, 0x10, 0, 0, 0xba, 1, 0, 0, 0, 0xbe, 0x22, 0, 0, 0];
    code.extend([0xbf, 0xff, 0xff, 0xff, 0xff, 0x31, 0xed, 0xcd, 0x80]);
    code.extend([0xbb, 9, 0, 0, 0, 0x3d, 0x01, 0xf0, 0xff, 0xff, 0x73, 27]);
    // write(1, line, length)
    code.extend([0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9]);
    let line = BASE + HEADERS + code.len() as u32 + 4 + 5 + 2 + 5 + 5 + 2;
    code.extend(line.to_le_bytes());
    code.extend([0xba, LINE.len() as u8, 0, 0, 0, 0xcd, 0x80]);
    // exit(7), or what ebx holds when it was jumped to.
    code.extend([0xbb, 7, 0, 0, 0, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    code.extend(LINE.bytes());
    let size = HEADERS + code.len() as u32;
    let mut elf = b"\x7fELF\x01\x01\x01".to_vec();
    elf.resize(16, 0);
    // e_type, e_machine; e_version, e_entry, e_phoff, e_shoff, e_flags; the sizes and counts.
    elf.extend([2u16, 3].iter().flat_map(|n| n.to_le_bytes()));
    elf.extend([1, BASE + HEADERS, 52, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
    elf.extend([52u16, 32, 1, 40, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
    // PT_LOAD, offset, addresses, sizes, r-x, alignment.
    elf.extend([1, 0, BASE, BASE, size, size, 5, 0x1000].iter().flat_map(|n: &u32| n.to_le_bytes()));
    elf.extend(code);
    elf
}

/// Whether this kernel runs such programs (`CONFIG_IA32_EMULATION`).
fn runs(program: &Path) -> bool {
    let output = Command::new(program).output();
    let runs = output.as_ref().is_ok_and(|o| o.status.code() == Some(7) && o.stdout == LINE.as_bytes());
    if !runs {
        eprintln!("skipped: this kernel does not run 32-bit programs: {output:?}");
    }
    runs
}

#[test]
fn a_386_image_runs_32_bit_programs_and_an_amd64_image_does_not() {
    let Some(d) = Daemon::start() else { return };
    let root = d.path().join("root32");
    std::fs::create_dir(&root).unwrap();
    let path = root.join("hello");
    std::fs::write(&path, program()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    if !runs(&path) {
        return;
    }
    let archive = d.path().join("root32.tar");
    assert!(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap().success());
    let import = |platform: &str, name: &str| {
        let mut client = d.client();
        client.args(["import", "--platform", platform, "-", name]).stdin(std::fs::File::open(&archive).unwrap());
        Said::from(client.output().unwrap()).ok();
    };
    import("linux/386", "old");
    import("linux/amd64", "new");
    let architecture = |image: &str| d.docker(&format!("inspect -f {{{{.Os}}}}/{{{{.Architecture}}}} {image}")).ok();
    assert_eq!((architecture("old"), architecture("new")), ("linux/386".into(), "linux/amd64".into()));

    let prints = |words: &str| {
        let said = d.docker(words);
        assert_eq!((said.code, said.out.as_str()), (7, LINE), "{words}: {}", said.err);
    };
    prints("run --rm old /hello");
    prints("run --rm --platform linux/386 old /hello");
    // Docker's client would go on and pull it.
    let (status, said) = d.post("/containers/create?platform=linux/amd64", r#"{"Image":"old"}"#, true).unwrap();
    assert!(
        status == 404 && said.contains("its platform (linux/386) does not match the specified platform (linux/amd64)"),
        "{status} {said}"
    );
    // The way out of the refusal is a profile that names the ABI.
    let profile = d.path().join("profile.json");
    let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"] }"#;
    std::fs::write(&profile, text).unwrap();
    prints(&format!("run --rm --security-opt seccomp={} new /hello", profile.display()));
    let said = d.docker("run --rm new /hello");
    assert_eq!((said.code, said.out.as_str()), (159, ""), "128 and SIGSYS: {}", said.err);

    // Archives and the commit of a container keep what the image is for.
    let saved = d.path().join("saved.tar");
    d.docker(&format!("save -o {} old", saved.display())).ok();
    d.docker("rmi old").ok();
    d.docker(&format!("load -i {}", saved.display())).ok();
    assert_eq!(architecture("old"), "linux/386");
    assert_eq!(d.docker("run --name first old /hello").code, 7);
    // The filter is the container's own, also when another process of it comes later.
    d.docker("commit first committed").ok();
    assert_eq!(architecture("committed"), "linux/386");
    prints("run --rm committed /hello");
    let said = d.docker("start -a first");
    assert_eq!((said.code, said.out.as_str()), (7, LINE), "{}", said.err);
}

#[test]
fn a_build_runs_the_programs_of_its_platform() {
    let Some(d) = Daemon::start() else { return };
    let context = d.path().join("context");
    std::fs::create_dir(&context).unwrap();
    let path = context.join("hello");
    std::fs::write(&path, program()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    if !runs(&path) {
        return;
    }
    let dockerfile = |from: &str| {
        let text = format!("FROM {from}\nCOPY hello /hello\nRUN /hello; test $? = 7\n");
        std::fs::write(context.join("Dockerfile"), text).unwrap();
    };
    dockerfile("busybox");
    let said = d.docker(&format!("build -t native {}", context.display()));
    assert!(said.code == 1 && said.err.contains("returned a non-zero code: 1"), "{}", said.err);
    // The same files, as an image for 386: the shell is a 64-bit program, which goes on to run.
    let archive = std::fs::File::open(d.path().join("busybox.tar")).unwrap();
    let mut client = d.client();
    client.args(["import", "--platform", "linux/386", "-", "busybox32"]).stdin(archive);
    Said::from(client.output().unwrap()).ok();
    dockerfile("--platform=linux/386 busybox32");
    let out = d.docker(&format!("build -t built {}", context.display())).ok();
    assert!(out.contains(LINE), "{out}");
    assert_eq!(d.docker("inspect -f {{.Architecture}} built").ok(), "386");
    assert_eq!(d.docker("run --rm built /hello").code, 7);
}
