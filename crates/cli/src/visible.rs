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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        assert_eq!(visible("a\x1b[2Jb\x07\u{9b}c"), "a\\u{1b}[2Jb\\u{7}\\u{9b}c");
        assert_eq!(visible("line\nNAME\té\r"), "line\nNAME\té\r");
    }
}
