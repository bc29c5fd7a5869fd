//! Which variables there are: build arguments, the platform's, those of the whole file and those of a stage.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::expand::{ExpandError, Lexer, Variables};
use crate::graph::{GraphError, error};
use crate::instruction::Argument;
use crate::parse::Dockerfile;

/// Go's names of architectures that an image can be for.
const ARCHITECTURES: &[&str] = &[
    "386", "amd64", "arm", "arm64", "armbe", "arm64be", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc",
    "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm",
];

/// `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    pub variant: String,
}

impl Platform {
    /// That of this machine.
    pub fn host() -> Self {
        Self::normal("linux", std::env::consts::ARCH, "")
    }

    /// Parses `linux/arm64`, `arm64`, `linux/arm/v7` …
    ///
    /// # Errors
    /// In containerd's words, when a part is empty or has characters that no platform has, and for one word that is neither a
    /// system nor an architecture.
    pub fn parse(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if parts.len() > 3 {
            return Err(format!("{text:?}: cannot parse platform specifier: invalid argument"));
        }
        if let Some(bad) = parts.iter().find(|part| !good(part)) {
            return Err(format!(
                "{bad:?} is an invalid component of {text:?}: platform specifier component must match \
                 \"^[A-Za-z0-9_.-]+$\": invalid argument"
            ));
        }
        Ok(match parts.as_slice() {
            ["linux" | "windows" | "darwin" | "freebsd"] => Self::normal(parts[0], std::env::consts::ARCH, ""),
            [word] => {
                let platform = Self::normal("linux", word, "");
                if !ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    return Err(format!("{text:?}: unknown operating system or architecture: invalid argument"));
                }
                platform
            }
            [os, architecture] => Self::normal(os, architecture, ""),
            [os, architecture, variant, ..] => Self::normal(os, architecture, variant),
            [] => Self::host(),
        })
    }

    /// One name for each thing (containerd's normalization).
    fn normal(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" | "amd64" => ("amd64".to_owned(), if variant == "v1" { "" } else { variant }),
            "aarch64" | "arm64" => ("arm64".to_owned(), if matches!(variant, "8" | "v8") { "" } else { variant }),
            "i386" | "i686" | "x86" | "386" => ("386".to_owned(), ""),
            "armhf" => ("arm".to_owned(), "v7"),
            "armel" => ("arm".to_owned(), "v6"),
            "arm" if variant.is_empty() || variant == "7" => ("arm".to_owned(), "v7"),
            other => (other.to_owned(), variant),
        };
        Self { os: os.to_ascii_lowercase(), architecture, variant: variant.to_owned() }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

/// Where the build runs and what for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platforms {
    pub build: Platform,
    pub target: Platform,
}

/// Arguments that every build may be given without an ARG; they are no part of a cache key.
pub const PREDEFINED: &[&str] = &[
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Variables of the whole file.
#[derive(Clone, Debug, Default)]
pub struct Globals {
    /// What the user gave.
    build_args: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
    /// Names of the ARGs before the first FROM.
    declared: BTreeSet<String>,
}

impl Variables for Globals {
    fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl Globals {
    /// Works the global ARGs out, one after another: a default may use what came before it.
    ///
    /// # Errors
    /// When a default cannot be expanded; the message points at the line.
    pub fn new(
        dockerfile: &Dockerfile,
        platforms: &Platforms,
        target_stage: &str,
        build_args: BTreeMap<String, String>,
    ) -> Result<Self, GraphError> {
        let mut values = BTreeMap::new();
        let mut put = |name: String, value: &str| {
            let value = build_args.get(&name).map_or(value, String::as_str);
            values.insert(name, value.to_owned());
        };
        for (prefix, platform) in [("BUILD", &platforms.build), ("TARGET", &platforms.target)] {
            put(format!("{prefix}PLATFORM"), &platform.to_string());
            put(format!("{prefix}OS"), &platform.os);
            put(format!("{prefix}ARCH"), &platform.architecture);
            put(format!("{prefix}VARIANT"), &platform.variant);
            put(format!("{prefix}OSVERSION"), "");
        }
        // As BuildKit calls what has no name.
        let target_stage = match (target_stage, dockerfile.stages.last().and_then(|stage| stage.name.as_deref())) {
            ("", last) => last.unwrap_or("default"),
            (given, _) => given,
        };
        put("TARGETSTAGE".into(), target_stage);
        let mut globals = Self { build_args, values, declared: BTreeSet::new() };
        let lexer = Lexer::new(dockerfile.directives.escape);
        for (argument, source) in dockerfile.global_arguments_with_sources() {
            let fail = |e: ExpandError| error(dockerfile, Some(source), e.to_string());
            let value = match (globals.build_args.get(&argument.name), &argument.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(lexer.expand(default, &globals).map_err(fail)?.text),
                (None, None) => None,
            };
            globals.declared.insert(argument.name.clone());
            if let Some(value) = value {
                globals.values.insert(argument.name.clone(), value);
            }
        }
        Ok(globals)
    }

    pub fn build_arg(&self, name: &str) -> Option<&str> {
        self.build_args.get(name).map(String::as_str)
    }

    pub fn build_args(&self) -> &BTreeMap<String, String> {
        &self.build_args
    }

    /// All names that a FROM may use.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// Whether there is an ARG of this name before the first FROM.
    pub fn declares(&self, name: &str) -> bool {
        self.declared.contains(name)
    }
}

/// Variables of one stage, as far as it has come. Of ENV and ARG the later one counts.
#[derive(Clone, Debug)]
pub struct Scope {
    globals: Arc<Globals>,
    env: Vec<(String, String)>,
    args: Vec<Declared>,
}

/// An ARG of a stage.
#[derive(Clone, Debug)]
struct Declared {
    name: String,
    value: Option<String>,
    /// An ENV of the same name came later.
    hidden: bool,
}

impl Declared {
    fn visible(&self) -> Option<&str> {
        self.value.as_deref().filter(|_| !self.hidden)
    }
}

impl Variables for Scope {
    fn value(&self, name: &str) -> Option<&str> {
        let argument = self.args.iter().find(|argument| argument.name == name).and_then(Declared::visible);
        argument.or_else(|| self.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str()))
    }
}

impl Scope {
    /// The scope of a stage whose image has `env`.
    pub fn new(globals: Arc<Globals>, env: Vec<(String, String)>) -> Self {
        Self { globals, env, args: Vec::new() }
    }

    /// An ARG of the stage. What the user gave beats the default, the default beats a global one.
    ///
    /// # Errors
    /// When the default counts and cannot be expanded.
    pub fn declare(&mut self, argument: &Argument, escape: char) -> Result<Option<String>, ExpandError> {
        let value = match (self.globals.build_args.get(&argument.name), &argument.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => Some(Lexer::new(escape).expand(default, self)?.text),
            (None, None) => self.globals.value(&argument.name).map(str::to_owned),
        };
        match self.args.iter_mut().find(|old| old.name == argument.name) {
            // One without a value says nothing about the value that there is.
            Some(_) if value.is_none() => {}
            Some(old) => (old.value, old.hidden) = (value.clone(), false),
            None => self.args.push(Declared { name: argument.name.clone(), value: value.clone(), hidden: false }),
        }
        Ok(value)
    }

    /// The scope of a stage that begins with what this one has made: its ARGs are known there, beneath the environment.
    pub fn of_next_stage(&self) -> Self {
        let mut next = self.clone();
        let env = &next.env;
        next.args.iter_mut().for_each(|argument| argument.hidden |= env.iter().any(|(key, _)| *key == argument.name));
        next
    }

    /// ENV.
    pub fn set(&mut self, name: &str, value: &str) {
        self.args.iter_mut().filter(|argument| argument.name == name).for_each(|argument| argument.hidden = true);
        match self.env.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.env.push((name.to_owned(), value.to_owned())),
        }
    }

    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    /// What a command has in its environment: ENV's variables, and the arguments that have a value and are not hidden
    /// by an ENV, in the order in which they came.
    pub fn environment(&self) -> impl Iterator<Item = (&str, &str)> {
        let argument = |name: &str| self.args.iter().find(|argument| argument.name == name).and_then(Declared::visible);
        let env = self.env.iter().map(move |(name, value)| (name.as_str(), argument(name).unwrap_or(value)));
        let own = |name: &str| self.env.iter().any(|(key, _)| key == name);
        let args = self.args.iter().filter(move |argument| !own(&argument.name));
        env.chain(args.filter_map(|argument| Some((argument.name.as_str(), argument.visible()?))))
    }

    /// Declared arguments that have a value, in the order of their ARGs, with the value that they have for a command:
    /// an ENV's if that is the later one.
    pub fn args(&self) -> impl Iterator<Item = (&str, &str)> {
        self.args.iter().filter_map(|argument| Some((argument.name.as_str(), self.value(&argument.name)?)))
    }

    /// All declared arguments, as BuildKit's history has them: those without a value are empty.
    pub fn declared(&self) -> impl Iterator<Item = (&str, &str)> {
        self.args.iter().map(|argument| (argument.name.as_str(), self.value(&argument.name).unwrap_or_default()))
    }

    /// Predefined arguments that the user gave and that are no variable of the stage, in both spellings that programs
    /// look for.
    pub fn predefined(&self) -> impl Iterator<Item = (&str, &str)> {
        let given = |name: &str| self.globals.build_arg(name);
        let own = |name: &str| self.declares(name) || self.env.iter().any(|(key, _)| key == name);
        PREDEFINED
            .chunks(2)
            .flat_map(move |pair| {
                let (upper, lower) = (given(pair[0]), given(pair[1]));
                [(pair[0], upper.or(lower)), (pair[1], lower.or(upper))]
            })
            .filter(move |(name, _)| !own(name))
            .filter_map(|(name, value)| Some((name, value?)))
    }

    /// Whether this stage has an ARG of this name.
    pub fn declares(&self, name: &str) -> bool {
        self.args.iter().any(|argument| argument.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globals(text: &str, given: &[(&str, &str)]) -> Globals {
        let dockerfile = Dockerfile::parse("Dockerfile", text).unwrap();
        let platform = |text| Platform::parse(text).unwrap();
        let platforms = Platforms { build: platform("linux/amd64"), target: platform("linux/arm/v7") };
        let given = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Globals::new(&dockerfile, &platforms, "last", given).unwrap()
    }

    fn argument(text: &str) -> Argument {
        match text.split_once('=') {
            Some((name, default)) => Argument { name: name.into(), default: Some(default.into()) },
            None => Argument { name: text.into(), default: None },
        }
    }

    #[test]
    fn global_arguments_build_on_each_other() {
        let globals = globals("ARG A=1\nARG B=$A-$TARGETARCH C\nARG D=x\nFROM scratch\n", &[("D", "given")]);
        assert_eq!(globals.value("B"), Some("1-arm"));
        assert_eq!((globals.value("C"), globals.value("D")), (None, Some("given")));
        assert_eq!((globals.value("TARGETVARIANT"), globals.value("BUILDPLATFORM")), (Some("v7"), Some("linux/amd64")));
        assert_eq!(globals.value("TARGETSTAGE"), Some("last"));
        assert!(globals.declares("C") && !globals.declares("TARGETARCH"));
    }

    #[test]
    fn a_stage_sees_a_global_argument_only_when_it_asks() {
        let globals = Arc::new(globals("ARG A=1\nFROM scratch\n", &[("X", "given"), ("HTTP_PROXY", "p")]));
        let mut scope = Scope::new(globals, vec![("E".into(), "env".into())]);
        assert_eq!(scope.value("A"), None);
        assert_eq!(scope.declare(&argument("A"), '\\').unwrap().as_deref(), Some("1"));
        assert_eq!(scope.declare(&argument("A=own$E"), '\\').unwrap().as_deref(), Some("ownenv"));
        assert_eq!(scope.declare(&argument("X=default"), '\\').unwrap().as_deref(), Some("given"));
        assert_eq!(scope.declare(&argument("E=arg"), '\\').unwrap().as_deref(), Some("arg"));
        assert_eq!(scope.declare(&argument("NOTHING"), '\\').unwrap(), None);
        // The later one counts.
        assert_eq!((scope.value("A"), scope.value("E")), (Some("ownenv"), Some("arg")));
        scope.set("X", "set");
        assert_eq!(scope.value("X"), Some("set"));
        assert_eq!(scope.declare(&argument("Y=1"), '\\').unwrap().as_deref(), Some("1"));
        assert_eq!(scope.declare(&argument("Y"), '\\').unwrap(), None);
        assert_eq!(scope.value("Y"), Some("1"));
        assert_eq!(scope.env(), [("E".to_owned(), "env".to_owned()), ("X".into(), "set".into())]);
        let environment: Vec<_> = scope.environment().collect();
        assert_eq!(environment, [("E", "arg"), ("X", "set"), ("A", "ownenv"), ("Y", "1")]);
        let args: Vec<_> = scope.args().collect();
        assert_eq!(args, [("A", "ownenv"), ("X", "set"), ("E", "arg"), ("Y", "1")]);
        assert_eq!(scope.predefined().collect::<Vec<_>>(), [("HTTP_PROXY", "p"), ("http_proxy", "p")]);
    }

    #[test]
    fn the_environment_of_a_base_is_above_its_arguments() {
        let globals = Arc::new(globals("FROM scratch\n", &[]));
        let mut scope = Scope::new(globals, Vec::new());
        scope.set("A", "env");
        scope.declare(&argument("A=arg"), '\\').unwrap();
        scope.declare(&argument("B=arg"), '\\').unwrap();
        let mut next = scope.of_next_stage();
        assert_eq!((scope.value("A"), next.value("A"), next.value("B")), (Some("arg"), Some("env"), Some("arg")));
        next.declare(&argument("A=again"), '\\').unwrap();
        assert_eq!(next.value("A"), Some("again"));
    }

    #[test]
    fn platforms_have_one_name() {
        for (text, name) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("Linux/AMD64", "linux/amd64"),
        ] {
            assert_eq!(Platform::parse(text).unwrap().to_string(), name);
        }
        for bad in ["", "a/b/c/d", "linux/", "linux/$x", "/amd64"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }
}
