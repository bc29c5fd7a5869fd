//! Words of an instruction before any variable is expanded: flags, pairs, lists, JSON.

use crate::error::Mistake;

/// The blanks that separate arguments (a line's end cannot be among them).
fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

/// Splits at the first run of blanks.
pub(crate) fn split_first(text: &str) -> Option<(&str, &str)> {
    let at = text.find(is_blank)?;
    Some((&text[..at], text[at..].trim_start_matches(is_blank)))
}

/// Splits at all runs of blanks.
pub(crate) fn fields(text: &str) -> Vec<String> {
    text.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The flags (`--name[=value]`) at the beginning, quotes and backslashes taken away, and what follows them.
pub(crate) fn flags(text: &str) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (mut word, mut quote, mut quoted) = (String::new(), None, false);
        let mut end = rest.len();
        let mut chars = rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match quote {
                None if c.is_whitespace() => {
                    end = at;
                    break;
                }
                None if c == '\'' || c == '"' => (quote, quoted) = (Some(c), true),
                Some(open) if c == open => quote = None,
                _ if c == '\\' => word.extend(chars.next().map(|(_, c)| c)),
                _ => word.push(c),
            }
        }
        rest = rest[end..].trim_start();
        // A lone `--` ends the flags.
        if word == "--" && !quoted {
            break;
        }
        flags.push(word);
    }
    (flags, rest.trim())
}

/// Words with their quotes and escapes still in them, for instructions that expand each later.
pub(crate) fn quoted_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let (mut word, mut quote, mut started) = (String::new(), None, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                if started {
                    words.push(std::mem::take(&mut word));
                }
                started = false;
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // One at the very end escapes nothing and is dropped.
            let Some(next) = chars.next() else { break };
            word.extend([c, next]);
        } else {
            word.push(c);
        }
        started = true;
    }
    if started {
        words.push(word);
    }
    words
}

/// `name=value …`, or the old `name value`. The third part tells whether it was the old form.
pub(crate) fn pairs(text: &str, instruction: &str, escape: char) -> Result<Vec<(String, String, bool)>, Mistake> {
    let words = quoted_words(text, escape);
    let Some(first) = words.first() else {
        return Err(Mistake::new(format!("{instruction} requires at least one argument")));
    };
    let named = |name: &str| {
        let blank = name.is_empty();
        if blank { Err(Mistake::new(format!("{instruction} names can not be blank"))) } else { Ok(name.to_owned()) }
    };
    if !first.contains('=') {
        let Some((name, value)) = split_first(text) else {
            return Err(Mistake::new(format!("{instruction} must have two arguments")));
        };
        return Ok(vec![(named(name)?, value.to_owned(), true)]);
    }
    let pair = |word: &String| {
        let (name, value) = word.split_once('=').ok_or_else(|| {
            let text = format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value");
            Mistake::new(text).about(word)
        })?;
        Ok((named(name).map_err(|m| m.about(word))?, value.to_owned(), false))
    };
    words.iter().map(pair).collect()
}

/// A JSON array of strings, or `None` when the text is none and must be taken literally.
///
/// # Errors
/// For an array of something else: it was meant to be one.
pub(crate) fn json(text: &str) -> Result<Option<Vec<String>>, Mistake> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    strings.collect::<Option<Vec<_>>>().map(Some).ok_or_else(|| {
        Mistake::new("when using JSON array syntax, arrays must be comprised of strings only").about(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_end_where_the_arguments_begin() {
        for (text, expected, rest) in [
            ("--a --b=c rest --d", vec!["--a", "--b=c"], "rest --d"),
            ("--a=\"x y\" z", vec!["--a=x y"], "z"),
            ("--a='x\" y' z", vec!["--a=x\" y"], "z"),
            ("--a=x\\ y z", vec!["--a=x y"], "z"),
            ("-- --a", vec![], "--a"),
            ("-x --a", vec![], "-x --a"),
            ("  --a", vec!["--a"], ""),
            ("", vec![], ""),
            ("rest", vec![], "rest"),
            ("--a=b\\", vec!["--a=b"], ""),
        ] {
            let (found, left) = flags(text);
            assert_eq!((found, left), (expected.into_iter().map(str::to_owned).collect(), rest), "{text}");
        }
    }

    #[test]
    fn words_keep_their_quotes() {
        for (text, expected) in [
            ("a b", vec!["a", "b"]),
            ("a='b c' d", vec!["a='b c'", "d"]),
            ("a=\"b \\\" c\" d", vec!["a=\"b \\\" c\"", "d"]),
            ("a=b\\ c d", vec!["a=b\\ c", "d"]),
            ("a='b\\' c", vec!["a='b\\'", "c"]),
            ("a=\"\" b", vec!["a=\"\"", "b"]),
            ("'' b", vec!["''", "b"]),
            ("a \\", vec!["a"]),
            ("a='open b", vec!["a='open b"]),
            (" ", vec![]),
        ] {
            assert_eq!(quoted_words(text, '\\'), expected, "{text}");
        }
        assert_eq!(quoted_words("a=b` c\\ d", '`'), ["a=b` c\\", "d"]);
    }

    #[test]
    fn pairs_in_both_forms() {
        let plain = |text| pairs(text, "ENV", '\\');
        assert_eq!(plain("a b  c d").unwrap(), [("a".into(), "b  c d".into(), true)]);
        let two = [("a".to_owned(), "b".to_owned(), false), ("c".into(), "'d e'".into(), false)];
        assert_eq!(plain("a=b c='d e'").unwrap(), two);
        assert_eq!(plain("a=b=c").unwrap(), [("a".into(), "b=c".into(), false)]);
        assert_eq!(plain("a=").unwrap(), [("a".into(), String::new(), false)]);
        for (text, message) in [
            ("", "ENV requires at least one argument"),
            ("a", "ENV must have two arguments"),
            ("=b", "ENV names can not be blank"),
            ("a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ] {
            assert_eq!(plain(text).unwrap_err().message, message);
        }
    }

    #[test]
    fn json_is_json_or_text() {
        assert_eq!(json("[\"a\", \"b c\"]").unwrap(), Some(vec!["a".into(), "b c".into()]));
        assert_eq!(json(" [\"\\u00e9\"] ").unwrap(), Some(vec!["é".into()]));
        assert_eq!(json("[]").unwrap(), Some(vec![]));
        for text in ["['a']", "[a]", "[\"a\" ", "a", "", "[\"a\"] x", "[\"a\",]"] {
            assert_eq!(json(text).unwrap(), None, "{text}");
        }
        for text in ["[1]", "[\"a\", true]", "[[]]", "[null]"] {
            assert!(json(text).is_err(), "{text}");
        }
    }
}
