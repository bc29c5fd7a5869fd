//! `docker images --tree`: each image with its platforms.

use serde_json::Value as Json;

use crate::app::App;
use crate::failure::Outcome;
use crate::filters::Filters;
use crate::json::{array, int, text, texts};
use crate::parse::Matches;
use crate::{terminal, units};

const WARNING: &str = "WARNING: This is an experimental feature. The output may change and shouldn't be depended on.";
const LEGEND: &str = " Info ->   U In Use ";
/// Between columns.
const GAP: usize = 3;
/// Names get so many characters before another column is left out.
const LEAST: usize = 12;

/// What Docker does not do with a tree.
const ALONE: &[(&str, &str)] =
    &[("quiet", "--quiet"), ("no-trunc", "--no-trunc"), ("digests", "--show-digest"), ("format", "--format")];

/// A column beside the names.
struct Column {
    title: &'static str,
    width: usize,
    right: bool,
    value: fn(&Line) -> String,
}

const COLUMNS: &[Column] = &[
    Column { title: "ID", width: 12, right: false, value: |line| units::short_id(&line.id).to_owned() },
    Column { title: "DISK USAGE", width: 10, right: true, value: |line| size(line.usage) },
    Column { title: "CONTENT SIZE", width: 12, right: true, value: |line| size(line.content) },
    Column { title: "EXTRA", width: 5, right: false, value: |line| if line.used { "U" } else { "" }.to_owned() },
];

/// An image, or one of its platforms.
struct Line {
    id: String,
    usage: i64,
    content: i64,
    used: bool,
}

struct Image {
    names: Vec<String>,
    line: Line,
    platforms: Vec<(String, Line)>,
    created: i64,
}

pub(super) async fn run(app: &App, matches: &Matches, filters: &Filters) -> Outcome<u8> {
    let given = |flag: &str| if flag == "format" { matches.some(flag).is_some() } else { matches.on(flag) };
    if let Some((_, name)) = ALONE.iter().find(|(flag, _)| given(flag)) {
        return Err(format!("{name} is not yet supported with --tree").into());
    }
    let request = app.client().await?.get("/images/json").query_if(matches.on("all"), "all").query("manifests", 1);
    let found: Vec<Json> = request.query_some("filters", filters.parameter()).send().await?.json().await?;
    let dangling = |image: &&Json| texts(&image["RepoTags"]).iter().all(|tag| *tag == "<none>:<none>");
    let mut images: Vec<Image> =
        found.iter().filter(|image| matches.on("all") || !dangling(image)).map(Image::of).collect();
    images.sort_by_key(|image| std::cmp::Reverse(image.created));
    let width = match terminal::size().1 {
        0 => 80,
        columns => usize::from(columns).max(20),
    };
    app.print(&drawn(&images, width))?;
    Ok(0)
}

impl Image {
    fn of(image: &Json) -> Self {
        let mut line = Line {
            id: text(&image["Id"]).to_owned(),
            usage: int(&image["Size"]),
            content: 0,
            used: int(&image["Containers"]) > 0,
        };
        let mut platforms = Vec::new();
        for manifest in array(&image["Manifests"]) {
            let content = int(&manifest["Size"]["Content"]);
            line.content += content;
            if text(&manifest["Kind"]) != "image" {
                continue;
            }
            let data = &manifest["ImageData"];
            let used = !array(&data["Containers"]).is_empty();
            line.used |= used;
            let own =
                Line { id: text(&manifest["ID"]).to_owned(), usage: int(&manifest["Size"]["Total"]), content, used };
            platforms.push((platform(&data["Platform"]), own));
        }
        let mut names: Vec<String> = texts(&image["RepoTags"])
            .iter()
            .filter(|tag| **tag != "<none>:<none>")
            .map(|tag| (*tag).to_owned())
            .collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self { names, line, platforms, created: int(&image["Created"]) }
    }
}

fn platform(json: &Json) -> String {
    let parts = ["os", "architecture", "variant"].map(|key| text(&json[key]));
    let given: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    if given.is_empty() { "unknown".to_owned() } else { given.join("/") }
}

fn size(bytes: i64) -> String {
    units::human_size_with(bytes as f64, 3)
}

/// All of it, in so many columns of a terminal.
fn drawn(images: &[Image], width: usize) -> String {
    let longest = |image: &Image| {
        let names = image.names.iter().map(|name| name.chars().count());
        let platforms = image.platforms.iter().map(|(platform, _)| platform.chars().count() + 3);
        names.chain(platforms).max().unwrap_or(0)
    };
    let widest = images.iter().map(longest).max().unwrap_or(0).max("Image".len());
    let (mut left, mut shown) = (width, 0);
    // From the right columns are left out that leave no room for names.
    for (at, column) in COLUMNS.iter().enumerate() {
        if left < column.width + GAP + LEAST {
            break;
        }
        left -= column.width + GAP;
        shown = at + 1;
    }
    let (names, columns) = (left.min(widest), &COLUMNS[..shown]);
    let spaced = images.iter().any(|image| !image.platforms.is_empty());
    let legend = " ".repeat(width.saturating_sub(LEGEND.chars().count()));
    let mut out = format!("{WARNING}\n{legend}{LEGEND}\n\n");
    out.push_str(&cell("IMAGE", names, false));
    for column in columns {
        out.push_str(&" ".repeat(GAP));
        out.push_str(&cell(column.title, column.width, column.right));
    }
    out.push('\n');
    let details = |out: &mut String, line: &Line| {
        for column in columns {
            out.push_str(&" ".repeat(GAP));
            out.push_str(&cell(&(column.value)(line), column.width, column.right));
        }
    };
    for image in images {
        if image.names.is_empty() {
            out.push_str(&cell("<untagged>", names, false));
        }
        for (at, name) in image.names.iter().enumerate() {
            if at + 1 < image.names.len() {
                out.push_str(&format!("{}\n", units::ellipsis(name, width)));
            } else {
                out.push_str(&cell(name, names, false));
            }
        }
        details(&mut out, &image.line);
        if spaced {
            out.push('\n');
        }
        for (at, (platform, line)) in image.platforms.iter().enumerate() {
            let branch = if at + 1 < image.platforms.len() { "├─ " } else { "└─ " };
            out.push_str(&cell(&format!("{branch}{platform}"), names, false));
            details(&mut out, line);
            out.push('\n');
        }
        out.push('\n');
    }
    out
}

fn cell(text: &str, width: usize, right: bool) -> String {
    let text = units::ellipsis(text, width);
    if right { format!("{text:>width$}") } else { format!("{text:<width$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(id: &str, used: bool) -> Line {
        Line { id: id.to_owned(), usage: 4_200_000, content: 1_000, used }
    }

    #[test]
    fn platforms_hang_below_their_image() {
        let platforms = vec![
            ("linux/amd64".to_owned(), line("sha256:aaaaaaaaaaaaaaaaaaaaaaaa", true)),
            ("linux/arm64/v8".to_owned(), line("sha256:bbbbbbbbbbbbbbbbbbbbbbbb", false)),
        ];
        let names = vec!["registry/app:latest".to_owned(), "app:1".to_owned()];
        let image = Image { names, line: line("sha256:cccccccccccccccccccccccc", true), platforms, created: 0 };
        let text = drawn(&[image], 80);
        let lines: Vec<&str> = text.lines().skip(3).map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "IMAGE                 ID             DISK USAGE   CONTENT SIZE   EXTRA",
                "registry/app:latest",
                "app:1                 cccccccccccc        4.2MB            1kB   U",
                "├─ linux/amd64        aaaaaaaaaaaa        4.2MB            1kB   U",
                "└─ linux/arm64/v8     bbbbbbbbbbbb        4.2MB            1kB",
                "",
            ]
        );
        assert_eq!(text.lines().nth(1).map(|line| line.chars().count()), Some(80));
        let narrow = drawn(&[], 30);
        assert_eq!(narrow.lines().nth(3), Some("IMAGE   ID          "));
    }
}
