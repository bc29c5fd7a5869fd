//! Streams of clients that do not say so, on a connection of their own: Docker takes the connection of `attach` and of an exec's start over whether the
//! client asks for an upgrade or not (`net/http.Hijacker`), and old clients do not ask. HTTP's library gives a connection
//! away for an upgrade alone. So the request is made one before it reads it, and the answer is put as Docker has it then.

/// What is added to the head of a request.
const ASKS: &[u8] = b"Connection: Upgrade\r\nUpgrade: tcp\r\n";
/// As long as a head may be that is looked at.
const MOST: usize = 16 << 10;

/// Whether what a connection has brought so far may be the head of such a request, and is not whole. Only what comes first on
/// a connection is looked at: later on a body could be taken for a head.
pub(crate) fn may_be(bytes: &[u8]) -> bool {
    const BEGINS: &[u8] = b"POST /";
    let common = bytes.len().min(BEGINS.len());
    bytes[..common] == BEGINS[..common] && bytes.len() < MOST && !bytes.windows(4).any(|end| end == b"\r\n\r\n")
}

/// A request that wants streams and does not say so, as one that does.
pub(crate) fn upgraded(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.strip_prefix(b"POST ")?;
    let end = rest.iter().position(|byte| *byte == b' ')?;
    let path = std::str::from_utf8(&rest[..end]).ok()?.split('?').next()?;
    let wants = path.contains("/containers/") && path.ends_with("/attach")
        || path.contains("/exec/") && path.ends_with("/start");
    if !wants {
        return None;
    }
    let head = bytes.windows(4).position(|end| end == b"\r\n\r\n")? + 2;
    let text = std::str::from_utf8(&bytes[..head]).ok()?.to_ascii_lowercase();
    // Some read a line feed alone for the end of a line: their head would have ended before.
    if text.matches('\n').count() != text.matches("\r\n").count() {
        return None;
    }
    // A body in pieces is the input, and ends where it ends.
    let says = text.contains("\r\nupgrade:") || text.contains("\r\ntransfer-encoding:");
    if says || !text.contains(" http/1.1\r\n") {
        return None;
    }
    Some([&bytes[..head], ASKS, &bytes[head..]].concat())
}

/// The head of the answer to such a request; `None` where there will be no streams.
pub(crate) fn answer(head: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(head).ok()?;
    let (status, fields) = text.strip_suffix("\r\n\r\n")?.split_once("\r\n")?;
    if !status.starts_with("HTTP/1.1 101 ") {
        return None;
    }
    let mut answer = "HTTP/1.1 200 OK\r\n".to_owned();
    for field in fields.split("\r\n") {
        if field.get(..13).is_some_and(|name| name.eq_ignore_ascii_case("content-type:")) {
            answer.push_str(field);
            answer.push_str("\r\n");
        }
    }
    answer.push_str("\r\n");
    Some(answer.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_ask_for_streams_is_given_them() {
        let request = b"POST /v1.41/containers/a/attach?stream=1 HTTP/1.1\r\nHost: d\r\n\r\ninput";
        let asks = b"POST /v1.41/containers/a/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\ninput";
        assert_eq!(upgraded(request).as_deref(), Some(&asks[..]));
        assert_eq!(upgraded(asks), None);
        for other in [
            "POST /exec/a/json HTTP/1.1\r\n\r\n",
            "POST /exec/a/start HTTP/1.0\r\n\r\n",
            "POST /exec/a/start HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST /exec/a/start HTTP/1.1\r\n",
            "POST /exec/a/start HTTP/1.1\nX: y\n\nbody\r\n\r\n",
            "GET /containers/a/attach HTTP/1.1\r\n\r\n",
            "POST /exec",
            "",
        ] {
            assert_eq!(upgraded(other.as_bytes()), None, "{other}");
        }
        for (text, may) in [("", true), ("PO", true), ("POST /exec", true), ("GET /", false), ("POST /\r\n\r\n", false)]
        {
            assert_eq!(may_be(text.as_bytes()), may, "{text}");
        }
        let head = b"HTTP/1.1 101 UPGRADED\r\ncontent-type: x/y\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\n";
        assert_eq!(answer(head).as_deref(), Some(&b"HTTP/1.1 200 OK\r\ncontent-type: x/y\r\n\r\n"[..]));
        assert_eq!(answer(b"HTTP/1.1 404 Not Found\r\n\r\n"), None);
    }
}
