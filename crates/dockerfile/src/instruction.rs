//! Instructions as they are written, and with their variables expanded.

use crate::expand::{ExpandError, Lexer, Variables};
use crate::heredoc::Heredoc;
use crate::mount::Mount;

/// All instructions, as messages name them.
pub const NAMES: &[&str] = &[
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What a step of a stage does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    Add(Copy),
    Arg(Vec<Argument>),
    Cmd(CommandLine),
    Copy(Copy),
    Entrypoint(CommandLine),
    Env(Vec<Pair>),
    /// Ports, `8080[-8090][/tcp|/udp|/sctp]`.
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    Maintainer(String),
    /// The instruction that a later build is to run, as it is written.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// `NAME` or `NAME=default` of an ARG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    pub name: String,
    pub default: Option<String>,
}

/// `name=value` of ENV and LABEL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    pub value: String,
    /// Written as `name value`.
    pub legacy: bool,
}

/// A command in shell form (one text) or exec form (words).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    pub args: Vec<String>,
    pub shell: bool,
}

/// COPY and ADD.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<String>,
    /// Files whose content is in the Dockerfile.
    pub contents: Vec<Content>,
    pub destination: String,
    /// Stage, its number, or an image.
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    pub keep_git_dir: Option<bool>,
    pub checksum: Option<String>,
    pub unpack: Option<bool>,
}

/// A file of a heredoc.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub name: String,
    pub data: String,
    pub expand: bool,
}

/// RUN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    pub heredocs: Vec<Heredoc>,
    /// Values of `--mount`; variables in them are expanded when the step runs.
    pub mounts: Vec<String>,
    pub network: RunNetwork,
    /// `--security=insecure`.
    pub insecure: bool,
    pub devices: Vec<String>,
}

/// `RUN --network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RunNetwork {
    /// What the build as a whole has.
    #[default]
    Default,
    None,
    Host,
}

/// HEALTHCHECK; a test of `["NONE"]` takes an inherited one away. Durations are nanoseconds, 0 inherits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    pub test: Vec<String>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}

impl Instruction {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Add(_) => "ADD",
            Self::Arg(_) => "ARG",
            Self::Cmd(_) => "CMD",
            Self::Copy(_) => "COPY",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Env(_) => "ENV",
            Self::Expose(_) => "EXPOSE",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Label(_) => "LABEL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Onbuild(_) => "ONBUILD",
            Self::Run(_) => "RUN",
            Self::Shell(_) => "SHELL",
            Self::StopSignal(_) => "STOPSIGNAL",
            Self::User(_) => "USER",
            Self::Volume(_) => "VOLUME",
            Self::Workdir(_) => "WORKDIR",
        }
    }

    /// The instruction with its variables expanded, where the language expands them. ARG is left alone: whether
    /// its default counts is known to the scope only. So are commands: their shell expands them.
    ///
    /// # Errors
    /// As [`Lexer::expand`].
    pub fn expand(&self, escape: char, variables: &(impl Variables + ?Sized)) -> Result<Self, ExpandError> {
        let lexer = Lexer::new(escape);
        let one = |text: &String| lexer.expand(text, variables).map(|expanded| expanded.text);
        let all = |texts: &[String]| texts.iter().map(one).collect::<Result<Vec<_>, _>>();
        let pairs = |pairs: &[Pair]| {
            let pair = |pair: &Pair| Ok(Pair { name: one(&pair.name)?, value: one(&pair.value)?, legacy: pair.legacy });
            pairs.iter().map(pair).collect::<Result<Vec<_>, ExpandError>>()
        };
        Ok(match self {
            Self::Add(copy) => Self::Add(copy.expand(lexer, variables)?),
            Self::Copy(copy) => Self::Copy(copy.expand(lexer, variables)?),
            Self::Env(list) => Self::Env(pairs(list)?),
            Self::Label(list) => Self::Label(pairs(list)?),
            Self::Expose(ports) => {
                // A variable may hold several ports.
                let mut words = Vec::new();
                for port in ports {
                    words.extend(lexer.expand(port, variables)?.words);
                }
                Self::Expose(words)
            }
            Self::StopSignal(text) => Self::StopSignal(one(text)?),
            Self::User(text) => Self::User(one(text)?),
            Self::Volume(list) => Self::Volume(all(list)?),
            Self::Workdir(text) => Self::Workdir(one(text)?),
            Self::Run(run) => Self::Run(Run { mounts: all(&run.mounts)?, ..run.clone() }),
            Self::Arg(_)
            | Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Healthcheck(_)
            | Self::Maintainer(_)
            | Self::Onbuild(_)
            | Self::Shell(_) => self.clone(),
        })
    }
}

impl Copy {
    fn expand(&self, lexer: Lexer, variables: &(impl Variables + ?Sized)) -> Result<Self, ExpandError> {
        let one = |text: &String| lexer.expand(text, variables).map(|expanded| expanded.text);
        let all = |texts: &[String]| texts.iter().map(one).collect::<Result<Vec<_>, _>>();
        let maybe = |text: &Option<String>| text.as_ref().map(one).transpose();
        let inside = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
        let content = |content: &Content| {
            let mut content = content.clone();
            if content.expand {
                content.data = inside.expand(&content.data, variables)?.text;
            }
            Ok(content)
        };
        Ok(Self {
            sources: all(&self.sources)?,
            contents: self.contents.iter().map(content).collect::<Result<_, ExpandError>>()?,
            destination: one(&self.destination)?,
            // As BuildKit has it: a variable without a value asks for nothing.
            chown: maybe(&self.chown)?.filter(|text| !text.is_empty()),
            chmod: maybe(&self.chmod)?.filter(|text| !text.is_empty()),
            exclude: all(&self.exclude)?,
            checksum: maybe(&self.checksum)?,
            ..self.clone()
        })
    }
}

/// What RUN runs, heredocs put where they belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    Command(CommandLine),
    /// A heredoc that begins with `#!`: a program of this name.
    Program {
        name: String,
        text: String,
    },
}

impl Run {
    /// The command with its heredocs. One that is nothing but a heredoc has the heredoc as its command; otherwise the
    /// shell is given them as they are written.
    pub fn script(&self) -> Script {
        let (Some(first), [line]) = (self.heredocs.first(), self.command.args.as_slice()) else {
            return Script::Command(self.command.clone());
        };
        let text = if Heredoc::announced_by(line).is_some() {
            let text = first.text();
            if text.starts_with("#!") {
                return Script::Program { name: first.name.clone(), text };
            }
            text
        } else {
            let bodies = self.heredocs.iter().map(|heredoc| format!("\n{}{}", heredoc.content, heredoc.name));
            std::iter::once(line.clone()).chain(bodies).collect()
        };
        Script::Command(CommandLine { args: vec![text], shell: self.command.shell })
    }

    /// The first line of a command that is nothing but a heredoc, with dots for the others: by that people know the step.
    pub fn begin_of_script(&self) -> Option<String> {
        let (Some(first), [line]) = (self.heredocs.first(), self.command.args.as_slice()) else { return None };
        Heredoc::announced_by(line)?;
        let text = first.text();
        let mut lines = text.trim().lines();
        let begin = lines.next().unwrap_or_default().to_owned();
        Some(if lines.next().is_some() { begin + "..." } else { begin })
    }

    /// The mounts, when their variables have been expanded.
    ///
    /// # Errors
    /// What is wrong with one, as a message.
    pub fn mounts(&self) -> Result<Vec<Mount>, String> {
        let parse = |text: &String| {
            Mount::parse(text).map_err(|mistake| match mistake.hint {
                Some(hint) => format!("{} (did you mean {hint}?)", mistake.message),
                None => mistake.message,
            })
        };
        self.mounts.iter().map(parse).collect()
    }

    /// Stages and images that are mounted.
    pub fn froms(&self) -> Vec<String> {
        self.mounts.iter().filter_map(|mount| Mount::from_of(mount).ok().flatten()).collect()
    }
}
