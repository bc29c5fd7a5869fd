//! Why steps were not in the cache: what went into them, beside what went into them in an earlier build.
//!
//! Of values only digests are kept, for an argument may be somebody's password; of files their names, too. Lists of files
//! are written when a step is made, so a build that finds everything pays nothing for it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wharf_dockerfile::Source;
use wharf_reference::Digest;
use wharf_store::{Store, Table, WriteTx};

use crate::attest::Material;
use crate::cache::Defined;
use crate::error::Result;
use crate::history::BuildRecord;
use crate::select::Selected;
use crate::session::{Outcome, Session, lock};
use crate::tree::Kind;

/// Steps of remembered builds, by their references.
const INPUTS: Table = Table::new("build-inputs");
/// Lists of files, by their checksums.
const FILES: Table = Table::new("build-files");
/// Of more files there is no list.
const MOST_FILES: usize = 100_000;
/// So many are named.
const MOST_NAMED: usize = 20;
/// The input that all steps before have made.
const BEFORE: &str = "what the steps before it have made";

/// What went into one step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepInputs {
    line: u32,
    step: String,
    made: bool,
    /// It was not to be looked for.
    no_cache: bool,
    /// Digests, by what they are of.
    inputs: BTreeMap<String, String>,
    /// Checksums of files.
    files: Vec<String>,
}

/// What a build notes of itself.
#[derive(Debug, Default)]
pub(crate) struct Noted {
    /// Steps in the cache that it has made or found.
    pub(crate) keys: Vec<Digest>,
    /// Those of steps that take from other stages, by their definitions.
    pub(crate) definitions: BTreeMap<String, Defined>,
    steps: Vec<StepInputs>,
    /// New lists of files, by checksum.
    lists: BTreeMap<String, String>,
    /// Names of the cache mounts that its commands ask for.
    pub(crate) mounts: BTreeSet<String>,
    /// What came from elsewhere.
    pub(crate) materials: BTreeSet<Material>,
}

/// Why the steps of a build were made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    pub build: String,
    /// The earlier build that it is compared with.
    pub against: Option<String>,
    pub misses: Vec<Miss>,
}

/// A step that was not in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Miss {
    /// Of the Dockerfile.
    pub line: u32,
    pub step: String,
    pub reasons: Vec<String>,
}

/// What a step is made of, as it is collected.
#[derive(Debug, Default)]
pub(crate) struct Inputs<'a> {
    values: BTreeMap<String, String>,
    files: Vec<(String, &'a Selected)>,
}

impl<'a> Inputs<'a> {
    /// Begins with what the steps before have made.
    pub(crate) fn after(files: &str) -> Self {
        Self::default().with(BEFORE, files)
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.values.insert(name.to_owned(), brief(value));
        self
    }

    /// Variables, each as `NAME=VALUE`.
    pub(crate) fn environment(self, pairs: &[String]) -> Self {
        pairs.iter().fold(self, |inputs, pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            inputs.with(&format!("the variable {name}"), value)
        })
    }

    /// Files with their checksum.
    pub(crate) fn files(&mut self, checksum: String, selected: &'a Selected) {
        self.files.push((checksum, selected));
    }
}

fn brief(value: &str) -> String {
    Digest::sha256(value.as_bytes()).hex()[..16].to_owned()
}

impl Session<'_> {
    /// Notes what went into a step.
    pub(crate) fn note_inputs(&self, source: &Source, inputs: Inputs<'_>, outcome: &Outcome) -> Result<()> {
        let mut lists = BTreeMap::new();
        for (checksum, selected) in inputs.files.iter().filter(|_| !outcome.cached) {
            if selected.items.len() <= MOST_FILES {
                lists.insert(checksum.clone(), list(selected)?);
            }
        }
        let mut noted = lock(&self.noted);
        noted.lists.extend(lists);
        noted.steps.push(StepInputs {
            line: source.span.line(),
            step: source.text.chars().take(300).collect(),
            made: !outcome.cached,
            no_cache: self.no_cache,
            inputs: inputs.values,
            files: inputs.files.into_iter().map(|(checksum, _)| checksum).collect(),
        });
        Ok(())
    }
}

/// One line for each: what it is, its content, and its name as Rust writes text.
fn list(selected: &Selected) -> Result<String> {
    let mut all = String::new();
    for item in &selected.items {
        let attributes = &item.found.attributes;
        let content = match attributes.kind {
            Kind::File => Digest::from_sha256(selected.tree.digest(&item.from, &item.found)?).hex()[..16].to_owned(),
            Kind::Symlink => brief(&item.found.link.to_string_lossy()),
            _ => item.found.device.to_string(),
        };
        let (uid, gid) = attributes.owner;
        let what = format!("{:?}:{:o}:{uid}:{gid}:{}", attributes.kind, attributes.mode, attributes.xattrs.len());
        all.push_str(&format!("{what}\t{content}\t{:?}\n", item.from));
    }
    Ok(all)
}

impl Noted {
    /// Keeps it with the build.
    pub(crate) fn keep(&self, tx: &WriteTx, reference: &str) -> Result<()> {
        let mut steps = self.steps.clone();
        // Stages run side by side.
        steps.sort_by_key(|step| step.line);
        tx.put(INPUTS, reference, &steps)?;
        for (checksum, list) in &self.lists {
            tx.put(FILES, checksum, list)?;
        }
        Ok(())
    }
}

/// Forgets what is kept with a build, and the lists of files that no other needs.
pub(crate) fn forget(tx: &WriteTx, reference: &str) -> Result<()> {
    let Some(steps) = tx.get::<Vec<StepInputs>>(INPUTS, reference)? else { return Ok(()) };
    tx.delete(INPUTS, reference)?;
    let rest: Vec<(String, Vec<StepInputs>)> = tx.list(INPUTS)?;
    let needed: BTreeSet<&String> = rest.iter().flat_map(|(_, steps)| steps).flat_map(|step| &step.files).collect();
    for checksum in steps.iter().flat_map(|step| &step.files).filter(|checksum| !needed.contains(checksum)) {
        tx.delete(FILES, checksum)?;
    }
    Ok(())
}

impl crate::Builder {
    /// Why the steps of a build were made. Without `against` it is compared with the earlier build that has most steps in
    /// common with it, the last of these.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn why_miss(&self, build: &BuildRecord, against: Option<&BuildRecord>) -> Result<Why> {
        let store = &self.shared.options.store;
        let steps = inputs_of(store, &build.reference)?;
        let mut best: Option<(usize, String, Vec<StepInputs>)> = None;
        let earlier = match against {
            Some(against) => vec![against.clone()],
            None => self.history()?.into_iter().filter(|other| other.reference < build.reference).collect(),
        };
        for other in earlier {
            let theirs = inputs_of(store, &other.reference)?;
            let common = steps.iter().filter(|step| theirs.iter().any(|own| own.step == step.step)).count();
            let enough = against.is_some() || common > 0;
            if enough && best.as_ref().is_none_or(|(most, ..)| common > *most) {
                best = Some((common, other.reference, theirs));
            }
        }
        let (against, theirs) = best.map_or((None, Vec::new()), |(_, name, steps)| (Some(name), steps));
        let list = |checksum: &str| store.read(|tx| tx.get::<String>(FILES, checksum)).ok().flatten();
        let misses = if against.is_some() { compare(&steps, &theirs, &list) } else { alone(&steps) };
        Ok(Why { build: build.reference.clone(), against, misses })
    }
}

fn inputs_of(store: &Store, reference: &str) -> Result<Vec<StepInputs>> {
    Ok(store.read(|tx| tx.get(INPUTS, reference))?.unwrap_or_default())
}

fn alone(steps: &[StepInputs]) -> Vec<Miss> {
    let reason = "no earlier build with such a step is remembered";
    let miss = |step: &StepInputs| Miss { line: step.line, step: step.step.clone(), reasons: vec![reason.to_owned()] };
    steps.iter().filter(|step| step.made).map(miss).collect()
}

/// Steps that were made, and what of them is not as in the earlier build.
fn compare(steps: &[StepInputs], earlier: &[StepInputs], list: &dyn Fn(&str) -> Option<String>) -> Vec<Miss> {
    // The same instruction first, each once; then what is left, in its order.
    let mut free: Vec<&StepInputs> = earlier.iter().collect();
    let mut pairs: Vec<Option<&StepInputs>> = Vec::new();
    for step in steps {
        let found = free.iter().position(|other| other.step == step.step);
        pairs.push(found.map(|at| free.remove(at)));
    }
    let mut rest = free.into_iter();
    let mut misses = Vec::new();
    for (step, pair) in steps.iter().zip(pairs) {
        let reasons = match pair {
            _ if !step.made => continue,
            Some(other) => reasons(step, other, list),
            None => match rest.next() {
                Some(other) => vec![format!("the instruction is another one: it was {}", other.step)],
                None => vec!["the step is new".to_owned()],
            },
        };
        misses.push(Miss { line: step.line, step: step.step.clone(), reasons });
    }
    misses
}

fn reasons(step: &StepInputs, other: &StepInputs, list: &dyn Fn(&str) -> Option<String>) -> Vec<String> {
    let mut reasons = Vec::new();
    let names: BTreeSet<&String> = step.inputs.keys().chain(other.inputs.keys()).collect();
    for name in names {
        let change = match (step.inputs.get(name), other.inputs.get(name)) {
            (Some(new), Some(old)) if new == old => continue,
            (Some(_), Some(_)) if name == BEFORE => "was changed",
            (Some(_), Some(_)) => "is another one",
            (Some(_), None) => "is new",
            _ => "is there no more",
        };
        reasons.push(format!("{name} {change}"));
    }
    let new: Vec<&String> = step.files.iter().filter(|checksum| !other.files.contains(checksum)).collect();
    let old: Vec<&String> = other.files.iter().filter(|checksum| !step.files.contains(checksum)).collect();
    if !new.is_empty() || !old.is_empty() {
        let all = |names: &[&String]| names.iter().map(|name| list(name)).collect::<Option<String>>();
        match (all(&new), all(&old)) {
            (Some(new), Some(old)) => reasons.extend(files(&new, &old)),
            _ => reasons.push("its files were changed; of one of the builds there is no list of them".to_owned()),
        }
    }
    match (reasons.is_empty(), step.no_cache) {
        (true, true) => reasons.push("the cache was not to be used (--no-cache)".to_owned()),
        (true, false) => {
            reasons.push("nothing has changed: what it had made was in the cache no more, or had failed".to_owned());
        }
        _ => {}
    }
    reasons
}

/// What of two lists of files differs.
fn files(new: &str, old: &str) -> Vec<String> {
    let read = |list: &str| -> BTreeMap<String, (String, String)> {
        let fields = |line: &str| {
            let mut fields = line.splitn(3, '\t').map(str::to_owned);
            let (what, content) = (fields.next()?, fields.next()?);
            Some((fields.next()?.trim_matches('"').to_owned(), (what, content)))
        };
        list.lines().filter_map(fields).collect()
    };
    let (new, old) = (read(new), read(old));
    let mut all = Vec::new();
    for (name, (what, content)) in &new {
        match old.get(name) {
            None => all.push(format!("the file {name} is new")),
            Some((_, before)) if before != content => all.push(format!("the file {name} was changed")),
            Some((before, _)) if before != what => all.push(format!("the file {name} has another mode or owner")),
            _ => {}
        }
    }
    all.extend(
        old.keys().filter(|name| !new.contains_key(*name)).map(|name| format!("the file {name} is there no more")),
    );
    if all.len() > MOST_NAMED {
        let more = all.len() - MOST_NAMED;
        all.truncate(MOST_NAMED);
        all.push(format!("and {more} more files"));
    }
    if all.is_empty() {
        all.push("its files were given in another order".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(text: &str, made: bool, inputs: &[(&str, &str)], files: &[&str]) -> StepInputs {
        let inputs = inputs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let files = files.iter().map(|name| (*name).to_owned()).collect();
        StepInputs { line: 1, step: text.to_owned(), made, no_cache: false, inputs, files }
    }

    #[test]
    fn what_differs_is_named() {
        let lists = |name: &str| {
            Some(match name {
                "one" => "File:644:0:0:0\taa\t\"a\"\nFile:644:0:0:0\tbb\t\"b\"\nFile:644:0:0:0\tcc\t\"c\"\n".to_owned(),
                "two" => "File:644:0:0:0\taa\t\"a\"\nFile:644:0:0:0\tb2\t\"b\"\nFile:755:0:0:0\tcc\t\"c\"\nFile:644:0:0:0\tdd\t\"d\"\n"
                    .to_owned(),
                _ => return None,
            })
        };
        let old = [
            step("COPY . .", true, &[(BEFORE, "1")], &["one"]),
            step("RUN a", true, &[(BEFORE, "1"), ("the variable X", "1")], &[]),
            step("RUN same", true, &[(BEFORE, "1")], &[]),
            step("RUN old", true, &[], &[]),
            step("RUN cached", true, &[], &[]),
        ];
        let new = [
            step("COPY . .", true, &[(BEFORE, "1")], &["two"]),
            step("RUN a", true, &[(BEFORE, "2"), ("the variable X", "2"), ("the variable Y", "")], &[]),
            step("RUN same", true, &[(BEFORE, "1")], &[]),
            step("RUN new", true, &[], &[]),
            step("RUN cached", false, &[], &[]),
            step("RUN more", true, &[], &[]),
        ];
        let reasons: Vec<Vec<String>> = compare(&new, &old, &lists).into_iter().map(|miss| miss.reasons).collect();
        let expected: [&[&str]; 5] = [
            &["the file b was changed", "the file c has another mode or owner", "the file d is new"],
            &[
                "the variable X is another one",
                "the variable Y is new",
                "what the steps before it have made was changed",
            ],
            &["nothing has changed: what it had made was in the cache no more, or had failed"],
            &["the instruction is another one: it was RUN old"],
            &["the step is new"],
        ];
        assert_eq!(reasons, expected);
    }
}
