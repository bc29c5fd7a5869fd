//! A command as the Dockerfile has it, and what names what it makes.

use wharf_dockerfile::{Run, RunNetwork, Script};
use wharf_reference::Digest;

use crate::cache::Key;
use crate::error::{BuildError, Result};
use crate::metadata;
use crate::session::Common;
use crate::state::State;

/// The host name of all commands, unless the request gives another: a random one would be found in what they make.
const HOSTNAME: &str = "buildkitsandbox";
/// Where the program of a heredoc that begins with `#!` is.
pub(crate) const PROGRAMS: &str = "/dev/pipes";

/// A command, ready to be run.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) args: Vec<String>,
    /// The program of a heredoc, by name and text.
    pub(crate) program: Option<(String, String)>,
    /// Of the image and the declared arguments.
    pub(crate) env: Vec<String>,
    /// Arguments that may not matter: proxies.
    pub(crate) extra_env: Vec<String>,
    pub(crate) insecure: bool,
}

impl Prepared {
    /// The program of a heredoc, as keys have it.
    pub(crate) fn program_text(&self) -> String {
        self.program.as_ref().map(|(name, text)| format!("{name}\0{text}")).unwrap_or_default()
    }
}

impl Common<'_> {
    /// `BUILDKIT_SANDBOX_HOSTNAME`, or the usual one.
    pub(crate) fn hostname(&self) -> &str {
        self.globals.build_arg("BUILDKIT_SANDBOX_HOSTNAME").filter(|name| !name.is_empty()).unwrap_or(HOSTNAME)
    }

    /// The network that a command asks for, or the build's.
    pub(crate) fn network_name(&self, run: &Run) -> &str {
        match run.network {
            RunNetwork::Default => &self.options.network,
            RunNetwork::None => "none",
            RunNetwork::Host => "host",
        }
    }

    /// Everything that decides what a command makes of `files`. `mounts` are those that it sees.
    pub(crate) fn command_key(
        &self,
        files: &str,
        state: &State,
        prepared: &Prepared,
        network: &str,
        mounts: &[&str],
    ) -> Digest {
        let key = Key::new("run")
            .text(files)
            .list(&prepared.args)
            .text(&prepared.program_text())
            .list(&prepared.env)
            .text(state.workdir())
            .text(&state.image.config.user)
            .text(&state.image.architecture)
            .text(network)
            .text(&self.clamp_text())
            .list(mounts);
        let key = if prepared.insecure { key.text("insecure") } else { key };
        // As BuildKit has it: what is in its /etc/hosts, and what it may have, but for shares of the host.
        let hosts = self.options.extra_hosts.iter().map(String::as_str).collect::<Vec<_>>();
        let limits: Vec<String> = self.options.limits.ulimits.iter().map(|limit| format!("{limit:?}")).collect();
        let limits = limits.iter().map(String::as_str).collect();
        let memory: Vec<String> = self.options.shm_size.iter().map(ToString::to_string).collect();
        let memory = memory.iter().map(String::as_str).collect();
        let lists = [("volumes", state.volumes()), ("hosts", hosts), ("ulimits", limits), ("shared memory", memory)];
        let lists = lists.into_iter().filter(|(_, list): &(_, Vec<&str>)| !list.is_empty());
        let key = lists.fold(key, |key, (name, list)| key.text(name).list(list));
        if self.hostname() == HOSTNAME { key } else { key.text(self.hostname()) }.finish()
    }
}

/// # Errors
/// For a command without words, and a program that cannot be called as it is.
pub(crate) fn prepare(state: &State, run: &Run) -> Result<Prepared> {
    let config = &state.image.config;
    let (args, program) = match run.script() {
        Script::Command(command) => (metadata::with_shell(config, &command), None),
        Script::Program { name, text } => {
            if name.contains('/') || matches!(name.as_str(), "." | "..") {
                return Err(BuildError::invalid(format!("a heredoc that is a program cannot be called {name:?}")));
            }
            let path = format!("{PROGRAMS}/{name}");
            let command = wharf_dockerfile::CommandLine { args: vec![path], shell: true };
            (metadata::with_shell(config, &command), Some((name, text)))
        }
    };
    if args.is_empty() {
        return Err(BuildError::invalid("RUN needs a command: its JSON array is empty"));
    }
    let pair = |(name, value): (&str, &str)| format!("{name}={value}");
    let env = state.scope.environment().map(pair).collect();
    let extra_env = state.scope.predefined().map(pair).collect();
    Ok(Prepared { args, program, env, extra_env, insecure: run.insecure })
}

/// As BuildKit writes it: the arguments that the command had, and the command.
pub(crate) fn history_line(state: &State, args: &[String]) -> String {
    let given: Vec<String> = state.scope.declared().map(|(name, value)| format!("{name}={value}")).collect();
    let mut words = Vec::new();
    if !given.is_empty() {
        words.push(format!("|{}", given.len()));
        words.extend(given);
    }
    words.extend(args.iter().cloned());
    format!("RUN {} # buildkit", words.join(" "))
}
