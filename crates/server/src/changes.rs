//! `--change`: Dockerfile instructions applied to a configuration, for import and commit.

use std::collections::BTreeMap;

use wharf_build::exposed_ports;
use wharf_dockerfile::{CommandLine, Dockerfile, Instruction, Lexer, NAMES, Variables};
use wharf_engine::spec::{Config, Empty, Healthcheck};

use crate::http::ApiError;

/// Instructions that only change a configuration (moby, `validCommitCommands`).
const CHANGES: &[&str] = &[
    "cmd",
    "entrypoint",
    "env",
    "expose",
    "healthcheck",
    "label",
    "onbuild",
    "stopsignal",
    "user",
    "volume",
    "workdir",
];

/// Applies each change in turn.
///
/// # Errors
/// 400 for what is no instruction, or none that only changes the configuration.
pub(crate) fn apply(config: &mut Config, changes: &[String]) -> Result<(), ApiError> {
    if !changes.is_empty() && changes.iter().all(|change| change.trim().is_empty()) {
        return Err(ApiError::bad("file with no instructions"));
    }
    let mut cmd_set = false;
    for change in changes.iter().filter(|change| !change.trim().is_empty()) {
        let word = change.split_whitespace().next().unwrap_or_default();
        if !CHANGES.iter().any(|name| word.eq_ignore_ascii_case(name)) {
            return Err(ApiError::bad(format!("{word} is not a valid change command")));
        }
        if let Some(trigger) = unknown_trigger(change) {
            config.on_build.get_or_insert_default().push(trigger.to_owned());
            continue;
        }
        let text = format!("FROM scratch\n{change}\n");
        let parsed = Dockerfile::parse("--change", &text).map_err(|e| ApiError::bad(e.to_string()))?;
        for statement in parsed.stages.iter().flat_map(|stage| &stage.statements) {
            one(config, &statement.instruction, &mut cmd_set)?;
        }
    }
    Ok(())
}

/// A trigger whose instruction nobody knows here. Docker takes it, for an engine of another version may know it, and says
/// so to whoever builds on the image.
fn unknown_trigger(change: &str) -> Option<&str> {
    let trigger = change.trim().split_once(char::is_whitespace)?.1.trim();
    let is_onbuild = change.trim_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("onbuild"));
    let word = trigger.split_whitespace().next()?;
    let unknown = !NAMES.iter().any(|name| word.eq_ignore_ascii_case(name));
    (is_onbuild && unknown && !word.starts_with("--")).then_some(trigger)
}

fn one(config: &mut Config, instruction: &Instruction, cmd_set: &mut bool) -> Result<(), ApiError> {
    let variables = Environment(pairs(config));
    let lexer = Lexer::new(char::from(92));
    let expand =
        |text: &str| lexer.expand(text, &variables).map(|done| done.text).map_err(|e| ApiError::bad(e.to_string()));
    match instruction {
        Instruction::Cmd(command) => {
            config.cmd = Some(words(config, command));
            *cmd_set = true;
        }
        Instruction::Entrypoint(command) => {
            config.entrypoint = Some(words(config, command));
            // As in a Dockerfile: what was there was for another entrypoint.
            if !*cmd_set {
                config.cmd = None;
            }
        }
        Instruction::Env(list) => {
            for pair in list {
                let value = expand(&pair.value)?;
                wharf_engine::set_variable(config.env.get_or_insert_default(), format!("{}={value}", pair.name));
            }
        }
        Instruction::Label(list) => {
            for pair in list {
                config.labels.get_or_insert_default().insert(expand(&pair.name)?, expand(&pair.value)?);
            }
        }
        Instruction::Expose(list) => {
            for text in list {
                for port in exposed_ports(&expand(text)?).map_err(|error| ApiError::bad(error.message))? {
                    config.exposed_ports.get_or_insert_default().insert(port, Empty {});
                }
            }
        }
        Instruction::Volume(list) => {
            for path in list {
                config.volumes.get_or_insert_default().insert(expand(path)?, Empty {});
            }
        }
        Instruction::User(user) => config.user = expand(user)?,
        Instruction::Workdir(path) => {
            let path = expand(path)?;
            config.working_dir = if path.starts_with('/') {
                path
            } else {
                format!("{}/{path}", config.working_dir.trim_end_matches('/'))
            };
        }
        Instruction::StopSignal(signal) => config.stop_signal = Some(expand(signal)?),
        Instruction::Onbuild(trigger) => config.on_build.get_or_insert_default().push(trigger.clone()),
        Instruction::Healthcheck(check) => {
            config.healthcheck = Some(Healthcheck {
                test: Some(check.test.clone()),
                interval: check.interval,
                timeout: check.timeout,
                start_period: check.start_period,
                start_interval: check.start_interval,
                retries: check.retries,
            });
        }
        other => return Err(ApiError::bad(format!("{} is not a valid change command", other.name()))),
    }
    Ok(())
}

fn words(config: &Config, command: &CommandLine) -> Vec<String> {
    if !command.shell {
        return command.args.clone();
    }
    let mut all = config.shell.clone().unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
    all.extend(command.args.iter().cloned());
    all
}

fn pairs(config: &Config) -> BTreeMap<String, String> {
    let env = config.env.iter().flatten();
    env.filter_map(|pair| pair.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

struct Environment(BTreeMap<String, String>);

impl Variables for Environment {
    fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_change_the_configuration() {
        let mut config = Config::default();
        let changes = ["ENV A=1", "ENV B=${A}2", "CMD [\"x\", \"y\"]", "EXPOSE 80", "USER web", "LABEL k=v"];
        apply(&mut config, &changes.map(str::to_owned)).unwrap();
        assert_eq!(config.env.take().unwrap(), ["A=1", "B=12"]);
        assert_eq!(config.cmd.take().unwrap(), ["x", "y"]);
        assert!(config.exposed_ports.as_ref().unwrap().contains_key("80/tcp"));
        apply(&mut config, &["EXPOSE 90-92/udp 7".to_owned(), "ENTRYPOINT [\"a\"]".to_owned()]).unwrap();
        let ports: Vec<_> = config.exposed_ports.take().unwrap().into_keys().collect();
        assert_eq!(ports, ["7/tcp", "80/tcp", "90/udp", "91/udp", "92/udp"]);
        assert_eq!((config.entrypoint.as_deref(), &config.cmd), (Some(&["a".to_owned()][..]), &None));
        config.cmd = Some(vec!["x".into(), "y".into()]);
        assert!(apply(&mut Config::default(), &["EXPOSE x".to_owned()]).is_err());
        let error = apply(&mut Config::default(), &["RUN true".to_owned()]).unwrap_err();
        assert_eq!(error.message, "RUN is not a valid change command");
        let error = apply(&mut Config::default(), &["SHELL [\"/bin/bash\"]".to_owned()]).unwrap_err();
        assert_eq!(error.message, "SHELL is not a valid change command");
        assert!(apply(&mut Config::default(), &["NONSENSE x".to_owned()]).is_err());
    }

    #[test]
    fn triggers_are_looked_at_as_far_as_docker_does() {
        let mut config = Config::default();
        let changes = ["ONBUILD RUN true", "onbuild  NONSENSE a  b", "ONBUILD HEALTHCHECK NONE"];
        apply(&mut config, &changes.map(str::to_owned)).unwrap();
        assert_eq!(config.on_build.unwrap(), ["RUN true", "NONSENSE a  b", "HEALTHCHECK NONE"]);
        for (change, said) in [
            ("ONBUILD", "ONBUILD requires at least one argument"),
            ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
            ("ONBUILD from x", "FROM isn't allowed as an ONBUILD trigger"),
            ("ONBUILD MAINTAINER me", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ] {
            let error = apply(&mut Config::default(), &[change.to_owned()]).unwrap_err();
            assert!(error.message.contains(said), "{change}: {}", error.message);
        }
    }
}
