//! Text of others on the user's terminal. Labels, commands and the words of a registry may have control characters in
//! them: such as move the cursor, set the title, or type for the user. They are shown and not obeyed.

use std::borrow::Cow;

/// Control characters as escapes, but those that only separate lines and columns.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let obeyed = |c: char| c.is_control() && !matches!(c, '\n' | '\t' | '\r');
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let show = |c: char| if obeyed(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(show).collect())
}

/// As [`visible`], but `own` codes, which the user has written, are obeyed.
pub(crate) fn visible_but<'a>(text: &'a str, own: &[String]) -> Cow<'a, str> {
    let mut out = String::new();
    let mut left = text;
    while let Some((at, code)) = own.iter().filter_map(|code| Some((left.find(code.as_str())?, code))).min_by_key(
        // Of those that begin at one place the longest.
        |(at, code)| (*at, usize::MAX - code.len()),
    ) {
        out.push_str(&visible(&left[..at]));
        out.push_str(code);
        left = &left[at + code.len()..];
    }
    if out.is_empty() {
        return visible(left);
    }
    out.push_str(&visible(left));
    Cow::Owned(out)
}

/// The codes in words of the user's own, a template say: those that are there as they are, and those that a string in a
/// template has by a name of Go's. A code that the template completes with data is obeyed whatever the data is.
pub(crate) fn codes(words: &str) -> Vec<String> {
    // Go's names for the character; `\\` first, as what follows it is no name.
    const NAMES: [(&str, &str); 6] = [
        ("\\\\", "\\"),
        ("\\x1b", "\x1b"),
        ("\\x1B", "\x1b"),
        ("\\033", "\x1b"),
        ("\\u001b", "\x1b"),
        ("\\u001B", "\x1b"),
    ];
    let mut plain = String::new();
    let mut left = words;
    while let Some(first) = left.chars().next() {
        let length = match NAMES.iter().find(|(name, _)| left.starts_with(name)) {
            Some((name, meant)) => {
                plain.push_str(meant);
                name.len()
            }
            None => {
                plain.push(first);
                first.len_utf8()
            }
        };
        left = &left[length..];
    }
    let mut all = Vec::new();
    for (at, c) in plain.char_indices().filter(|(_, c)| c.is_control() && !matches!(c, '\n' | '\t' | '\r')) {
        let rest = &plain[at..];
        // ECMA-48, 5.4: a control sequence has parameters and ends with a letter or its like.
        let length = match rest.strip_prefix("\x1b[") {
            Some(sequence) => {
                let parameters = sequence.chars().take_while(|c| matches!(c, ' '..='?')).count();
                let last = sequence[parameters..].chars().next().is_some_and(|c| matches!(c, '@'..='z' | '|' | '~'));
                2 + parameters + usize::from(last)
            }
            None => c.len_utf8(),
        };
        let code = rest[..length].to_owned();
        if !all.contains(&code) {
            all.push(code);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_user_s_own_are_obeyed_and_no_others() {
        let own = codes("\x1b[31m{{.Names}}\x1b[0m {{\"\\x1b[1;32m\"}} \\\\x1b[7m {{\"\\033[K\"}}");
        assert_eq!(own, ["\x1b[31m", "\x1b[0m", "\x1b[1;32m", "\x1b[K"]);
        let data = "\x1b[31ma\x1b[2J\x1b]0;t\x07\x1b[0m\n";
        assert_eq!(visible_but(data, &own), "\x1b[31ma\\u{1b}[2J\\u{1b}]0;t\\u{7}\x1b[0m\n");
        assert_eq!(visible_but(data, &[]), visible(data));
        assert_eq!(codes("\x1b[3{{.Number}}m"), ["\x1b[3"]);
        assert_eq!(codes("table {{.ID}}\\t{{.Names}}"), [""; 0]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(visible("a\x1b[2Jb\x07\u{9b}c"), "a\\u{1b}[2Jb\\u{7}\\u{9b}c");
        assert_eq!(visible("line\nNAME\té\r"), "line\nNAME\té\r");
    }
}
