use std::io::{Read, Write};

fn main() -> std::io::Result<()> {
    for stream in std::net::TcpListener::bind("0.0.0.0:8080")?.incoming() {
        let mut stream = stream?;
        stream.read(&mut [0; 4096])?;
        let body = serde_json::json!({ "text": "hello from Rust" }).to_string();
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}
