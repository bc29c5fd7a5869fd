use std::fmt::Write as _;

/// Parameters as a query string: sorted by key as Go writes them, a space as `+`.
pub(crate) fn encode(parameters: &[(String, String)]) -> String {
    let mut sorted: Vec<_> = parameters.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut text = String::new();
    for (key, value) in sorted {
        text.push(if text.is_empty() { '?' } else { '&' });
        escape(&mut text, key);
        text.push('=');
        escape(&mut text, value);
    }
    text
}

fn escape(text: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => text.push(char::from(byte)),
            b' ' => text.push('+'),
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
}

/// A path with what may not stand in a request line escaped. Slashes stay: image names have them.
pub(crate) fn escape_path(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' => text.push(char::from(byte)),
            b'-' | b'_' | b'.' | b'~' | b'/' | b':' | b'@' | b'$' | b'&' | b'+' | b',' | b';' | b'=' => {
                text.push(char::from(byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02X}");
            }
        }
    }
    text
}

/// A socket's path as Go writes it for a URL's host: every byte that is not plain is escaped.
pub(crate) fn encode_host(path: &std::path::Path) -> String {
    path.display().to_string().replace('/', "%2F")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let pairs =
            |list: &[(&str, &str)]| list.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect::<Vec<_>>();
        assert_eq!(encode(&[]), "");
        assert_eq!(
            encode(&pairs(&[("b", "1 2"), ("a", "{\"x\":[\"é\"]}")])),
            "?a=%7B%22x%22%3A%5B%22%C3%A9%22%5D%7D&b=1+2"
        );
        assert_eq!(escape_path("/images/a/b:1@sha256:0/json"), "/images/a/b:1@sha256:0/json");
        assert_eq!(escape_path("/containers/a b?/json"), "/containers/a%20b%3F/json");
    }
}
