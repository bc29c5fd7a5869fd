//! A whole Dockerfile: global arguments and stages.

use crate::directive::{CheckDirective, Directives};
use crate::error::{Mistake, ParseError, ParseErrors};
use crate::instruction::{Argument, Instruction};
use crate::line::{self, Line};
use crate::position::{Position, Span};
use crate::statement::{self, Parsed};

/// A parsed Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its path as the user named it; messages begin with it.
    pub file: String,
    pub directives: Directives,
    /// ARGs before the first FROM.
    pub globals: Vec<Statement>,
    /// At least one.
    pub stages: Vec<Stage>,
}

/// FROM and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Lower case.
    pub name: Option<String>,
    /// Image or stage; variables of global arguments in it are not expanded yet.
    pub base: String,
    pub platform: Option<String>,
    /// The FROM itself.
    pub from: Source,
    pub statements: Vec<Statement>,
}

/// An instruction and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    pub instruction: Instruction,
    pub source: Source,
}

/// Text of an instruction in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Without continuations and comments, as messages show it.
    pub text: String,
    pub span: Span,
    pub comments: Vec<String>,
    pub empty_continuation: bool,
}

impl Source {
    fn of(line: &Line) -> Self {
        Self {
            text: line.text.trim().to_owned(),
            span: line.span,
            comments: line.comments.clone(),
            empty_continuation: line.empty_continuation,
        }
    }
}

impl Stage {
    /// The name under which messages speak of it: its own, or `stage-N`.
    pub fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("stage-{index}"))
    }
}

impl Dockerfile {
    /// Parses a file's text. `file` is only for messages.
    ///
    /// # Errors
    /// All mistakes at once, each with its line, its column and what it is about.
    pub fn parse(file: &str, text: &str) -> Result<Self, ParseErrors> {
        let read = line::read(text);
        let mut errors = Vec::new();
        for (position, mistake) in read.mistakes {
            let source = read.lines.iter().find(|line| line.span.start == position);
            let text = source.map(|line| first_line(&line.text)).unwrap_or_default();
            errors.push(error(file, mistake, position, text));
        }
        let escape = read.directives.escape;
        let (mut globals, mut stages) = (Vec::new(), Vec::<Stage>::new());
        let mut from_failed = false;
        for line in &read.lines {
            let source = Source::of(line);
            match statement::parse(line, escape) {
                Err(mistake) => {
                    from_failed |= is_from(&line.text);
                    errors.push(located(file, mistake, line));
                }
                Ok(Parsed::From(from)) => stages.push(Stage {
                    name: from.name,
                    base: from.base,
                    platform: from.platform,
                    from: source,
                    statements: Vec::new(),
                }),
                Ok(Parsed::Instruction(instruction)) => {
                    let statement = Statement { instruction, source };
                    match (stages.last_mut(), &statement.instruction) {
                        (Some(stage), _) => stage.statements.push(statement),
                        (None, Instruction::Arg(_)) => globals.push(statement),
                        // The FROM is there, only wrong; its own error is enough.
                        (None, _) if from_failed => {}
                        (None, other) => {
                            let text = format!("no build stage in current context: {} comes before FROM", other.name());
                            errors.push(located(file, Mistake::new(text), line));
                        }
                    }
                }
            }
        }
        if errors.is_empty() && stages.is_empty() {
            let message = if text.is_empty() {
                "the Dockerfile cannot be empty"
            } else if read.lines.is_empty() {
                "file with no instructions"
            } else {
                "dockerfile contains no stages to build"
            };
            return Err(ParseErrors::one(error(file, Mistake::new(message), START, String::new())));
        }
        let dockerfile = Self { file: file.to_owned(), directives: read.directives, globals, stages };
        ParseErrors::check(errors, dockerfile)
    }

    /// For a text that was not UTF-8 and had U+FFFD put where it was not: whether that has changed what a step does. In a
    /// comment, a label or a heredoc it is only seen.
    ///
    /// # Errors
    /// With all instructions of which it has changed what they do.
    pub fn check_replaced(&self) -> Result<(), ParseErrors> {
        let matters = |instruction: &Instruction| {
            matches!(
                instruction,
                Instruction::Add(_)
                    | Instruction::Copy(_)
                    | Instruction::Env(_)
                    | Instruction::Run(_)
                    | Instruction::User(_)
                    | Instruction::Workdir(_)
            )
        };
        let mut errors = Vec::new();
        for Statement { instruction, source } in self.stages.iter().flat_map(|stage| &stage.statements) {
            if matters(instruction) && source.text.contains(char::REPLACEMENT_CHARACTER) {
                let mistake = Mistake::new(format!("{} has bytes that are not UTF-8", instruction.name()));
                errors.push(error(&self.file, mistake, source.span.start, first_line(&source.text)));
            }
        }
        ParseErrors::check(errors, ())
    }

    /// Takes other rules for the checks than the file's own (`BUILDKIT_DOCKERFILE_CHECK`).
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_by(&mut self, text: &str) -> Result<(), String> {
        self.directives.check = Some(CheckDirective::parse(text).map_err(|mistake| mistake.message)?);
        Ok(())
    }

    /// Parses an ONBUILD trigger of a base image. Messages point at the FROM that brought it.
    ///
    /// # Errors
    /// When it is not exactly one instruction that a trigger may be.
    pub fn parse_trigger(file: &str, trigger: &str, from: &Source) -> Result<Statement, ParseErrors> {
        let read = line::read(trigger);
        let fail = |mistake| Err(ParseErrors::one(error(file, mistake, from.span.start, from.text.clone())));
        if let Some((_, mistake)) = read.mistakes.into_iter().next() {
            return fail(mistake);
        }
        let [line] = read.lines.as_slice() else {
            return fail(Mistake::new("onbuild trigger should be a single expression"));
        };
        match statement::parse(line, '\\') {
            Err(mistake) => fail(mistake),
            Ok(Parsed::From(_)) => fail(Mistake::new("FROM isn't allowed as an ONBUILD trigger")),
            Ok(Parsed::Instruction(Instruction::Onbuild(_) | Instruction::Maintainer(_))) => {
                fail(Mistake::new("an ONBUILD trigger can be neither ONBUILD nor MAINTAINER"))
            }
            Ok(Parsed::Instruction(instruction)) => {
                let source = Source { span: from.span, ..Source::of(line) };
                Ok(Statement { instruction, source })
            }
        }
    }

    /// Global arguments in their order.
    pub fn global_arguments(&self) -> impl Iterator<Item = &Argument> {
        self.global_arguments_with_sources().map(|(argument, _)| argument)
    }

    /// The same, with the instruction of each.
    pub fn global_arguments_with_sources(&self) -> impl Iterator<Item = (&Argument, &Source)> {
        self.globals.iter().flat_map(|statement| {
            let arguments = match &statement.instruction {
                Instruction::Arg(arguments) => arguments.as_slice(),
                _ => &[],
            };
            arguments.iter().map(|argument| (argument, &statement.source))
        })
    }
}

const START: Position = Position { line: 1, column: 1 };

fn is_from(text: &str) -> bool {
    text.trim().get(..4).is_some_and(|word| word.eq_ignore_ascii_case("from"))
}

fn first_line(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn located(file: &str, mistake: Mistake, line: &Line) -> ParseError {
    let offset = mistake.about.as_deref().and_then(|about| line.text.find(about));
    let position = offset.map_or(line.span.start, |offset| line.position(offset));
    error(file, mistake, position, first_line(&line.text))
}

fn error(file: &str, mistake: Mistake, position: Position, source: String) -> ParseError {
    ParseError { file: file.to_owned(), position, message: mistake.message, hint: mistake.hint, source }
}
