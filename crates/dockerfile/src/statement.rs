//! From a logical line to an instruction.

use crate::duration;
use crate::error::Mistake;
use crate::flag::FlagKind::{Bool, List, Text};
use crate::flag::{FlagKind, Flags};
use crate::heredoc::Heredoc;
use crate::instruction::{
    Argument, CommandLine, Content, Copy, Healthcheck, Instruction, NAMES, Pair, Run, RunNetwork,
};
use crate::line::Line;
use crate::mount::Mount;
use crate::{nearest, word};

/// What a line is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parsed {
    From(From),
    Instruction(Instruction),
}

/// FROM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct From {
    pub(crate) base: String,
    pub(crate) name: Option<String>,
    pub(crate) platform: Option<String>,
}

/// A line's words, for one instruction.
struct Request<'a> {
    name: &'static str,
    flags: Vec<String>,
    rest: &'a str,
    heredocs: &'a [Heredoc],
    escape: char,
}

/// Reads a line.
pub(crate) fn parse(line: &Line, escape: char) -> Result<Parsed, Mistake> {
    instruction(&line.text, &line.heredocs, escape)
}

fn instruction(text: &str, heredocs: &[Heredoc], escape: char) -> Result<Parsed, Mistake> {
    let text = text.trim();
    let (word, rest) = word::split_first(text).unwrap_or((text, ""));
    let Some(name) = NAMES.iter().copied().find(|name| word.eq_ignore_ascii_case(name)) else {
        let hint = nearest(word, NAMES.iter().copied())
            .map(|name| if word.chars().any(char::is_uppercase) { name.to_owned() } else { name.to_lowercase() });
        return Err(Mistake::new(format!("unknown instruction: {word}")).about(word).hint(hint));
    };
    let (flags, rest) = word::flags(rest);
    let request = Request { name, flags, rest, heredocs, escape };
    let instruction = match name {
        "FROM" => return request.from().map(Parsed::From),
        "ADD" | "COPY" => request.copy()?,
        "ARG" => request.arg()?,
        "CMD" => Instruction::Cmd(request.command()?),
        "ENTRYPOINT" => Instruction::Entrypoint(request.command()?),
        "ENV" => Instruction::Env(request.pairs()?),
        "LABEL" => Instruction::Label(request.pairs()?),
        "EXPOSE" => {
            request.no_flags()?;
            let mut ports = word::fields(request.rest);
            ports.sort_unstable();
            Instruction::Expose(request.at_least_one(ports)?)
        }
        "HEALTHCHECK" => Instruction::Healthcheck(request.healthcheck()?),
        "MAINTAINER" => Instruction::Maintainer(request.one()?),
        "ONBUILD" => request.onbuild(text)?,
        "RUN" => Instruction::Run(request.run()?),
        "SHELL" => request.shell()?,
        "STOPSIGNAL" => Instruction::StopSignal(request.one()?),
        "USER" => Instruction::User(request.one()?),
        "VOLUME" => request.volume()?,
        _ => Instruction::Workdir(request.one()?),
    };
    Ok(Parsed::Instruction(instruction))
}

impl Request<'_> {
    fn flags(&self, known: &[(&'static str, FlagKind)]) -> Result<Flags, Mistake> {
        Flags::check(&self.flags, known)
    }

    fn no_flags(&self) -> Result<(), Mistake> {
        self.flags(&[]).map(drop)
    }

    fn at_least_one<T>(&self, list: Vec<T>) -> Result<Vec<T>, Mistake> {
        if list.is_empty() {
            return Err(Mistake::new(format!("{} requires at least one argument", self.name)));
        }
        Ok(list)
    }

    fn one(&self) -> Result<String, Mistake> {
        self.no_flags()?;
        if self.rest.is_empty() {
            return Err(Mistake::new(format!("{} requires exactly one argument", self.name)));
        }
        Ok(self.rest.to_owned())
    }

    fn pairs(&self) -> Result<Vec<Pair>, Mistake> {
        self.no_flags()?;
        let pairs = word::pairs(self.rest, self.name, self.escape)?;
        Ok(pairs.into_iter().map(|(name, value, legacy)| Pair { name, value, legacy }).collect())
    }

    fn command_line(&self, text: &str) -> Result<CommandLine, Mistake> {
        if let Some(args) = word::json(text)? {
            return Ok(CommandLine { args, shell: false });
        }
        Ok(CommandLine { args: vec![text.to_owned()], shell: true })
    }

    fn command(&self) -> Result<CommandLine, Mistake> {
        self.no_flags()?;
        self.command_line(self.rest)
    }

    fn from(&self) -> Result<From, Mistake> {
        let flags = self.flags(&[("platform", Text)])?;
        let words = word::fields(self.rest);
        let (base, name) = match words.as_slice() {
            [base] => (base, None),
            [base, word, name] if word.eq_ignore_ascii_case("as") => (base, Some(name)),
            _ => return Err(Mistake::new("FROM requires either one or three arguments")),
        };
        let name = name.map(|name| stage_name(name)).transpose()?;
        Ok(From { base: base.clone(), name, platform: flags.some("platform") })
    }

    fn arg(&self) -> Result<Instruction, Mistake> {
        self.no_flags()?;
        let argument = |word: String| {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name.to_owned(), Some(default.to_owned())),
                None => (word.clone(), None),
            };
            if name.is_empty() {
                return Err(Mistake::new("ARG names can not be blank").about(word));
            }
            Ok(Argument { name, default })
        };
        let words = self.at_least_one(word::quoted_words(self.rest, self.escape))?;
        words.into_iter().map(argument).collect::<Result<_, _>>().map(Instruction::Arg)
    }

    fn copy(&self) -> Result<Instruction, Mistake> {
        let add = self.name == "ADD";
        let mut known = vec![("chown", Text), ("chmod", Text), ("link", Bool), ("exclude", List)];
        let own: &[(&str, FlagKind)] = if add {
            &[("keep-git-dir", Bool), ("checksum", Text), ("unpack", Bool)]
        } else {
            &[("from", Text), ("parents", Bool)]
        };
        known.extend_from_slice(own);
        let flags = self.flags(&known)?;
        let mut words = match word::json(self.rest)? {
            Some(words) => words,
            None => word::fields(self.rest),
        };
        let destination = words.pop().filter(|_| !words.is_empty()).ok_or_else(|| {
            Mistake::new(format!(
                "{} requires at least two arguments, but only one was provided. Destination could not be determined",
                self.name
            ))
        })?;
        if Heredoc::announced_by(&destination).is_some() && !self.heredocs.is_empty() {
            let text = format!("{} cannot accept a heredoc as a destination", self.name);
            return Err(Mistake::new(text).about(destination));
        }
        let (mut sources, mut contents) = (Vec::new(), Vec::new());
        for word in words {
            let announced = Heredoc::announced_by(&word);
            // Of several with one name the last is meant.
            match announced.and_then(|found| self.heredocs.iter().rfind(|heredoc| heredoc.name == found.name)) {
                Some(heredoc) => {
                    let name = heredoc.file_name().ok_or_else(|| {
                        let text = format!("{} cannot make a file of the name {:?}", self.name, heredoc.name);
                        Mistake::new(text).about(&word)
                    })?;
                    contents.push(Content { name: name.to_owned(), data: heredoc.text(), expand: heredoc.expand })
                }
                None => sources.push(word),
            }
        }
        let copy = Copy {
            sources,
            contents,
            destination,
            from: flags.some("from"),
            chown: flags.some("chown"),
            chmod: flags.some("chmod"),
            link: flags.bool("link").unwrap_or(false),
            parents: flags.bool("parents").unwrap_or(false),
            exclude: flags.list("exclude"),
            keep_git_dir: flags.bool("keep-git-dir"),
            checksum: flags.some("checksum"),
            unpack: flags.bool("unpack"),
        };
        Ok(if add { Instruction::Add(copy) } else { Instruction::Copy(copy) })
    }

    fn run(&self) -> Result<Run, Mistake> {
        let flags = self.flags(&[("mount", List), ("network", Text), ("security", Text), ("device", List)])?;
        let mounts = flags.list("mount");
        for mount in &mounts {
            // What has variables is checked when they have values.
            Mount::from_of(mount)?;
            if !mount.contains('$') {
                Mount::parse(mount)?;
            }
        }
        let network = match flags.some("network").as_deref() {
            None | Some("default") => RunNetwork::Default,
            Some("none") => RunNetwork::None,
            Some("host") => RunNetwork::Host,
            Some(other) => {
                let hint = nearest(other, ["default", "none", "host"]);
                return Err(Mistake::new(format!("invalid network mode {other:?}")).about(other).hint(hint));
            }
        };
        let insecure = match flags.some("security").as_deref() {
            None | Some("sandbox") => false,
            Some("insecure") => true,
            Some(other) => {
                let hint = nearest(other, ["sandbox", "insecure"]);
                return Err(Mistake::new(format!("invalid security mode: {other:?}")).about(other).hint(hint));
            }
        };
        let command = self.command_line(self.rest)?;
        Ok(Run { command, heredocs: self.heredocs.to_vec(), mounts, network, insecure, devices: flags.list("device") })
    }

    fn shell(&self) -> Result<Instruction, Mistake> {
        self.no_flags()?;
        match word::json(self.rest)? {
            Some(words) => self.at_least_one(words).map(Instruction::Shell),
            None if self.rest.is_empty() => self.at_least_one(Vec::new()).map(Instruction::Shell),
            None => Err(Mistake::new("SHELL requires the arguments to be in JSON form").about(self.rest)),
        }
    }

    fn volume(&self) -> Result<Instruction, Mistake> {
        self.no_flags()?;
        let words = match word::json(self.rest)? {
            Some(words) => words,
            None => word::fields(self.rest),
        };
        let words: Vec<String> = words.iter().map(|word| word.trim().to_owned()).collect();
        if words.iter().any(String::is_empty) {
            return Err(Mistake::new("VOLUME specified can not be an empty string"));
        }
        self.at_least_one(words).map(Instruction::Volume)
    }

    fn healthcheck(&self) -> Result<Healthcheck, Mistake> {
        let known = ["interval", "timeout", "start-period", "start-interval", "retries"].map(|name| (name, Text));
        let (kind, rest) = word::split_first(self.rest).unwrap_or((self.rest, ""));
        match kind.to_ascii_uppercase().as_str() {
            "" => return Err(Mistake::new("HEALTHCHECK requires at least one argument")),
            "NONE" => {
                // Allowed, whatever they would mean.
                self.flags(&known)?;
                if !rest.is_empty() {
                    return Err(Mistake::new("HEALTHCHECK NONE takes no arguments").about(rest));
                }
                return Ok(Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() });
            }
            "CMD" => {}
            other => {
                let hint = nearest(other, ["CMD", "NONE"]);
                let text = format!("unknown type {other:?} in HEALTHCHECK (try CMD)");
                return Err(Mistake::new(text).about(kind).hint(hint));
            }
        }
        let flags = self.flags(&known)?;
        let command = self.command_line(rest.trim_start())?;
        if command.args.is_empty() || (command.shell && rest.trim().is_empty()) {
            return Err(Mistake::new("missing command after HEALTHCHECK CMD"));
        }
        let mut test = vec![if command.shell { "CMD-SHELL" } else { "CMD" }.to_owned()];
        test.extend(command.args);
        let time = |name: &str| match flags.some(name) {
            None => Ok(0),
            Some(text) => match duration::parse(&text) {
                Some(0) => Ok(0),
                Some(nanoseconds) if nanoseconds >= 1_000_000 => Ok(nanoseconds),
                Some(_) => Err(Mistake::new(format!("Interval {name:?} cannot be less than 1ms")).about(text)),
                None => Err(Mistake::new(format!("time: invalid duration {text:?}")).about(text)),
            },
        };
        let retries = match flags.some("retries") {
            None => 0,
            Some(text) => match text.parse::<i32>() {
                Ok(retries) if retries < 0 => {
                    return Err(Mistake::new(format!("--retries cannot be negative ({retries})")).about(text));
                }
                Ok(retries) => i64::from(retries),
                Err(_) => return Err(Mistake::new(format!("invalid value {text:?} for --retries")).about(text)),
            },
        };
        Ok(Healthcheck {
            test,
            interval: time("interval")?,
            timeout: time("timeout")?,
            start_period: time("start-period")?,
            start_interval: time("start-interval")?,
            retries,
        })
    }

    fn onbuild(&self, text: &str) -> Result<Instruction, Mistake> {
        let trigger = word::split_first(text).map(|(_, rest)| rest.trim()).unwrap_or_default();
        if trigger.is_empty() {
            return Err(Mistake::new("ONBUILD requires at least one argument"));
        }
        let (word, _) = word::split_first(trigger).unwrap_or((trigger, ""));
        match word.to_ascii_uppercase().as_str() {
            "ONBUILD" => return Err(Mistake::new("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
            name @ ("MAINTAINER" | "FROM") => {
                return Err(Mistake::new(format!("{name} isn't allowed as an ONBUILD trigger")).about(word));
            }
            _ => {}
        }
        // A trigger that could never run is found here and not by whoever builds on this image.
        instruction(trigger, self.heredocs, self.escape)?;
        let mut whole = trigger.to_owned();
        for heredoc in self.heredocs {
            whole.push('\n');
            whole.push_str(&heredoc.content);
            whole.push_str(&heredoc.name);
        }
        Ok(Instruction::Onbuild(whole))
    }
}

/// Checks the name after AS. Names are compared without case.
fn stage_name(text: &str) -> Result<String, Mistake> {
    let name = text.to_lowercase();
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.'));
    if good {
        return Ok(name);
    }
    let message = format!("invalid name for build stage: {text:?}, name can't start with a number or contain symbols");
    Err(Mistake::new(message).about(text))
}
