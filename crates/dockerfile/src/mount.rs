//! `RUN --mount=…`.

use crate::directive::parse_bool;
use crate::error::Mistake;
use crate::nearest;

/// What is mounted for the time of one RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image; what is written is dropped.
    Bind,
    /// A directory that outlives the build.
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl MountKind {
    const NAMES: &[(&str, Self)] = &[
        ("bind", Self::Bind),
        ("cache", Self::Cache),
        ("tmpfs", Self::Tmpfs),
        ("secret", Self::Secret),
        ("ssh", Self::Ssh),
    ];

    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| name)
    }
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sharing {
    #[default]
    Shared,
    /// Another writer gets another cache.
    Private,
    /// Another writer waits.
    Locked,
}

impl Sharing {
    const NAMES: &[(&str, Self)] = &[("shared", Self::Shared), ("private", Self::Private), ("locked", Self::Locked)];
}

/// One `--mount`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mount {
    pub kind: MountKind,
    /// Stage or image; the context when absent.
    pub from: Option<String>,
    pub source: Option<String>,
    pub target: Option<String>,
    pub read_only: bool,
    pub id: Option<String>,
    pub sharing: Sharing,
    pub required: bool,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// The variable that a secret is given in.
    pub env: Option<String>,
}

const KEYS: &[&str] = &[
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

impl Mount {
    /// Parses a flag's value whose variables have been expanded.
    pub(crate) fn parse(text: &str) -> Result<Self, Mistake> {
        let mut mount = Self {
            kind: MountKind::Bind,
            from: None,
            source: None,
            target: None,
            read_only: true,
            id: None,
            sharing: Sharing::Shared,
            required: false,
            size: None,
            mode: None,
            uid: None,
            gid: None,
            env: None,
        };
        let mut read_only = None;
        let mut sharing = None;
        for field in csv(text)? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
                None => (field.to_ascii_lowercase(), None),
            };
            let Some(value) = value else {
                match key.as_str() {
                    "readonly" | "ro" => read_only = Some(true),
                    "readwrite" | "rw" => read_only = Some(false),
                    "required" => mount.set_required(&key, true)?,
                    _ => {
                        return Err(
                            Mistake::new(format!("invalid field '{field}' must be a key=value pair")).about(&field)
                        );
                    }
                }
                continue;
            };
            let invalid = || Mistake::new(format!("invalid value for {key}: {value}")).about(&field);
            let bool = || parse_bool(value).ok_or_else(invalid);
            let text = || Some(value.to_owned());
            match key.as_str() {
                "type" => mount.kind = pick("mount type", value, MountKind::NAMES)?,
                "from" => mount.from = text(),
                "source" | "src" => mount.source = text(),
                "target" | "dst" | "destination" => mount.target = text(),
                "readonly" | "ro" => read_only = Some(bool()?),
                "readwrite" | "rw" => read_only = Some(!bool()?),
                "required" => mount.set_required(&key, bool()?)?,
                "id" => mount.id = text(),
                "sharing" => sharing = Some(pick("sharing value", value, Sharing::NAMES)?),
                "size" if mount.kind == MountKind::Tmpfs => mount.size = Some(bytes(value).ok_or_else(invalid)?),
                "env" if mount.kind == MountKind::Secret => mount.env = text(),
                "size" | "env" => return Err(unexpected(&key, mount.kind)),
                "mode" => mount.mode = Some(number(&key, value, 8)?),
                "uid" => mount.uid = Some(number(&key, value, 10)?),
                "gid" => mount.gid = Some(number(&key, value, 10)?),
                _ => {
                    let hint = nearest(&key, KEYS.iter().copied());
                    let text = format!("unexpected key '{key}' in '{field}'");
                    return Err(Mistake::new(text).about(&field).hint(hint));
                }
            }
        }
        let writable = matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs);
        mount.read_only = read_only.unwrap_or(!writable);
        mount.sharing = sharing.unwrap_or_default();
        mount.check(sharing.is_some())?;
        Ok(mount)
    }

    fn set_required(&mut self, key: &str, value: bool) -> Result<(), Mistake> {
        if !matches!(self.kind, MountKind::Secret | MountKind::Ssh) {
            return Err(unexpected(key, self.kind));
        }
        self.required = value;
        Ok(())
    }

    fn check(&self, sharing: bool) -> Result<(), Mistake> {
        let fail = |text: String| Err(Mistake::new(text));
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            for (name, set) in [("mode", self.mode.is_some()), ("uid", self.uid.is_some()), ("gid", self.gid.is_some())]
            {
                if set {
                    return fail(format!("{name} not allowed for {:?} type mounts", self.kind.name()));
                }
            }
        }
        if self.kind == MountKind::Secret {
            if self.from.is_some() {
                return fail("secret mount should not have a from".into());
            }
            if sharing {
                return fail("secret mount should not define sharing".into());
            }
            if self.source.is_none() && self.target.is_none() && self.id.is_none() {
                return fail("invalid secret mount. one of source, target required".into());
            }
            if self.source.is_some() && self.id.is_some() {
                return fail("both source and id can't be set".into());
            }
        }
        if sharing && self.kind != MountKind::Cache {
            return fail(format!("invalid cache sharing set for {} mount", self.kind.name()));
        }
        Ok(())
    }

    /// The `from` of a mount whose variables have not been expanded.
    pub(crate) fn from_of(text: &str) -> Result<Option<String>, Mistake> {
        let mut from = None;
        for field in csv(text)? {
            if let Some((key, value)) = field.split_once('=')
                && key.eq_ignore_ascii_case("from")
            {
                if value.contains('$') && !value.ends_with('$') {
                    let text = format!("'{key}' doesn't support variable expansion, define alias stage instead");
                    return Err(Mistake::new(text).about(&field));
                }
                from = Some(value.to_owned());
            }
        }
        Ok(from)
    }
}

fn unexpected(key: &str, kind: MountKind) -> Mistake {
    Mistake::new(format!("unexpected key '{key}' for mount type '{}'", kind.name())).about(key)
}

fn pick<T: Copy>(what: &str, value: &str, names: &[(&str, T)]) -> Result<T, Mistake> {
    let found = names.iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
    found.map(|(_, kind)| *kind).ok_or_else(|| {
        let hint = nearest(value, names.iter().map(|(name, _)| *name)).map(str::to_owned);
        Mistake::new(format!("unsupported {what} {value:?}")).about(value).hint(hint)
    })
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, Mistake> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    let number = u32::from_str_radix(value, radix).ok().filter(|_| digits);
    number.ok_or_else(|| Mistake::new(format!("invalid value {value} for {key}")).about(value))
}

/// `64m`, `1.5GiB`, `1024`: powers of 1024.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let digits = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let number: f64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim_start().to_ascii_lowercase();
    let power = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 1,
        "m" | "mb" | "mi" | "mib" => 2,
        "g" | "gb" | "gi" | "gib" => 3,
        "t" | "tb" | "ti" | "tib" => 4,
        "p" | "pb" | "pi" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024f64.powi(power);
    (bytes < 9.2e18).then_some(bytes as u64)
}

/// The fields of one CSV record (RFC 4180).
fn csv(text: &str) -> Result<Vec<String>, Mistake> {
    let bad = || Mistake::new(format!("failed to parse csv mounts: {text}")).about(text);
    let mut fields = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        let mut field = String::new();
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next().ok_or_else(bad)? {
                    '"' if chars.peek() == Some(&'"') => field.extend(chars.next()),
                    '"' => break,
                    c => field.push(c),
                }
            }
            if !matches!(chars.peek(), None | Some(',')) {
                return Err(bad());
            }
        }
        while let Some(c) = chars.next_if(|c| *c != ',') {
            if c == '"' {
                return Err(bad());
            }
            field.push(c);
        }
        fields.push(field);
        if chars.next().is_none() {
            return Ok(fields);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_of_all_kinds() {
        let cache = Mount::parse("type=cache,target=/c,sharing=locked,mode=0750,uid=1,gid=2,id=x").unwrap();
        assert_eq!((cache.kind, cache.read_only, cache.sharing), (MountKind::Cache, false, Sharing::Locked));
        assert_eq!((cache.mode, cache.uid, cache.gid, cache.id.as_deref()), (Some(0o750), Some(1), Some(2), Some("x")));
        let bind = Mount::parse("from=base,src=/a,dst=/b").unwrap();
        assert_eq!((bind.kind, bind.read_only, bind.from.as_deref()), (MountKind::Bind, true, Some("base")));
        assert!(!Mount::parse("type=bind,target=/b,rw").unwrap().read_only);
        assert!(Mount::parse("type=cache,target=/b,ro=true").unwrap().read_only);
        assert_eq!(Mount::parse("type=tmpfs,target=/t,size=64m").unwrap().size, Some(64 << 20));
        let secret = Mount::parse("type=secret,id=s,env=TOKEN,required").unwrap();
        assert!(secret.required && secret.env.as_deref() == Some("TOKEN"));
        assert_eq!(Mount::parse("type=bind,\"target=/a,b\"").unwrap().target.as_deref(), Some("/a,b"));
    }

    #[test]
    fn mistakes_in_mounts() {
        for (text, message) in [
            ("type=bnd,target=/x", "unsupported mount type \"bnd\""),
            ("targt=/x", "unexpected key 'targt' in 'targt=/x'"),
            ("type=bind,target", "invalid field 'target' must be a key=value pair"),
            ("type=bind,required", "unexpected key 'required' for mount type 'bind'"),
            ("type=bind,size=1", "unexpected key 'size' for mount type 'bind'"),
            ("type=tmpfs,size=x", "invalid value for size: x"),
            ("type=cache,sharing=lockd", "unsupported sharing value \"lockd\""),
            ("type=bind,sharing=shared", "invalid cache sharing set for bind mount"),
            ("type=bind,mode=1", "mode not allowed for \"bind\" type mounts"),
            ("type=cache,mode=9", "invalid value 9 for mode"),
            ("type=cache,uid=+1", "invalid value +1 for uid"),
            ("type=secret", "invalid secret mount. one of source, target required"),
            ("type=secret,id=a,source=b", "both source and id can't be set"),
            ("type=secret,id=a,from=b", "secret mount should not have a from"),
            ("type=bind,ro=maybe", "invalid value for ro: maybe"),
            ("\"type=bind", "failed to parse csv mounts: \"type=bind"),
        ] {
            assert_eq!(Mount::parse(text).unwrap_err().message, message, "{text}");
        }
        assert_eq!(Mount::parse("type=bnd").unwrap_err().hint.as_deref(), Some("bind"));
        assert!(Mount::from_of("type=bind,from=$x").is_err());
    }

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("1k", Some(1024)),
            ("1.5 GiB", Some(3 << 29)),
            ("2MB", Some(2 << 20)),
            ("x", None),
            ("1x", None),
            ("99999999p", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
