//! What people type behind `?` and no URL may have: JSON with its quotes (`?filters={"status":["running"]}`). Go's server
//! takes it, HTTP's library here does not, so it is written as it should have been before that reads it.

/// A connection's first request with such signs in its target percent-encoded (RFC 3986, 2.1); `None` where there are none, or
/// its first line has not come whole.
pub(crate) fn encoded(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    let begin = line.iter().position(|byte| *byte == b' ')? + 1;
    let end = line.iter().rposition(|byte| *byte == b' ').filter(|end| *end > begin)?;
    let is_raw = |byte: &u8| matches!(byte, b'"' | b'<' | b'>' | 0x80..);
    if !line[begin..end].iter().any(is_raw) {
        return None;
    }
    let mut all = bytes[..begin].to_vec();
    for byte in &line[begin..end] {
        match is_raw(byte) {
            true => all.extend(format!("%{byte:02X}").bytes()),
            false => all.push(*byte),
        }
    }
    all.extend(&bytes[end..]);
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_url_has_is_encoded() {
        let typed = "GET /x?filters={\"name\":[\"ü\"]} HTTP/1.1\r\nX: \"y\"\r\n\r\n\"";
        let written = "GET /x?filters={%22name%22:[%22%C3%BC%22]} HTTP/1.1\r\nX: \"y\"\r\n\r\n\"";
        assert_eq!(encoded(typed.as_bytes()).as_deref(), Some(written.as_bytes()));
        for other in ["GET /x?a=%22 HTTP/1.1\r\nX: \"\r\n", "GET /\"", "\"\n", "GET \"\n", "", "GET  \n"] {
            assert_eq!(encoded(other.as_bytes()), None, "{other:?}");
        }
    }
}
