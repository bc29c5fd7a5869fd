//! Logical lines: continuations joined, comments dropped, heredocs collected, and where each part came from.

use crate::directive::{DirectiveReader, Directives};
use crate::error::Mistake;
use crate::heredoc::Heredoc;
use crate::position::{Position, Span};
use crate::word;

/// One instruction's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Without continuations and comments.
    pub(crate) text: String,
    pub(crate) span: Span,
    pub(crate) heredocs: Vec<Heredoc>,
    /// Comments directly above it, one a line.
    pub(crate) comments: Vec<String>,
    /// An empty line inside of it, which is going to be an error one day.
    pub(crate) empty_continuation: bool,
    pieces: Vec<Piece>,
}

/// From this byte of the text on, it stands here in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    offset: usize,
    position: Position,
}

impl Line {
    /// Where in the file a byte of the text is.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let Some(piece) = self.pieces.iter().rev().find(|piece| piece.offset <= offset) else {
            return self.span.start;
        };
        let text = self.text.get(piece.offset..offset).unwrap_or_default();
        let column = piece.position.column + u32::try_from(text.chars().count()).unwrap_or(0);
        Position { line: piece.position.line, column }
    }
}

/// A file taken apart.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    pub(crate) directives: Directives,
    pub(crate) lines: Vec<Line>,
    /// Mistakes with their places.
    pub(crate) mistakes: Vec<(Position, Mistake)>,
}

/// Instructions that can have heredocs.
const WITH_HEREDOCS: &[&str] = &["add", "copy", "run"];

struct Physical<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    number: u32,
}

impl<'a> Physical<'a> {
    /// The next line of the file with its end.
    fn next(&mut self) -> Option<&'a str> {
        let line = self.rest.next()?;
        self.number += 1;
        Some(line)
    }
}

fn without_end(line: &str) -> &str {
    line.trim_end_matches(['\r', '\n'])
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with('#')
}

/// The line without the escape that continues it, or as it is when none does. An escaped escape continues nothing.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

/// Takes a file apart.
pub(crate) fn read(text: &str) -> Lines {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut physical = Physical { rest: text.split_inclusive('\n'), number: 0 };
    let mut directives = DirectiveReader::default();
    let mut found = Lines::default();
    let mut comments = Vec::new();
    while let Some(raw) = physical.next() {
        let number = physical.number;
        let line = without_end(raw).trim_start();
        let column = u32::try_from(raw.chars().count() - raw.trim_start().chars().count()).unwrap_or(0) + 1;
        if let Err(mistake) = directives.line(number, line) {
            found.mistakes.push((Position { line: number, column }, mistake));
        }
        if let Some(comment) = line.strip_prefix('#') {
            comments.push(comment.trim().to_owned());
            continue;
        }
        let escape = directives.found.escape;
        let above = std::mem::take(&mut comments);
        let (first, mut goes_on) = continued(line, escape);
        if !goes_on && first.is_empty() {
            continue;
        }
        let start = Position { line: number, column };
        let mut joined = Line {
            text: first.to_owned(),
            span: Span { start, end_line: number },
            heredocs: Vec::new(),
            comments: above,
            empty_continuation: false,
            pieces: vec![Piece { offset: 0, position: start }],
        };
        while goes_on {
            let Some(raw) = physical.next() else { break };
            let line = without_end(raw);
            if is_comment(line) {
                continue;
            }
            if line.trim().is_empty() {
                joined.empty_continuation = true;
                continue;
            }
            let part;
            (part, goes_on) = continued(line, escape);
            let position = Position { line: physical.number, column: 1 };
            joined.pieces.push(Piece { offset: joined.text.len(), position });
            joined.text.push_str(part);
        }
        if joined.text.trim().is_empty() {
            continue;
        }
        if let Err(mistake) = heredocs(&mut joined, &mut physical) {
            found.mistakes.push((start, mistake));
        }
        joined.span.end_line = physical.number;
        found.lines.push(joined);
    }
    found.directives = directives.found;
    found
}

/// Reads what the heredocs of a line have.
fn heredocs(line: &mut Line, physical: &mut Physical<'_>) -> Result<(), Mistake> {
    if !line.text.contains("<<") || !may_have_heredocs(&line.text) {
        return Ok(());
    }
    for mut heredoc in Heredoc::of_line(&line.text) {
        loop {
            let Some(raw) = physical.next() else {
                return Err(Mistake::new("unterminated heredoc").about(format!("<<{}", heredoc.name)));
            };
            if heredoc.ends_with(without_end(raw)) {
                break;
            }
            heredoc.content.push_str(raw);
        }
        line.heredocs.push(heredoc);
    }
    Ok(())
}

/// Whether it is RUN, COPY or ADD, also behind ONBUILD, and not in JSON form.
fn may_have_heredocs(text: &str) -> bool {
    let Some((name, rest)) = word::split_first(text.trim()) else { return false };
    if name.eq_ignore_ascii_case("onbuild") {
        return may_have_heredocs(rest);
    }
    let known = WITH_HEREDOCS.iter().any(|known| name.eq_ignore_ascii_case(known));
    known && !matches!(word::json(word::flags(rest).1), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<String> {
        read(text).lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn continuations_are_joined() {
        assert_eq!(texts("RUN a \\\n  b \\\n\tc\nRUN d"), ["RUN a   b \tc", "RUN d"]);
        assert_eq!(texts("RUN a \\ \t\n b"), ["RUN a  b"]);
        assert_eq!(texts("RUN a \\\\\nRUN b"), ["RUN a \\\\", "RUN b"]);
        assert_eq!(texts("# escape=`\nRUN a `\n b \\\nRUN c"), ["RUN a  b \\", "RUN c"]);
        assert_eq!(texts("RUN a\\"), ["RUN a"]);
        assert_eq!(texts("\\\nRUN a"), ["RUN a"]);
        assert_eq!(texts("\u{feff}FROM x\r\nRUN a \\\r\n b\r\n"), ["FROM x", "RUN a  b"]);
    }

    #[test]
    fn comments_and_empty_lines_inside_are_dropped() {
        let read = read("RUN a \\\n  # about b\n\n b # not a comment\n");
        assert_eq!(read.lines[0].text, "RUN a  b # not a comment");
        assert!(read.lines[0].empty_continuation);
        assert_eq!(texts("# only\n\n  # comments\n"), Vec::<String>::new());
    }

    #[test]
    fn every_byte_knows_where_it_came_from() {
        let read = read("FROM x\n\n  RUN é \\\n# no\n    --flag\n");
        let line = &read.lines[1];
        assert_eq!(line.span, Span { start: Position { line: 3, column: 3 }, end_line: 5 });
        assert_eq!(line.position(line.text.find('é').unwrap()), Position { line: 3, column: 7 });
        assert_eq!(line.position(line.text.find("--flag").unwrap()), Position { line: 5, column: 5 });
    }

    #[test]
    fn heredocs_are_collected() {
        let read = read("RUN <<A cat 3<<-'B'\nfirst\nA\n\tsecond\r\n\tB\nRUN x\n");
        assert!(read.mistakes.is_empty());
        let line = &read.lines[0];
        let contents: Vec<_> = line.heredocs.iter().map(|h| h.content.as_str()).collect();
        assert_eq!(contents, ["first\n", "\tsecond\r\n"]);
        assert_eq!((line.span.end_line, read.lines[1].span.line()), (5, 6));
    }

    #[test]
    fn only_some_instructions_have_heredocs() {
        assert_eq!(texts("ENV a=<<EOF\nRUN x"), ["ENV a=<<EOF", "RUN x"]);
        assert_eq!(texts("RUN [\"a\", \"<<EOF\"]\nRUN x"), ["RUN [\"a\", \"<<EOF\"]", "RUN x"]);
        assert_eq!(texts("ONBUILD RUN <<EOF\nx\nEOF\nRUN x"), ["ONBUILD RUN <<EOF", "RUN x"]);
        assert_eq!(read("COPY --from=x <<EOF /f\nx\nEOF\n").lines[0].heredocs.len(), 1);
    }

    #[test]
    fn a_heredoc_must_end() {
        let read = read("FROM x\nRUN <<EOF\nnever\n");
        let (position, mistake) = &read.mistakes[0];
        assert_eq!((position.line, mistake.message.as_str()), (2, "unterminated heredoc"));
    }

    #[test]
    fn comments_above_belong_to_the_line() {
        let read = read("# away\n\n# NAME is what\n# it is\nARG NAME\n");
        assert_eq!(read.lines[0].comments, ["NAME is what", "it is"]);
    }
}
