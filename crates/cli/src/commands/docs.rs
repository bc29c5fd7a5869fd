//! `wharf docs man`: writes the manual pages.

use std::path::Path;

use crate::app::App;
use crate::command::{Arity, Command};
use crate::failure::Outcome;
use crate::flag::Flag;
use crate::man;
use crate::parse::Matches;

pub(crate) static MAN: Command =
    Command::new("[OPTIONS]", "Write the manual pages into a directory", Arity::None, |app, matches| {
        Box::pin(write(app, matches))
    })
    .flags(&[Flag::text("out", "Directory to write to, such as /usr/local/share/man/man1")]);

async fn write(app: &App, matches: &Matches) -> Outcome<u8> {
    let dir = Path::new(matches.some("out").ok_or("say where to: --out DIR")?);
    std::fs::create_dir_all(dir).map_err(|error| wharf_report::path("mkdir", dir, &error))?;
    let pages = man::pages(&app.program);
    for page in &pages {
        let path = dir.join(&page.file);
        std::fs::write(&path, &page.text).map_err(|error| wharf_report::path("write", &path, &error))?;
    }
    app.say(&format!("{} pages in {}", pages.len(), dir.display()))?;
    Ok(0)
}
