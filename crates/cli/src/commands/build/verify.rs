//! `build --verify IMAGE`: what an image has that the same build does not make again.

use serde_json::Value;

use super::result::Made;
use crate::app::App;
use crate::failure::Outcome;
use crate::json::{int, text};
use crate::parse::Matches;

pub(super) const FLAG: &str = "verify";
/// What gives the build a use of its own, which a comparison has none of.
const REFUSED: &[&str] =
    &["tag", "output", "push", "iidfile", "metadata-file", "cache-to", "annotation", "attest", "squash"];

/// The image that is to be verified, if any is.
pub(super) fn asked(matches: &Matches) -> Outcome<Option<&str>> {
    let Some(image) = matches.some(FLAG) else { return Ok(None) };
    if let Some(flag) = REFUSED.iter().find(|flag| matches.changed(flag)) {
        return Err(
            format!("conflicting options: --{FLAG} compares and keeps nothing, so --{flag} has no meaning").into()
        );
    }
    if matches.all("platform").iter().flat_map(|text| text.split(',')).count() > 1 {
        return Err(format!("--{FLAG} compares one image: give one --platform at a time").into());
    }
    Ok(Some(image))
}

/// The time that all of an image has, if a build gave it one (`SOURCE_DATE_EPOCH`): then the other has to have it, too.
pub(super) async fn epoch(app: &App, image: &str) -> Outcome<Option<String>> {
    let client = app.client().await?;
    let found: Value = client.get(&format!("/images/{image}/json")).send().await?.json().await?;
    let about: Value = client.get(&format!("/images/{image}/history")).send().await?.json().await?;
    let comment = |entry: &&Value| text(&entry["Comment"]).starts_with("buildkit");
    let times: Vec<i64> =
        about.as_array().into_iter().flatten().filter(comment).map(|entry| int(&entry["Created"])).collect();
    // Of an image that was made here without one, the engine says when; steps may have one time by chance.
    let given = |time: &&i64| {
        let created = text(&found["Created"]).parse::<jiff::Timestamp>();
        created.is_ok_and(|created| created.as_second() == **time)
    };
    let same = times.len() > 1 && times.windows(2).all(|pair| pair[0] == pair[1]);
    Ok(times.first().filter(|_| same).filter(given).map(ToString::to_string))
}

/// Compares, says what differs, and forgets what was built. Whether they are the same, but for times.
pub(super) async fn compare(app: &App, image: &str, made: &Made) -> Outcome<bool> {
    let client = app.client().await?;
    let compared = client.get(&format!("/images/{image}/compare")).query("with", &made.id).send().await;
    let about: Value = match compared {
        Ok(response) => response.json().await?,
        Err(error) => {
            forget(app, made).await?;
            return Err(error.into());
        }
    };
    forget(app, made).await?;
    let (shown, same) = render(image, &about);
    app.print(&shown)?;
    Ok(same)
}

async fn forget(app: &App, made: &Made) -> Outcome {
    if made.new {
        app.client().await?.delete(&format!("/images/{}", made.id)).query("noprune", 1).send().await?;
    }
    Ok(())
}

/// What is said, and whether nothing but times differs.
fn render(image: &str, about: &Value) -> (String, bool) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (config, layers) = (list(&about["Config"]), list(&about["Layers"]));
    if config.is_empty() && layers.is_empty() {
        return (format!("{image} is what this build makes, byte for byte\n"), true);
    }
    let (mut all, mut same) = (String::new(), true);
    let is_time = |field: &str| field.split(':').next().is_some_and(|name| name.ends_with("created"));
    let fields: Vec<&str> = config.iter().map(text).collect();
    for field in fields.iter().filter(|field| !is_time(field)) {
        same = false;
        all.push_str(&format!("configuration: {field}\n"));
    }
    let mut times = fields.iter().filter(|field| is_time(field)).count();
    for layer in &layers {
        let (files, more) = (list(&layer["Files"]), int(&layer["More"]));
        times += usize::try_from(int(&layer["Times"])).unwrap_or(0);
        if files.is_empty() {
            continue;
        }
        same = false;
        all.push_str(&format!("layer {}, made by: {}\n", int(&layer["Number"]), text(&layer["Step"])));
        for file in &files {
            all.push_str(&format!("  /{}: {}\n", text(&file["Path"]).trim_start_matches('/'), text(&file["What"])));
        }
        if more > 0 {
            all.push_str(&format!("  and {more} more files\n"));
        }
    }
    if times > 0 {
        all.push_str(&format!(
            "{times} times differ: those of the context's files do, or one of the two has that of its making \
             (--build-arg SOURCE_DATE_EPOCH=SECONDS fixes all)\n"
        ));
    }
    all.push_str(&match same {
        true => format!("{image} is what this build makes, but for times\n"),
        false => format!("{image} is not what this build makes\n"),
    });
    (all, same)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_told() {
        let (shown, same) = render("x", &json!({ "Config": [], "Layers": [] }));
        assert!(same && shown.contains("byte for byte"), "{shown}");
        let times = json!({ "Config": ["created: 1, was 2"], "Layers": [{ "Number": 2, "Files": [], "Times": 3 }] });
        let (shown, same) = render("x", &times);
        assert!(same && shown.contains("4 times differ") && shown.contains("but for times"), "{shown}");
        let file = json!({ "Path": "a/b", "What": "content (2 bytes in both)" });
        let more = json!({ "Config": ["config.Env[0]: 1, was 2"],
            "Layers": [{ "Number": 2, "Step": "RUN x", "Files": [file], "More": 7, "Times": 0 }] });
        let (shown, same) = render("x", &more);
        assert!(!same, "{shown}");
        for words in ["configuration: config.Env[0]", "layer 2, made by: RUN x", "/a/b: content", "7 more files"] {
            assert!(shown.contains(words), "{words}: {shown}");
        }
    }
}
