//! What a registry wants to know: `WWW-Authenticate` (RFC 9110, section 11.6.1; RFC 6750, section 3).

use hyper::HeaderMap;
use hyper::header::WWW_AUTHENTICATE;

/// More headers of this kind than a registry has reason to send.
const MAX_CHALLENGES: usize = 8;

/// One way to authenticate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// In lower case.
    pub(crate) scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The parameter `name`, if it is there and not empty.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// All challenges of an answer, in order. What is not of the grammar is left out.
pub(crate) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(parse).take(MAX_CHALLENGES).collect()
}

/// Parses `Scheme name=value, name="value", Other…`.
fn parse(text: &str) -> Vec<Challenge> {
    let mut all: Vec<Challenge> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = token(rest);
        if word.is_empty() {
            return all;
        }
        match after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            // A word with a value is a parameter of the scheme before it.
            Some(value) => {
                let Some((value, after)) = parameter_value(value.trim_start_matches([' ', '\t'])) else { return all };
                let Some(challenge) = all.last_mut() else { return all };
                challenge.parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            None => {
                all.push(Challenge { scheme: word.to_ascii_lowercase(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

fn token(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)).count();
    text.split_at(end)
}

fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &quoted[at + 1..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_parsed() {
        let all = parse(
            r#"Bearer realm="https://auth.example/token?a=b,c",service="reg \"x\"",scope="repository:a:pull,push" , Basic realm=plain"#,
        );
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].scheme.as_str(), all[1].scheme.as_str()), ("bearer", "basic"));
        assert_eq!(all[0].parameter("realm"), Some("https://auth.example/token?a=b,c"));
        assert_eq!(all[0].parameter("service"), Some("reg \"x\""));
        assert_eq!(all[0].parameter("scope"), Some("repository:a:pull,push"));
        assert_eq!(all[1].parameter("realm"), Some("plain"));
        assert_eq!(all[1].parameter("scope"), None);
    }

    #[test]
    fn nonsense_is_left_out() {
        for nonsense in ["", ",,,", "=", "realm=x", "Bearer realm=\"open", "\u{fc}", "Bearer realm=\"x\\"] {
            assert!(parse(nonsense).iter().all(|challenge| challenge.parameters.is_empty()), "{nonsense}");
        }
    }
}
