//! Platforms: what a program needs to run (OCI image-spec, "Image Index"; names as Go's).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An operating system and an architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// A text that is no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// More than three parts, or a system's version; here and below with containerd's texts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    Form(String),
    #[error(
        "{part:?} is an invalid OS component of {whole:?}: OSAndVersion specifier component must match \
         \"^([A-Za-z0-9_-]+)(?:\\\\(([A-Za-z0-9_.%-]*)((?:\\\\+[A-Za-z0-9_.%-]+)*)\\\\))?$\": invalid argument"
    )]
    Os { part: String, whole: String },
    #[error(
        "{part:?} is an invalid component of {whole:?}: platform specifier component must match \
         \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Part { part: String, whole: String },
    /// One word that is neither a system nor an architecture.
    #[error("\"{0}\": unknown operating system or architecture: invalid argument")]
    Unknown(String),
}

impl Platform {
    /// The platform of the machine that this runs on.
    pub fn host() -> Self {
        let (architecture, variant) = normal(std::env::consts::ARCH, None);
        Self { architecture, os: "linux".into(), variant, ..Self::default() }
    }

    /// Parses `linux/arm64/v8`, `arm64` or `linux`; what is left out is the host's.
    ///
    /// # Errors
    /// When it has empty parts, or others than letters, digits, `_`, `.` and `-`; when it is one word that is not known.
    pub fn parse(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        let word = |part: &str, more: &[u8]| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || more.contains(&b))
        };
        let shown = |text: &str| text.chars().take(128).collect::<String>();
        let os = parts[0];
        if text.len() > 128 || (os.ends_with(')') && os.contains('(')) {
            return Err(PlatformError::Form(shown(text)));
        }
        if !word(os, b"_-") {
            return Err(PlatformError::Os { part: os.into(), whole: text.into() });
        }
        if let Some(part) = parts.iter().skip(1).find(|part| !word(part, b"_.-")) {
            return Err(PlatformError::Part { part: (*part).into(), whole: text.into() });
        }
        let host = Self::host();
        let (os, architecture, variant) = match parts[..] {
            [one] if is_os(one) => (one, host.architecture.as_str(), host.variant.as_deref()),
            [one] if !is_architecture(one) => return Err(PlatformError::Unknown(one.into())),
            [one] => (host.os.as_str(), one, None),
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some(variant)),
            _ => return Err(PlatformError::Form(shown(text))),
        };
        let (architecture, variant) = normal(architecture, variant);
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".into(),
            other => other.to_owned(),
        };
        Ok(Self { architecture, os, variant, ..Self::default() })
    }

    /// How well an image for `offered` runs on this platform: `None` not at all, otherwise the less the better.
    pub fn distance(&self, offered: &Self) -> Option<u32> {
        let (mine, variant) = normal(&self.architecture, self.variant.as_deref());
        let (theirs, other) = normal(&offered.architecture, offered.variant.as_deref());
        if !self.os.eq_ignore_ascii_case(&offered.os) {
            return None;
        }
        if mine != theirs {
            // A 64 bit ARM runs 32 bit programs, should nothing better be offered; as containerd has it.
            return match (mine.as_str(), theirs.as_str()) {
                ("arm64", "arm") => Some(100 + 8u32.saturating_sub(level(&theirs, other.as_deref()))),
                _ => None,
            };
        }
        let (have, need) = (level(&mine, variant.as_deref()), level(&theirs, other.as_deref()));
        have.checked_sub(need)
    }
}

/// The number in a variant; what the architecture means where it has none.
fn level(architecture: &str, variant: Option<&str>) -> u32 {
    let number =
        variant.and_then(|v| v.strip_prefix('v')).and_then(|v| v.split('.').next()).and_then(|v| v.parse().ok());
    number.unwrap_or(match architecture {
        "arm64" => 8,
        "arm" => 7,
        _ => 1,
    })
}

/// Go's names, without a variant that says nothing.
fn normal(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let architecture = architecture.to_ascii_lowercase();
    let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
    let numbered = variant.map(|v| if v.bytes().all(|b| b.is_ascii_digit()) { format!("v{v}") } else { v });
    let (name, variant) = match architecture.as_str() {
        "x86_64" | "x86-64" | "amd64" => ("amd64", numbered.filter(|v| v != "v1")),
        "i386" | "i686" | "x86" | "386" => ("386", None),
        "aarch64" | "arm64" => ("arm64", numbered.filter(|v| v != "v8" && v != "v8.0")),
        "armhf" => ("arm", Some("v7".into())),
        "armel" => ("arm", Some("v6".into())),
        "arm" => ("arm", numbered.or_else(|| Some("v7".into()))),
        "powerpc64le" | "powerpc64" => ("ppc64le", numbered),
        "loongarch64" => ("loong64", numbered),
        other => (other, numbered),
    };
    (name.to_owned(), variant)
}

fn is_os(word: &str) -> bool {
    matches!(
        word.to_ascii_lowercase().as_str(),
        "linux" | "windows" | "darwin" | "macos" | "freebsd" | "netbsd" | "openbsd" | "solaris" | "illumos" | "aix"
    )
}

/// Go's names of architectures (containerd, `isKnownArch`), and those that mean one of them.
fn is_architecture(word: &str) -> bool {
    matches!(
        normal(word, None).0.as_str(),
        "386"
            | "amd64"
            | "amd64p32"
            | "arm"
            | "armbe"
            | "arm64"
            | "arm64be"
            | "loong64"
            | "mips"
            | "mipsle"
            | "mips64"
            | "mips64le"
            | "mips64p32"
            | "mips64p32le"
            | "ppc"
            | "ppc64"
            | "ppc64le"
            | "riscv"
            | "riscv64"
            | "s390"
            | "s390x"
            | "sparc"
            | "sparc64"
            | "wasm"
    )
}

impl FromStr for Platform {
    type Err = PlatformError;
    fn from_str(text: &str) -> Result<Self, PlatformError> {
        Self::parse(text)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distance(mine: &str, offered: &str) -> Option<u32> {
        Platform::parse(mine).unwrap().distance(&Platform::parse(offered).unwrap())
    }

    #[test]
    fn platforms_are_parsed_and_made_normal() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("Linux/ARM/7", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("arm64", "linux/arm64"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), normal);
        }
        assert_eq!(Platform::parse("linux").unwrap(), Platform::host());
        let unknown = Platform::parse("foobar").unwrap_err().to_string();
        assert_eq!(unknown, "\"foobar\": unknown operating system or architecture: invalid argument");
        for (bad, why) in [
            ("/", "\"\" is an invalid OS component of \"/\": OSAndVersion specifier component must match "),
            ("linux/", "\"\" is an invalid component of \"linux/\": platform specifier component must match "),
            ("a/b/c/d", "\"a/b/c/d\": cannot parse platform specifier: invalid argument"),
        ] {
            let said = Platform::parse(bad).unwrap_err().to_string();
            assert!(said.starts_with(why), "{said}");
        }
        for bad in ["", "/", "linux/", "linux//v8", "a/b/c/d", "linux/amd 64", "linux/amd64\n"] {
            assert!(Platform::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_best_fitting_offer_is_the_nearest() {
        assert_eq!(distance("linux/amd64", "linux/amd64"), Some(0));
        assert_eq!(distance("linux/amd64", "linux/arm64"), None);
        assert_eq!(distance("linux/amd64", "windows/amd64"), None);
        assert_eq!(distance("linux/amd64", "linux/amd64/v3"), None);
        assert_eq!(distance("linux/amd64/v3", "linux/amd64"), Some(2));
        assert!(distance("linux/arm/v7", "linux/arm/v6") > distance("linux/arm/v7", "linux/arm/v7"));
        assert_eq!(distance("linux/arm/v6", "linux/arm/v7"), None);
        assert!(distance("linux/arm64", "linux/arm/v7") > distance("linux/arm64", "linux/arm64"));
    }
}
