//! `docker push`.

use serde_json::Value;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::commands::inspect::platform_json;
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::json::text;
use crate::parse::Matches;
use crate::progress::{self, Target};
use crate::{auth, platform, references};

pub(crate) static COMMAND: Command = Command::new(
    "[OPTIONS] NAME[:TAG]",
    "Upload an image to a registry",
    Arity::Exactly(1),
    |app, matches| Box::pin(run(app, matches)),
)
.flags(&[
    Flag::switch("all-tags", "Push all tags of an image to the repository").short('a'),
    // Docker has no such flag here; one that is not given changes nothing.
    Flag::one("compression", "string", check_compression, "Form of the layers that are pushed (\"gzip\", \"zstd\")"),
    Flag::switch("disable-content-trust", "Skip image signing").default("true"),
    Flag::text(
        "platform",
        "Push a platform-specific manifest as a single-platform image to the registry.\nImage index won't be pushed, \
             meaning that other manifests, including attestations won't be preserved.\n'os[/arch[/variant]]': Explicit \
             platform (eg. linux/amd64)",
    ),
    Flag::switch("quiet", "Suppress verbose output").short('q'),
]);

const PLATFORM_NOTE: &str = "
 Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.
         Other components, like attestations, will not be included.
         To push the complete multi-platform image, remove the --platform flag.
         ";

/// Docker's words.
const INSTEAD_NOTE: &str = "
 Info -> Not all multiplatform-content is present and only the available single-platform image was pushed
         ";

fn check_compression(text: &str) -> Result<(), String> {
    match text {
        "gzip" | "zstd" => Ok(()),
        _ => Err("must be gzip or zstd".into()),
    }
}

async fn run(app: &App, matches: &Matches) -> Outcome<u8> {
    let (all, quiet) = (matches.on("all-tags"), matches.on("quiet"));
    let platform = match matches.some("platform") {
        Some(text) => Some(platform_json(&platform::parse(text)?)),
        None => None,
    };
    if platform.is_some() {
        app.say(PLATFORM_NOTE)?;
    }
    let mut reference = references::parse(matches.argument(0))?;
    let name_only = reference.tag().is_none() && reference.digest().is_none();
    if all && !name_only {
        return Err("tag can't be used with --all-tags/-a".into());
    }
    if !all && name_only {
        reference = reference.tag_or_latest();
        if !quiet {
            app.say(&format!("Using default tag: {}", reference.tag().unwrap_or_default()))?;
        }
    }
    if reference.digest().is_some() {
        return Err("cannot push a digest reference".into());
    }
    let credentials = auth::header_for(app.config(), &reference);
    let response = app
        .client()
        .await?
        .post(&format!("/images/{}/push", reference.name()))
        .query_some("tag", if all { None } else { reference.tag() })
        .query_some("platform", platform)
        .query_some("compression", matches.some("compression"))
        .header("x-registry-auth", &credentials)
        .send()
        .await?;
    let mut notes = Vec::new();
    let note = |aux: &Value| {
        if aux["ManifestPushedInsteadOfIndex"] == true {
            let digest = |which: &str| text(&aux[which]["digest"]).to_owned();
            notes.push(format!("{} -> {}", digest("OriginalIndex"), digest("SelectedManifest")));
        }
    };
    progress::show(response, if quiet { Target::Nowhere } else { Target::Stdout }, note).await?;
    if !quiet {
        for note in notes {
            app.say(&format!("{INSTEAD_NOTE}{note}"))?;
        }
    }
    if quiet {
        app.say(&reference.to_string())?;
    }
    Ok(0)
}
