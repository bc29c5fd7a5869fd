//! Heredocs: text in the Dockerfile itself, as a file for COPY and ADD or as a script for RUN.

use crate::expand::{Lexer, NoVariables};

/// `<<NAME`, and the lines that follow up to `NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    pub name: String,
    /// Exactly as in the file, line ends included.
    pub content: String,
    /// Whether variables in it are expanded: not when any part of the name was quoted.
    pub expand: bool,
    /// `<<-`: leading tabs of the lines do not count.
    pub chomp: bool,
    /// The number before `<<`, 0 when there is none.
    pub descriptor: u32,
}

impl Heredoc {
    /// The heredoc that a word announces, if it does.
    pub(crate) fn announced_by(word: &str) -> Option<Self> {
        let digits = word.bytes().take_while(u8::is_ascii_digit).count();
        let rest = word[digits..].strip_prefix("<<")?;
        let (chomp, rest) = match rest.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return None;
        }
        // Read with quotes and without: when the two differ, something was quoted.
        let plain = Lexer { keep_unset: true, ..Lexer::new('\\') };
        let raw = Lexer { raw_quotes: true, raw_escapes: true, ..plain };
        let one = |lexer: Lexer| match lexer.expand(rest, &NoVariables).ok()?.words.as_slice() {
            [word] => Some(word.clone()),
            _ => None,
        };
        let (name, written) = (one(plain)?, one(raw)?);
        let descriptor = word[..digits].parse().unwrap_or(0);
        Some(Self { expand: name == written, name, content: String::new(), chomp, descriptor })
    }

    /// All that a line announces, in order.
    pub(crate) fn of_line(line: &str) -> Vec<Self> {
        let lexer = Lexer { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lexer::new('\\') };
        match lexer.expand(line, &NoVariables) {
            Ok(expanded) => expanded.words.iter().filter_map(|word| Self::announced_by(word)).collect(),
            // A line that is no line of words, such as one with a lone apostrophe, announces nothing.
            Err(_) => Vec::new(),
        }
    }

    /// The file that the name means for COPY: one in the root of nothing else, so `..` leads nowhere, and there is no
    /// directory that one could be in.
    pub(crate) fn file_name(&self) -> Option<&str> {
        let mut parts = self.name.split('/').filter(|part| !matches!(*part, "" | "." | ".."));
        let name = parts.next()?;
        (parts.next().is_none() && self.name.ends_with(name)).then_some(name)
    }

    /// Whether a line of the file, without its end, is the last one.
    pub(crate) fn ends_with(&self, line: &str) -> bool {
        let line = if self.chomp { line.trim_start_matches('\t') } else { line };
        line == self.name
    }

    /// The content as it is meant: without leading tabs if so asked.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_announce_a_heredoc() {
        // Word, name, expand, chomp, descriptor.
        for (word, name, expand, chomp, descriptor) in [
            ("<<EOF", "EOF", true, false, 0),
            ("<<-EOF", "EOF", true, true, 0),
            ("<<'EOF'", "EOF", false, false, 0),
            ("<<\"EOF\"", "EOF", false, false, 0),
            ("<<E\"O\"F", "EOF", false, false, 0),
            ("<<\\EOF", "EOF", false, false, 0),
            ("<<'a b'", "a b", false, false, 0),
            ("3<<EOF", "EOF", true, false, 3),
            ("<<$x", "$x", true, false, 0),
            ("<< EOF", "EOF", true, false, 0),
            ("<<\t'EOF'", "EOF", false, false, 0),
        ] {
            let heredoc = Heredoc::announced_by(word).expect(word);
            let got = (heredoc.name.as_str(), heredoc.expand, heredoc.chomp, heredoc.descriptor);
            assert_eq!(got, (name, expand, chomp, descriptor), "{word}");
        }
    }

    #[test]
    fn words_that_do_not() {
        for word in ["EOF", "<EOF", "<<", "<<-", "<<<EOF", "x<<EOF", "<<'EOF", "a", ""] {
            assert_eq!(Heredoc::announced_by(word), None, "{word}");
        }
    }

    #[test]
    fn a_line_may_announce_several() {
        let names = |line: &str| Heredoc::of_line(line).into_iter().map(|h| h.name).collect::<Vec<_>>();
        assert_eq!(names("COPY <<a <<'b' /dir/"), ["a", "b"]);
        assert_eq!(names("RUN cat <<A > x && cat 3<<-B"), ["A", "B"]);
        assert!(names("RUN echo \"<<EOF\"").is_empty());
        assert!(names("RUN echo '<<EOF'").is_empty());
        assert_eq!(names("RUN echo 1 << 2"), ["2"]);
        assert_eq!(names("RUN cat <<\t\"A\" > x"), ["A"]);
        assert!(names("RUN cat <<- A").is_empty());
        assert!(names("RUN cat <<").is_empty());
        assert!(names("RUN cat <<< word").is_empty());
        assert!(names("RUN echo don't <<EOF").is_empty());
    }

    #[test]
    fn leading_tabs_are_dropped_when_asked() {
        let heredoc = |chomp| Heredoc {
            name: "E".into(),
            content: "\t\ta\n\tb\t\n\n  c\n".into(),
            expand: true,
            chomp,
            descriptor: 0,
        };
        assert_eq!(heredoc(true).text(), "a\nb\t\n\n  c\n");
        assert_eq!(heredoc(false).text(), heredoc(false).content);
        assert!(heredoc(true).ends_with("\t\tE") && !heredoc(false).ends_with("\tE"));
    }
}
