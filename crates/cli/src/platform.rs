//! `os[/arch[/variant]]`.

/// Reads a platform and gives it in its canonical form.
///
/// # Errors
///
/// The words of containerd, whose syntax this is.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let plain = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    if parts.len() > 3 || text.is_empty() {
        return Err(format!("{text:?}: cannot parse platform specifier: invalid argument"));
    }
    if let Some(part) = parts.iter().find(|part| !plain(part)) {
        return Err(format!("{part:?} is an invalid component of {text:?}: invalid argument"));
    }
    match parts.as_slice() {
        [one] => {
            let lower = one.to_lowercase();
            if is_system(&lower) {
                return Ok(format!("{lower}/{}", architecture(std::env::consts::ARCH, "")));
            }
            let found = architecture(&lower, "");
            if is_architecture(found.split('/').next().unwrap_or_default()) {
                return Ok(format!("linux/{found}"));
            }
            Err(format!("{text:?}: unknown operating system or architecture: invalid argument"))
        }
        [system, arch] => Ok(format!("{}/{}", system.to_lowercase(), architecture(arch, ""))),
        [system, arch, variant] => Ok(format!("{}/{}", system.to_lowercase(), architecture(arch, variant))),
        _ => Err(format!("{text:?}: cannot parse platform specifier: invalid argument")),
    }
}

fn is_system(text: &str) -> bool {
    matches!(text, "linux" | "windows" | "darwin" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "plan9" | "android")
}

fn is_architecture(text: &str) -> bool {
    matches!(
        text,
        "386"
            | "amd64"
            | "arm"
            | "arm64"
            | "ppc64"
            | "ppc64le"
            | "mips"
            | "mipsle"
            | "mips64"
            | "mips64le"
            | "riscv64"
            | "s390x"
            | "loong64"
            | "wasm"
    )
}

/// Go's name of an architecture, with its variant.
fn architecture(arch: &str, variant: &str) -> String {
    let (arch, variant) = match (arch.to_lowercase().as_str(), variant.to_lowercase().as_str()) {
        ("i386" | "x86", _) => ("386".to_owned(), String::new()),
        ("x86_64" | "x86-64" | "amd64", "v1" | "") => ("amd64".to_owned(), String::new()),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64".to_owned(), variant.to_owned()),
        ("aarch64" | "arm64", "8" | "v8" | "") => ("arm64".to_owned(), String::new()),
        ("aarch64" | "arm64", variant) => ("arm64".to_owned(), variant.to_owned()),
        ("armhf", _) => ("arm".to_owned(), "v7".to_owned()),
        ("armel", _) => ("arm".to_owned(), "v6".to_owned()),
        ("arm", "" | "7") => ("arm".to_owned(), "v7".to_owned()),
        ("arm", "5" | "6" | "8") => ("arm".to_owned(), format!("v{variant}")),
        (arch, variant) => (arch.to_owned(), variant.to_owned()),
    };
    if variant.is_empty() { arch } else { format!("{arch}/{variant}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        for (text, parsed) in [
            ("linux/amd64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm/v7", "linux/arm/v7"),
            ("linux/arm", "linux/arm/v7"),
            ("x86_64", "linux/amd64"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(parsed), "{text}");
        }
        assert!(parse("foo").is_err() && parse("a/b/c/d").is_err() && parse("lin ux/amd64").is_err());
    }
}
