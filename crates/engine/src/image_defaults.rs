//! What a container has of its image where the request does not say.

use wharf_image::ImageRecord;

use crate::error::{EngineError, Result};
use crate::spec::{Config, Healthcheck};

/// Joins the image's configuration with the request's, which wins.
pub(crate) fn merge(config: &mut Config, image: &ImageRecord) -> Result<()> {
    let own: Config = serde_json::to_value(&image.config.config)
        .and_then(serde_json::from_value)
        .map_err(|e| EngineError::from_source("the image's configuration cannot be read", &e))?;
    if config.user.is_empty() {
        config.user = own.user;
    }
    if config.working_dir.is_empty() {
        config.working_dir = own.working_dir;
    }
    // An entrypoint of the user's own means that the image's command has no meaning any more.
    let entrypoint_given = config.entrypoint.as_ref().is_some_and(|e| !e.is_empty());
    if !entrypoint_given {
        let reset = config.entrypoint.as_deref() == Some(&[String::new()][..]);
        if config.cmd.as_ref().is_none_or(Vec::is_empty) && !reset {
            config.cmd = own.cmd;
        }
        config.entrypoint = if reset { None } else { own.entrypoint };
    } else if config.entrypoint.as_deref() == Some(&[String::new()][..]) {
        config.entrypoint = None;
    }
    let mut env = config.env.take().unwrap_or_default();
    let key = |pair: &str| pair.split('=').next().unwrap_or("").to_owned();
    // The user's first; the image adds what is missing.
    let more = own.env.unwrap_or_default().into_iter().filter(|pair| !env.iter().any(|mine| key(mine) == key(pair)));
    let more: Vec<String> = more.collect();
    env.extend(more);
    config.env = Some(env).filter(|env| !env.is_empty());
    let mut labels = own.labels.unwrap_or_default();
    labels.extend(config.labels.take().unwrap_or_default());
    config.labels = Some(labels);
    if let Some(ports) = own.exposed_ports {
        config.exposed_ports.get_or_insert_default().extend(ports);
    }
    // None said is none, whatever the form.
    config.volumes.take_if(|volumes| volumes.is_empty());
    if let Some(volumes) = own.volumes {
        config.volumes.get_or_insert_default().extend(volumes);
    }
    if config.stop_signal.is_none() {
        config.stop_signal = own.stop_signal;
    }
    if config.shell.is_none() {
        config.shell = own.shell;
    }
    config.healthcheck = match (config.healthcheck.take(), own.healthcheck) {
        (None, own) => own,
        (Some(mine), None) => Some(mine),
        (Some(mine), Some(own)) => Some(inherit(mine, own)),
    };
    Ok(())
}

/// A probe inherits what the request leaves at zero.
fn inherit(mut mine: Healthcheck, own: Healthcheck) -> Healthcheck {
    if mine.test.as_ref().is_none_or(Vec::is_empty) {
        mine.test = own.test;
    }
    for (field, value) in [
        (&mut mine.interval, own.interval),
        (&mut mine.timeout, own.timeout),
        (&mut mine.start_period, own.start_period),
        (&mut mine.start_interval, own.start_interval),
        (&mut mine.retries, own.retries),
    ] {
        if *field == 0 {
            *field = value;
        }
    }
    mine
}

/// The program and its arguments.
pub(crate) fn command(config: &Config) -> Result<(String, Vec<String>)> {
    let words = config.entrypoint.iter().flatten().chain(config.cmd.iter().flatten());
    let mut words = words.cloned();
    let path = words.next().ok_or_else(|| EngineError::invalid("no command specified"))?;
    Ok((path, words.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_inherits_what_it_does_not_say() {
        let own =
            Healthcheck { test: Some(vec!["CMD".into(), "x".into()]), interval: 5, retries: 2, ..Default::default() };
        let mine = Healthcheck { interval: 9, ..Default::default() };
        let joined = inherit(mine, own.clone());
        assert_eq!((joined.interval, joined.retries, joined.test), (9, 2, own.test));
    }

    #[test]
    fn a_command_needs_a_program() {
        let config = Config { entrypoint: Some(vec!["a".into()]), cmd: Some(vec!["b".into()]), ..Config::default() };
        assert_eq!(command(&config).unwrap(), ("a".into(), vec!["b".into()]));
        assert_eq!(command(&Config::default()).unwrap_err().message, "no command specified");
    }
}
