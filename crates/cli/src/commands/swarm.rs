//! `docker swarm`, `node`, `service`, `stack`, `secret` and `config`: what the engine says about swarms. Ours is in none, and
//! says so as any engine does that is not a manager; commands for one that is are Docker's own.

use crate::app::App;
use crate::failure::Outcome;
use crate::parse::Matches;

/// The groups, with what `--help` says of each.
pub(crate) const GROUPS: &[(&str, &str)] = &[
    ("config", "Manage Swarm configs"),
    ("node", "Manage Swarm nodes"),
    ("secret", "Manage Swarm secrets"),
    ("service", "Manage Swarm services"),
    ("stack", "Manage Swarm stacks"),
    ("swarm", "Manage Swarm"),
];

/// The help of a group.
pub(crate) fn help(program: &str, group: &str) -> Option<String> {
    let (_, about) = GROUPS.iter().find(|(name, _)| *name == group)?;
    Some(format!(
        "Usage:  {program} {group} COMMAND\n\n{about}\n\nAn engine that is in no swarm refuses all of these; for one that is, use \
         Docker's own client.\n"
    ))
}

/// `arguments` are the group and what follows it.
pub(crate) async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let client = app.client().await?;
    let words: Vec<&str> = matches.arguments.iter().map(String::as_str).collect();
    let place = match words.as_slice() {
        ["swarm", "init" | "join", ..] => {
            return Err("swarm mode is not supported: use Docker's own client and engine".into());
        }
        ["swarm", "leave", options @ ..] => {
            let force = options.iter().any(|word| matches!(*word, "-f" | "--force" | "--force=true"));
            client.post("/swarm/leave").query_if(force, "force").send().await?;
            app.say("Node left the swarm.")?;
            return Ok(0);
        }
        ["swarm", ..] => "/swarm",
        ["node", ..] => "/nodes",
        ["secret", ..] => "/secrets",
        ["config", ..] => "/configs",
        _ => "/services",
    };
    client.get(place).send().await?;
    let (program, group) = (&app.program, words.first().copied().unwrap_or_default());
    Err(format!("the engine is in a swarm, for which {program} has no commands: use '{group}' of Docker's own client")
        .into())
}
