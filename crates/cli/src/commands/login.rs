//! `docker login`, `docker logout`.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Read as _, Write as _};

use serde_json::Value as Json;

use crate::app::App;
use crate::auth::{self, Credentials, HUB};
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::text;
use crate::parse::Matches;
use crate::terminal::Silent;

pub(crate) static LOGIN: Command =
    Command::new("[OPTIONS] [SERVER]", "Authenticate to a registry", Arity::AtMost(1), |app, matches| {
        Box::pin(login(app, matches))
    })
    .long("Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.")
    .flags(&[
        Flag::text("password", "Password or Personal Access Token (PAT)").short('p'),
        Flag::switch("password-stdin", "Take the Password or Personal Access Token (PAT) from stdin"),
        Flag::text("username", "Username").short('u'),
    ]);

pub(crate) static LOGOUT: Command =
    Command::new("[SERVER]", "Log out from a registry", Arity::AtMost(1), |app, matches| {
        Box::pin(logout(app, matches))
    })
    .long("Log out from a registry.\nIf no server is specified, the default is defined by the daemon.");

fn server(matches: &Matches) -> String {
    match matches.argument(0) {
        "" | "docker.io" => HUB.to_owned(),
        given => auth::host(given).to_owned(),
    }
}

async fn login(app: &App, matches: &Matches) -> Outcome<u8> {
    let (user, mut password) = (matches.text("username").to_owned(), matches.text("password").to_owned());
    if !password.is_empty() && matches.on("password-stdin") {
        return Err("conflicting options: cannot specify both --password and --password-stdin".into());
    }
    if !password.is_empty() {
        app.complain("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    if matches.on("password-stdin") {
        if user.is_empty() {
            return Err("the --password-stdin option requires --username to be set".into());
        }
        std::io::stdin().lock().read_to_string(&mut password)?;
        let trimmed = password.strip_suffix('\n').unwrap_or(&password);
        password = trimmed.strip_suffix('\r').unwrap_or(trimmed).to_owned();
    }
    let server = server(matches);
    let known = auth::find_if_there(app.config(), &server);
    if user.is_empty()
        && password.is_empty()
        && !known.username.is_empty()
        && !known.password.is_empty()
        && let Some(status) = with_known(app, &known).await?
    {
        app.say(&status)?;
        return Ok(0);
    }
    if (user.is_empty() || password.is_empty()) && !std::io::stdin().is_terminal() {
        return Err("Error: Cannot perform an interactive login from a non TTY device".into());
    }
    let credentials = ask(app, user, password, &known.username, server)?;
    let status = authenticate(app, credentials).await?;
    if !status.is_empty() {
        app.say(&status)?;
    }
    Ok(0)
}

/// Tries what is stored; nothing when it is not accepted any more.
async fn with_known(app: &App, known: &Credentials) -> Outcome<Option<String>> {
    app.complain(&format!(
        "Authenticating with existing credentials... [Username: {}]\n\nInfo → To login with a different account, run \
         'docker logout' followed by 'docker login'\n",
        known.username
    ));
    match authenticate(app, known.clone()).await {
        Ok(status) => Ok(Some(status)),
        Err(failure) if failure.text.to_lowercase().contains("unauthorized") => {
            app.complain("Stored credentials invalid or expired");
            Ok(None)
        }
        Err(failure) => {
            app.complain(&format!("Login did not succeed, error: {}", failure.text));
            Ok(None)
        }
    }
}

/// Asks for what is missing.
fn ask(app: &App, user: String, password: String, known: &str, server: String) -> Outcome<Credentials> {
    let mut username = user;
    if username.is_empty() {
        if server == HUB {
            app.say(
                "Log in with your Docker ID or email address to push and pull images from Docker Hub. If you don't have \
                 a Docker ID, head over to https://hub.docker.com/ to create one.\nYou can log in with your password or \
                 a Personal Access Token (PAT). Using a limited-scope PAT grants better security and is required for \
                 organizations using SSO. Learn more at https://docs.docker.com/go/access-tokens/\n",
            )?;
        }
        let question = if known.is_empty() { "Username: ".to_owned() } else { format!("Username ({known}): ") };
        username = read_line(app, &question)?;
        if username.is_empty() {
            known.clone_into(&mut username);
        }
    }
    if username.is_empty() {
        return Err("Error: Non-null Username Required".into());
    }
    let mut password = password;
    if password.is_empty() {
        let silent = Silent::enter()?;
        password = read_line(app, "Password: ")?;
        drop(silent);
        app.say("")?;
        if password.is_empty() {
            return Err("Error: Password Required".into());
        }
    }
    Ok(Credentials { username: username.trim().to_owned(), password, server, ..Credentials::default() })
}

fn read_line(app: &App, question: &str) -> Outcome<String> {
    app.print(question)?;
    std::io::stdout().flush()?;
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks the engine whether the registry accepts them, and keeps them then.
async fn authenticate(app: &App, mut credentials: Credentials) -> Outcome<String> {
    let request = app.client().await?.post("/auth").json(&credentials.json())?;
    let bytes = request.send().await?.bytes().await?;
    let answer: Json = if bytes.is_empty() { Json::Null } else { serde_json::from_slice(&bytes)? };
    let token = text(&answer["IdentityToken"]);
    if !token.is_empty() {
        credentials.password.clear();
        token.clone_into(&mut credentials.identity_token);
    }
    let mut config = app.config().clone();
    if auth::store(&mut config, &credentials)? {
        app.complain(&format!(
            "\nWARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper to remove this \
             warning. See\nhttps://docs.docker.com/go/credential-store/\n",
            config.dir.join("config.json").display()
        ));
    }
    Ok(text(&answer["Status"]).to_owned())
}

async fn logout(app: &App, matches: &Matches) -> Outcome<u8> {
    let server = server(matches);
    let mut config = app.config().clone();
    let known = auth::servers(&config);
    let mut names: BTreeSet<String> =
        known.into_iter().filter(|name| auth::host(name) == auth::host(&server)).collect();
    if auth::helper(&config, &server).is_some() {
        // What a helper has it need not list: all names are tried that clients have had for a registry.
        let host = auth::host(&server);
        names.extend([server.clone(), host.to_owned(), format!("http://{host}"), format!("https://{host}")]);
    }
    app.say(&format!("Removing login credentials for {server}"))?;
    let erased = names.iter().map(|name| auth::erase(&mut config, name).map_err(|failure| (name, failure.text)));
    let failures: Vec<_> = erased.filter_map(Result::err).collect();
    // One that was there and has gone is enough.
    if failures.len() == names.len() {
        for (name, reason) in failures {
            app.complain(&format!("WARNING: could not erase credentials:\n{name}: {reason}"));
        }
    }
    Ok(0)
}
