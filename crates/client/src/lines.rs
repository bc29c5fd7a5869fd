use serde_json::Value;

/// The JSON values of a stream, whatever the chunks they come in: one per line, or run together.
#[derive(Debug, Default)]
pub struct JsonLines {
    buffer: Vec<u8>,
}

impl JsonLines {
    /// Takes a chunk and gives the values that are complete now.
    ///
    /// # Errors
    ///
    /// The stream is not JSON.
    pub fn push(&mut self, chunk: &[u8]) -> serde_json::Result<Vec<Value>> {
        self.buffer.extend_from_slice(chunk);
        let mut values = Vec::new();
        let mut stream = serde_json::Deserializer::from_slice(&self.buffer).into_iter::<Value>();
        let mut used = 0;
        loop {
            match stream.next() {
                Some(Ok(value)) => {
                    values.push(value);
                    used = stream.byte_offset();
                }
                None => {
                    used = self.buffer.len();
                    break;
                }
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => return Err(error),
            }
        }
        self.buffer.drain(..used);
        Ok(values)
    }

    /// What is left over: a value that was cut off.
    pub fn rest(&self) -> &[u8] {
        self.buffer.trim_ascii()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_across_chunks() {
        let mut lines = JsonLines::default();
        assert_eq!(lines.push(b"{\"a\":1}\r\n{\"b").unwrap().len(), 1);
        assert_eq!(lines.push(b"\":2}{\"c\":3}\n ").unwrap().len(), 2);
        assert!(lines.rest().is_empty());
        assert!(lines.push(b"nonsense").is_err());
    }
}
