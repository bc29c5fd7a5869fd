//! Which files of the context a Dockerfile may ask for: whoever has them need not look at any others.

use crate::glob::Glob;
use crate::instruction::Instruction;
use crate::mount::MountKind;
use crate::parse::Dockerfile;

/// What all stages together may ask for. It may be more than a build does ask for, and is less in one case: a base image may
/// have triggers, which nobody knows before it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Needs {
    All,
    /// What these lead to, and all that is below.
    Some(Vec<Vec<Part>>),
}

/// One component of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Name(String),
    Glob(Glob),
    /// Anything below: the last one.
    Deep,
}

/// How far into what is needed a directory lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach {
    /// All that is below is needed.
    pub whole: bool,
    /// Whatever is below may be a source itself, so a link leads on.
    pub deep: bool,
    /// Paths that lead through it: which, and how many of their components.
    within: Vec<(usize, usize)>,
}

impl Part {
    fn is(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Glob(glob) => glob.matches(name),
            Self::Deep => true,
        }
    }
}

impl Needs {
    /// What a Dockerfile's instructions name. What is only known when variables are is taken for everything.
    pub fn of(dockerfile: &Dockerfile) -> Self {
        let mut all = Self::Some(Vec::new());
        for statement in dockerfile.stages.iter().flat_map(|stage| &stage.statements) {
            match &statement.instruction {
                Instruction::Copy(copy) | Instruction::Add(copy) if copy.from.is_none() => {
                    copy.sources.iter().filter(|source| !is_remote(source)).for_each(|source| all.add(source));
                }
                Instruction::Run(run) => match run.mounts() {
                    Ok(mounts) => {
                        for mount in mounts.iter().filter(|mount| mount.kind == MountKind::Bind && mount.from.is_none())
                        {
                            all.add(mount.source.as_deref().unwrap_or("."));
                        }
                    }
                    // It has a variable in it, or is an error, which the build tells of.
                    Err(_) => all = Self::All,
                },
                _ => {}
            }
        }
        all
    }

    /// Needs a source, as an instruction writes it, too.
    pub fn add(&mut self, source: &str) {
        let Self::Some(paths) = self else { return };
        match path(source) {
            Some(path) if !path.is_empty() => paths.push(path),
            _ => *self = Self::All,
        }
    }

    /// As patterns of paths, for who goes by those and knows no `**`: all that is below may be asked for then. None where
    /// everything is needed.
    pub fn patterns(&self) -> Option<Vec<String>> {
        let Self::Some(paths) = self else { return None };
        let text = |part: &Part| match part {
            Part::Name(name) => Some(name.clone()),
            Part::Glob(glob) => Some(glob.as_str().to_owned()),
            Part::Deep => None,
        };
        let one = |path: &Vec<Part>| {
            let parts: Vec<String> = path.iter().map_while(text).collect();
            (!parts.is_empty()).then(|| parts.join("/"))
        };
        paths.iter().map(one).collect()
    }

    /// The reach of the context's own directory.
    pub fn start(&self) -> Reach {
        match self {
            Self::All => Reach { whole: true, ..Reach::default() },
            Self::Some(paths) => Reach { within: (0..paths.len()).map(|path| (path, 0)).collect(), ..Reach::default() },
        }
    }

    /// The reach of something in a directory of this reach; none if it is not needed.
    pub fn enter(&self, above: &Reach, name: &str) -> Option<Reach> {
        let Self::Some(paths) = self else { return Some(above.clone()) };
        let mut reach = Reach { whole: above.whole, deep: above.deep, within: Vec::new() };
        for (path, depth) in &above.within {
            if paths[*path].get(*depth).is_some_and(|part| part.is(name)) {
                let next = paths[*path].get(depth + 1);
                reach.deep |= next == Some(&Part::Deep);
                reach.whole |= next.is_none() || reach.deep;
                reach.within.push((*path, depth + 1));
            }
        }
        (reach.whole || reach.is_named()).then_some(reach)
    }
}

impl Reach {
    /// A source leads to it or through it, also where another source has all that is around it: if it is a link, that leads
    /// on.
    pub fn is_named(&self) -> bool {
        self.deep || !self.within.is_empty()
    }
}

/// A source that is no path.
fn is_remote(source: &str) -> bool {
    source.contains("://") || source.starts_with("git@")
}

/// The components of a source; nothing when it is not known which these are.
fn path(source: &str) -> Option<Vec<Part>> {
    // It is another text once variables, quotes and escapes in it have been read.
    if source.contains(['$', '"', '\'', '\\', '`']) {
        return None;
    }
    let mut parts = Vec::new();
    for text in source.split('/') {
        match text {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            text if text.contains("**") => {
                parts.push(Part::Deep);
                break;
            }
            text if text.contains(['*', '?', '[']) => parts.push(Part::Glob(Glob::new(text).ok()?)),
            text => parts.push(Part::Name(text.to_owned())),
        }
    }
    Some(parts).filter(|parts| parts.first() != Some(&Part::Deep))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(text: &str) -> Needs {
        Needs::of(&Dockerfile::parse("Dockerfile", text).unwrap())
    }

    fn reaches(needs: &Needs, path: &str) -> Option<bool> {
        let mut reach = needs.start();
        for name in path.split('/') {
            reach = needs.enter(&reach, name)?;
        }
        Some(reach.whole)
    }

    #[test]
    fn what_is_named_is_needed_and_nothing_else() {
        let some = needs(
            "FROM a AS x\nCOPY src/lib ./conf/*.ini /d/\nADD https://h/f git@h:r /e/\nCOPY --from=x /y /y\n\
             RUN --mount=type=bind,source=bound,target=/m --mount=type=cache,target=/c x\nCOPY <<F /f\ntext\nF\n",
        );
        for (path, expected) in [
            ("src", Some(false)),
            ("src/lib", Some(true)),
            ("src/lib/deep/file", Some(true)),
            ("src/main", None),
            ("conf/a.ini", Some(true)),
            ("conf/a.txt", None),
            ("bound/x", Some(true)),
            ("y", None),
            ("Dockerfile", None),
        ] {
            assert_eq!(reaches(&some, path), expected, "{path}");
        }
        assert_eq!(needs("FROM a\nRUN x\n"), Needs::Some(Vec::new()));
        let deep = needs("FROM a\nCOPY src/**/x /\n");
        let src = deep.enter(&deep.start(), "src").unwrap();
        assert!(src.whole && src.deep && deep.enter(&src, "a").unwrap().deep);
        assert_eq!(reaches(&needs("FROM a\nCOPY a/../b/**/*.c /\n"), "b/c/d.c"), Some(true));
        let both = needs("FROM a\nCOPY src /\nCOPY src/link /\n");
        let src = both.enter(&both.start(), "src").unwrap();
        let (link, other) = (both.enter(&src, "link").unwrap(), both.enter(&src, "other").unwrap());
        assert!(link.whole && link.is_named() && other.whole && !other.is_named());
    }

    #[test]
    fn what_is_not_known_is_all() {
        for source in [
            "COPY . /",
            "COPY $X /",
            "COPY / /",
            "COPY **/x /",
            "ADD ../x /",
            "COPY \"x\" /",
            "COPY 'x' /",
            "COPY x\\ y /",
            "RUN --mount=type=bind,target=/m x",
        ] {
            assert_eq!(needs(&format!("FROM a\n{source}\n")), Needs::All, "{source}");
        }
        assert_eq!(needs("FROM a\nRUN --mount=type=bind,source=$X,target=/m x\n"), Needs::All);
        assert_eq!(reaches(&Needs::All, "a/b"), Some(true));
    }
}
