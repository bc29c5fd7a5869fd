//! One build from its first step to its last.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use wharf_dockerfile::{
    Base, Dockerfile, Globals, Graph, GraphError, Instruction, Known, Lexer, Platform, Platforms, Source, Statement,
    Warning, check, check_unresolved,
};
use wharf_image::{ImageConfig, ImageRecord};
use wharf_reference::Digest;
use wharf_rooted_path::RootDir;
use wharf_snapshot::{Hold, Layer};

use crate::builder::{Shared, Told};
use crate::cache::{CacheRecord, Kept};
use crate::cancel::Cancel;
use crate::context::Context;
use crate::definition::Foreseen;
use crate::entitlements::Allowed;
use crate::epoch::source_date_epoch;
use crate::error::{BuildError, ErrorKind, Result};
use crate::finish::tell_warnings;
use crate::gathered::Gathered;
use crate::leak::Wanted;
use crate::named::for_platform;
use crate::no_cache::check_stages;
use crate::options::Options;
use crate::output::Output;
use crate::request::BuildRequest;
use crate::scratch::{Scratch, random_id};
use crate::stages::Progress;
use crate::state::{DATE_OF_NOTHING, State};
use crate::steps::Steps;
use crate::tree::Tree;
use crate::why::Noted;

mod client;

use client::Answering;

/// One stage at work; a trigger may need another, which is then part of it.
pub(crate) struct Session<'a> {
    pub(crate) common: &'a Common<'a>,
    /// Where this stage is heard.
    pub(crate) output: Output,
    /// The stage that its thread has taken.
    pub(crate) at: usize,
    /// The number of the last step that was announced.
    pub(crate) step: usize,
    /// All its steps are made again.
    pub(crate) no_cache: bool,
    /// It is at a base image's triggers.
    pub(crate) at_triggers: bool,
    /// The stage at work, where it need not be made if nobody needs its files.
    pub(crate) spare: Option<usize>,
    /// It was found that nobody does.
    pub(crate) spared: bool,
}

impl<'a> Deref for Session<'a> {
    type Target = Common<'a>;

    fn deref(&self) -> &Common<'a> {
        self.common
    }
}

/// What all stages of a build share.
pub(crate) struct Common<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) output: Output,
    pub(crate) cancel: Cancel,
    pub(crate) runtime: Handle,
    pub(crate) dir: Scratch,
    pub(crate) options: Options,
    pub(crate) client: Option<Arc<Answering>>,
    pub(crate) dockerfile: &'a Dockerfile,
    pub(crate) globals: Arc<Globals>,
    pub(crate) graph: Graph,
    pub(crate) platforms: Platforms,
    pub(crate) gathered: &'a Gathered,
    pub(crate) context: &'a Context,
    /// Files that the request gives under names.
    pub(crate) contexts: &'a BTreeMap<String, Tree>,
    /// The least that images are dated with, in seconds since the epoch.
    newest: i64,
    /// Files of layers get no later time, if that was asked.
    pub(crate) clamp: Option<i64>,
    /// Those that have ended.
    pub(crate) stages: Vec<OnceLock<State>>,
    pub(crate) progress: Progress,
    /// [`Told::early`].
    pub(crate) early: Arc<Mutex<Option<oneshot::Sender<BuildError>>>>,
    pub(crate) trees: Mutex<HashMap<Base, Tree>>,
    pub(crate) images: Mutex<HashMap<(String, Option<Platform>), ImageRecord>>,
    /// Layers that must not go while the build is under way.
    pub(crate) hold: Mutex<Hold>,
    /// Whether any step was made.
    pub(crate) anew: AtomicBool,
    /// Keys of steps that were not made again.
    pub(crate) used: Mutex<Vec<Digest>>,
    /// Arguments that some ARG has named.
    pub(crate) consumed: Mutex<BTreeSet<String>>,
    /// Variables that stages began with.
    pub(crate) base_env: Mutex<HashMap<usize, Vec<(String, String)>>>,
    /// What the build notes of itself.
    pub(crate) noted: Arc<Mutex<Noted>>,
    /// Layers of its steps that have secrets in them, and the IDs of these.
    pub(crate) leaky: Mutex<BTreeMap<Digest, Vec<String>>>,
    pub(crate) steps: AtomicUsize,
    /// What is known of stages without their being made.
    pub(crate) foreseen: Mutex<HashMap<usize, Arc<Foreseen>>>,
    /// Those whose files somebody needs, once that was asked.
    pub(crate) truly_needed: Mutex<Option<BTreeSet<usize>>>,
    /// Checksums of what instructions name, in contexts.
    pub(crate) sums: Mutex<HashMap<String, Vec<Digest>>>,
    /// Parts of contexts that are files because a command mounts them, by context and path.
    pub(crate) materialized: Mutex<HashMap<(String, PathBuf), RootDir>>,
    /// Cache mounts that were made anew, for nothing was to come from the cache.
    pub(crate) emptied: Mutex<BTreeSet<(String, String)>>,
    /// Names directories of steps.
    next: AtomicUsize,
}

/// The last second of the year 9999 that is one everywhere: what is later has no date as configurations say it.
const LATEST: i64 = 253_402_207_199;

/// What a step has come to.
pub(crate) struct Outcome {
    /// The layer, if it changed a file.
    pub(crate) layer: Option<Digest>,
    pub(crate) cached: bool,
    /// Its time in images, in seconds since the epoch.
    pub(crate) date: i64,
    /// [`crate::cache::CacheRecord::again`], where that counts.
    pub(crate) again: Option<i64>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Common<'a> {
    /// Begins with what was gathered, for one platform.
    pub(crate) fn new(
        shared: &'a Shared,
        request: &BuildRequest,
        gathered: &'a Gathered,
        platform: Option<Platform>,
        told: &Told,
    ) -> Result<Self> {
        let Gathered { dockerfile, context, named, contexts, .. } = gathered;
        let allowed = Allowed::of(&request.entitlements, &request.network)?;
        let host = Platform::host();
        let platforms = Platforms { target: platform.clone().unwrap_or_else(|| host.clone()), build: host };
        let target = request.target.clone().unwrap_or_default();
        // Nobody knows the stages then; what can be said of the file is said.
        let broken = |globals: Option<&Globals>, error: GraphError| {
            let warnings = check_unresolved(dockerfile, globals);
            let told = tell_warnings(&told.output, &dockerfile.file, &context.dockerfile, &warnings);
            told.err().unwrap_or_else(|| BuildError::from(error).with_text(&context.dockerfile))
        };
        let globals = Globals::new(dockerfile, &platforms, &target, request.build_args.clone());
        let globals = Arc::new(globals.map_err(|error| broken(None, error))?);
        let contexts_of = for_platform(named, &platforms.target);
        let graph = Graph::new(dockerfile, &globals, request.target.as_deref(), contexts_of);
        let graph = graph.map_err(|error| broken(Some(&globals), error))?;
        check_stages(&told.output, dockerfile, &request.no_cache_filter)?;
        let epoch = source_date_epoch(&globals, context.newest)?;
        // Clients of the classic builder take another ID for the sign that nothing came from the cache.
        let another = request.classic && request.no_cache;
        let newest = if another { Timestamp::now().as_second() } else { 0 };
        let needed = graph.needed();
        let steps = dockerfile.globals.len()
            + request.labels.len()
            + needed.iter().map(|stage| 1 + graph.statements(dockerfile, *stage)).sum::<usize>();
        let stages = dockerfile.stages.iter().map(|_| OnceLock::new()).collect();
        let dir = Scratch::new(shared.builds().join(format!("b-{}", &random_id()?[..16])))?;
        let client = request.client.clone().map(|client| Arc::new(Answering::new(client, told.cancel.clone())));
        Ok(Self {
            hold: Mutex::new(shared.layers.hold(&[])),
            options: Options::of(request, &allowed, platform, client.clone().map(|client| client as _)),
            client,
            shared,
            output: told.output.clone(),
            cancel: told.cancel.clone(),
            runtime: told.runtime.clone(),
            dir,
            dockerfile,
            globals,
            graph,
            platforms,
            gathered,
            context,
            contexts,
            newest,
            clamp: epoch,
            stages,
            progress: Progress::new(),
            early: Arc::clone(&told.early),
            trees: Mutex::default(),
            images: Mutex::default(),
            anew: AtomicBool::new(false),
            used: Mutex::default(),
            consumed: Mutex::default(),
            base_env: Mutex::default(),
            noted: Arc::clone(&told.noted),
            leaky: Mutex::default(),
            steps: AtomicUsize::new(steps),
            foreseen: Mutex::default(),
            truly_needed: Mutex::default(),
            sums: Mutex::default(),
            materialized: Mutex::default(),
            emptied: Mutex::default(),
            next: AtomicUsize::new(0),
        })
    }

    /// What is allowed in the Dockerfile and probably not meant.
    pub(crate) fn warnings(&self) -> Vec<Warning> {
        let known = Known {
            globals: Arc::clone(&self.globals),
            graph: &self.graph,
            ignore: &self.context.ignore,
            base_env: &|stage| lock(&self.base_env).get(&stage).cloned(),
            stages: Some(self.graph.needed().into_iter().collect()),
        };
        check(self.dockerfile, &known)
    }

    /// Whether a step that changes the configuration only was made before. Making it again costs nothing; it is noted so
    /// that the client can be told.
    pub(crate) fn noted(&self, key: &Digest, description: &str, date: i64, no_cache: bool) -> Result<Outcome> {
        lock(&self.noted).keys.push(key.clone());
        let found = if no_cache { None } else { self.shared.cache.find(key)? };
        if let Some(record) = found {
            lock(&self.used).push(key.clone());
            return Ok(Outcome { layer: None, cached: true, date, again: self.again_of(&record) });
        }
        self.shared.cache.keep(key, Kept { description, date, again: self.another(), ..Kept::default() })?;
        Ok(Outcome { layer: None, cached: false, date, again: None })
    }

    /// When what this build makes was made though nothing was to come from the cache: that of the classic builder has another ID.
    fn another(&self) -> Option<i64> {
        Some(self.newest).filter(|newest| *newest > 0)
    }

    /// The same of a step that was found.
    pub(crate) fn again_of(&self, record: &CacheRecord) -> Option<i64> {
        record.again.filter(|_| self.options.classic)
    }

    /// The times that a stage begins with: of files, and its own.
    pub(crate) fn dates(&self, base: Option<&ImageConfig>) -> (i64, i64) {
        let created = base.and_then(|base| base.created.as_deref()?.parse::<Timestamp>().ok());
        (created.map_or(DATE_OF_NOTHING, |created| DATE_OF_NOTHING.max(created.as_second())), self.newest)
    }

    /// The time of what a step makes that has none of its own, in seconds since the epoch: what the user wants, or the newest of
    /// what it is made from.
    pub(crate) fn date_of(&self, state: &State) -> i64 {
        self.clamp.unwrap_or(state.date)
    }

    /// The time that the user wants, as keys have it.
    pub(crate) fn clamp_text(&self) -> String {
        self.clamp.map(|seconds| seconds.to_string()).unwrap_or_default()
    }

    /// As configurations of images say a time.
    pub(crate) fn moment(&self, date: i64) -> Result<String> {
        // What a file says may be no date at all.
        let seconds = self.clamp.unwrap_or_else(|| date.min(LATEST));
        let bad = |e| BuildError::invalid(format!("a time of {seconds} seconds since the epoch has no date: {e}"));
        Ok(Timestamp::from_second(seconds).map_err(bad)?.to_string())
    }

    /// Keeps layers until the build is over.
    pub(crate) fn hold(&self, layers: &[Digest]) {
        self.shared.layers.hold_also(&mut lock(&self.hold), layers);
    }

    /// Keeps what a step made: for this build before for others, so that it is nobody's at no time.
    pub(crate) fn made(&self, key: &Digest, layer: Option<&Layer>, description: &str, date: i64) -> Result<Outcome> {
        self.made_while(key, layer, description, date, &|| !self.cancel.is_cancelled())
    }

    /// The same as long as somebody wants it.
    pub(crate) fn made_while(
        &self,
        key: &Digest,
        layer: Option<&Layer>,
        description: &str,
        date: i64,
        wanted: Wanted<'_>,
    ) -> Result<Outcome> {
        lock(&self.noted).keys.push(key.clone());
        self.anew.store(true, Ordering::Relaxed);
        self.hold(layer.map(|layer| &layer.diff_id).into_iter().cloned().collect::<Vec<_>>().as_slice());
        let layer = layer.map(|layer| (layer.diff_id.clone(), layer.size));
        let secrets = layer.as_ref().map(|(layer, _)| self.secrets_in(layer, wanted)).transpose()?.unwrap_or_default();
        let kept = Kept { layer: layer.clone(), description, date, secrets, again: self.another() };
        self.shared.cache.keep(key, kept)?;
        Ok(Outcome { layer: layer.map(|(diff_id, _)| diff_id), cached: false, date, again: None })
    }

    /// A directory for one step.
    pub(crate) fn step_dir(&self) -> Result<Scratch> {
        Scratch::new(self.dir.path.join(format!("step-{}", self.number())))
    }

    /// One that nothing else of this build has.
    pub(crate) fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl<'a> Session<'a> {
    pub(crate) fn new(common: &'a Common<'a>, output: Output, at: usize, step: usize) -> Self {
        let no_cache = common.options.no_cache;
        Self { common, output, at, step, no_cache, at_triggers: false, spare: None, spared: false }
    }
}

impl Session<'_> {
    pub(crate) fn announce(&mut self, source: &Source) -> Result<()> {
        self.cancel.check()?;
        self.step += 1;
        let steps = self.steps.load(Ordering::Relaxed);
        self.output.text(format!("Step {}/{steps} : {}\n", self.step, source.text))
    }

    pub(crate) fn stage(&mut self, index: usize) -> Result<()> {
        // A trigger may have brought this one into another's work.
        let outer = std::mem::replace(&mut self.no_cache, self.common.is_made_again(index));
        let (at_triggers, spare) = (std::mem::take(&mut self.at_triggers), self.spare.take());
        let done = self.stage_itself(index);
        (self.no_cache, self.at_triggers, self.spare) = (outer, at_triggers, spare);
        done
    }

    /// A stage as far as somebody needs its files who has not the result of what takes them.
    pub(crate) fn stage_if_needed(&mut self, index: usize) -> Result<()> {
        self.no_cache = self.common.is_made_again(index);
        self.spare = Some(index).filter(|_| index != self.graph.target && !self.no_cache && self.has_takers());
        match self.stage_itself(index) {
            Err(_) if self.spared => {
                self.output.steps.iter().for_each(Steps::cached);
                self.ended(None)?;
                self.output.text(" ---> Not needed: the cache has what takes from this stage\n")
            }
            done => done,
        }
    }

    /// Ends the stage, if nobody needs its files: it would have to make something.
    pub(crate) fn spare_it(&mut self) -> Result<()> {
        if let Some(stage) = self.spare
            && !self.is_needed(stage)
        {
            self.spared = true;
            return Err(BuildError::cancelled());
        }
        Ok(())
    }

    fn stage_itself(&mut self, index: usize) -> Result<()> {
        let common = self.common;
        let (stage, file) = (&common.dockerfile.stages[index], &common.dockerfile.file);
        self.announce(&stage.from)?;
        let mut number = self.begin_base(index)?;
        let base = self.base(index).map_err(|e| self.failed(e, &stage.from));
        self.ended(base.as_ref().err())?;
        let mut state = base?;
        self.hold(state.layers());
        lock(&self.base_env).insert(index, state.scope.env().to_vec());
        let triggers = state.image.config.on_build.take().unwrap_or_default();
        if !triggers.is_empty() {
            let s = if triggers.len() == 1 { "" } else { "s" };
            self.output.text(format!("# Executing {} build trigger{s}\n", triggers.len()))?;
        }
        self.at_triggers = true;
        for trigger in triggers {
            let statement = Dockerfile::parse_trigger(file, &trigger, &stage.from)?;
            self.begin_step(index, &mut number, &statement, &state)?;
            let done = self.statement(index, &mut state, &statement).map_err(|e| e.at(file, &statement.source));
            self.ended(done.as_ref().err())?;
            done?;
        }
        self.at_triggers = false;
        let replaced = self.graph.nodes[index].replaced;
        for statement in stage.statements.iter().filter(|_| !replaced) {
            self.announce(&statement.source)?;
            self.begin_step(index, &mut number, statement, &state)?;
            let done = self.statement(index, &mut state, statement).map_err(|e| self.failed(e, &statement.source));
            self.ended(done.as_ref().err())?;
            done?;
        }
        // Triggers of two stages may have needed it at the same moment.
        let _ = self.stages[index].set(state);
        Ok(())
    }

    /// Shows the lines that have failed, which the error names.
    fn failed(&self, error: BuildError, source: &Source) -> BuildError {
        let file = &self.dockerfile.file;
        if error.place.is_none() && error.kind != ErrorKind::Cancelled {
            let lines = wharf_dockerfile::excerpt(file, &self.context.dockerfile, source.span);
            // Who does not hear it any more has no use for it.
            let _ = self.output.text(lines);
        }
        error.at(file, source).within(&self.context.dockerfile, source)
    }

    /// Tells that a stage's base image is looked for; the value counts the stage's steps.
    fn begin_base(&self, index: usize) -> Result<usize> {
        let Some(steps) = &self.output.steps else { return Ok(0) };
        let Base::Image(name) = &self.graph.nodes[index].base else { return Ok(0) };
        let name = wharf_reference::Reference::parse(name)
            .map_or_else(|_| name.clone(), |name| name.tag_or_latest().to_string());
        steps.begin(self.step_name(index, 1, &format!("FROM {name}")))?;
        Ok(1)
    }

    /// Tells that a step that changes files has begun.
    fn begin_step(&self, index: usize, number: &mut usize, statement: &Statement, state: &State) -> Result<()> {
        let Some(steps) = self.output.steps.as_ref().filter(|_| changes_files(statement)) else { return Ok(()) };
        // As BuildKit calls it: with the variables' values, which a command's shell puts in by itself.
        let line = statement.source.text.lines().next().unwrap_or_default();
        let (word, rest) = line.split_at(line.find(char::is_whitespace).unwrap_or(line.len()));
        let lexer = Lexer::new(self.dockerfile.directives.escape);
        let expanded = match statement.instruction {
            Instruction::Run(_) => None,
            _ => lexer.expand(rest, &state.scope).ok(),
        };
        let rest = expanded.map_or_else(|| rest.to_owned(), |expanded| expanded.text);
        let mut text = format!("{}{rest}", word.to_uppercase());
        if let Instruction::Run(run) = &statement.instruction
            && let Some(begin) = run.begin_of_script()
        {
            text.push_str(&format!(" ({begin})"));
        }
        if self.at_triggers {
            return steps.begin(format!("[ONBUILD] {text}"));
        }
        *number += 1;
        steps.begin(self.step_name(index, *number, &text))
    }

    /// `[build 2/3] RUN make`: as BuildKit calls it.
    fn step_name(&self, index: usize, number: usize, text: &str) -> String {
        let stage = &self.dockerfile.stages[index];
        let total = stage.statements.iter().filter(|statement| changes_files(statement)).count()
            + usize::from(matches!(self.graph.nodes[index].base, Base::Image(_)));
        let mut prefix = String::new();
        if self.gathered.platforms.len() > 1 {
            prefix.push_str(&format!("{} ", self.platforms.target));
        }
        if self.dockerfile.stages.len() > 1 {
            prefix.push_str(&format!("{} ", stage.label(index)));
        }
        format!("[{prefix}{number}/{total}] {text}")
    }

    fn ended(&self, error: Option<&BuildError>) -> Result<()> {
        match self.output.steps.as_ref().filter(|_| error.is_none() || !self.spared) {
            // The failure is what is told, and not that nobody hears it.
            Some(steps) => steps.end(error).or_else(|closed| if error.is_some() { Ok(()) } else { Err(closed) }),
            None => Ok(()),
        }
    }

    pub(crate) fn show(&self, state: &State) -> Result<()> {
        let id = Digest::sha256(&state.config_bytes());
        self.output.text(format!(" ---> {}\n", id.short()))
    }
}

/// Whether it is a step that takes time; others only change the configuration.
fn changes_files(statement: &Statement) -> bool {
    matches!(
        statement.instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
    )
}
