//! Lines of a file around the ones that are meant, as BuildKit shows them.

use std::fmt::Write as _;

use crate::position::Span;

/// Lines before and after.
const AROUND: u32 = 2;
/// More lines of one instruction (a heredoc) are not shown in full.
const MOST: u32 = 24;

/// The lines of `span` with a mark before each, and some around them. `file` is the name that is shown.
///
/// ```text
/// Dockerfile:3
/// --------------------
///    1 |     FROM busybox
///    2 |     
///    3 | >>> RUN make
/// --------------------
/// ```
pub fn excerpt(file: &str, text: &str, span: Span) -> String {
    let (first, last) = (span.start.line, span.end_line.max(span.start.line));
    let end = last.min(first.saturating_add(MOST));
    let mut shown = format!("{file}:{first}\n");
    shown.push_str("--------------------\n");
    let from = first.saturating_sub(AROUND).max(1);
    let until = if end < last { end } else { last + AROUND };
    for (number, line) in (1u32..).zip(text.split('\n')).filter(|(number, _)| (from..=until).contains(number)) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(shown, " {number:>3} | {mark} {}", line.trim_end_matches('\r'));
    }
    if end < last {
        let _ = writeln!(shown, "     | >>> … {} lines more", last - end);
    }
    shown.push_str("--------------------\n");
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::position::Position;

    fn span(start: u32, end: u32) -> Span {
        Span { start: Position { line: start, column: 1 }, end_line: end }
    }

    #[test]
    fn lines_around_what_is_meant() {
        let text = "FROM a\n\nRUN b \\\n  c\nCMD d\n\nUSER e\n";
        let shown = excerpt("f", text, span(3, 4));
        let expected = "f:3\n--------------------\n   1 |     FROM a\n   2 |     \n   3 | >>> RUN b \\\n   4 | >>>   c\n   \
                        5 |     CMD d\n   6 |     \n--------------------\n";
        assert_eq!(shown, expected);
        assert!(excerpt("f", text, span(1, 1)).starts_with("f:1\n"));
        let long = "x\n".repeat(100);
        assert!(excerpt("f", &long, span(1, 90)).contains("… 65 lines more"));
    }
}
