use std::time::Instant;
fn main() {
    for (name, abis) in [("native", vec![]), ("all", vec![wharf_seccomp::Abi::X86, wharf_seccomp::Abi::X32])] {
        let mut policy = wharf_seccomp::docker_default(&["CAP_CHOWN", "CAP_KILL"]);
        policy.abis = abis;
        let text = wharf_seccomp::to_oci(&policy).to_string();
        let mut runs: Vec<[u128; 3]> = (0..200)
            .map(|_| {
                let a = Instant::now();
                let section: oci_spec::runtime::LinuxSeccomp = serde_json::from_str(&text).unwrap();
                let b = Instant::now();
                let policy = wharf_seccomp::from_oci(&section).unwrap();
                let c = Instant::now();
                let filter = policy.compile().unwrap();
                let d = Instant::now();
                std::hint::black_box(filter);
                [(b - a).as_nanos(), (c - b).as_nanos(), (d - c).as_nanos()]
            })
            .collect();
        for i in 0..3 {
            runs.sort_by_key(|r| r[i]);
            print!("{name} {i}: {} ns  ", runs[100][i]);
        }
        println!("{}", policy.compile().unwrap().len());
    }
}
