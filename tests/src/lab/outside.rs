//! A server outside the lab, on the build machine's loopback: what a guest reaches through its NIC
//! and the lab machine's user network as 10.0.2.2.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

/// What the scenarios fetch.
const LENGTH: usize = 32 << 20;

/// Serves `GET /bytes/N`: the first N bytes of an endless repetition of one fixed, random block.
pub(crate) struct Outside {
    /// The TCP port.
    pub(crate) port: u16,
    /// SHA-256 of the 32 MiB that scenarios fetch.
    pub(crate) sha256: String,
    block: Arc<Vec<u8>>,
}

impl Outside {
    /// Listens on a free port, until the process ends.
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("Cannot listen on the loopback")?;
        let port = listener.local_addr().context("The server has no address")?.port();
        let block = Arc::new(random_block());
        let served = Arc::clone(&block);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let block = Arc::clone(&served);
                // A client that goes away in the middle is what some scenarios are about.
                thread::spawn(move || serve(client, &block));
            }
        });
        Ok(Self {
            port,
            sha256: hash(&block),
            block,
        })
    }

    /// SHA-256 of the first bytes, at most 32 MiB.
    pub(crate) fn hash(&self, bytes: usize) -> String {
        hash(&self.block[..bytes.min(LENGTH)])
    }
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn serve(client: TcpStream, block: &[u8]) -> std::io::Result<()> {
    let mut request = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let mut client = client;
    let Some(mut left) = length_of(&request) else {
        return client.write_all(b"HTTP/1.0 404 Not Found\r\n\r\n");
    };
    write!(client, "HTTP/1.0 200 OK\r\nContent-Length: {left}\r\n\r\n")?;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        client.write_all(&block[..count])?;
        left -= count as u64;
    }
    Ok(())
}

/// `GET /bytes/123 HTTP/1.1` asks for 123 bytes.
fn length_of(request: &str) -> Option<u64> {
    let path = request.strip_prefix("GET /bytes/")?;
    path.split(' ').next()?.parse().ok()
}

/// Bytes without a pattern (xorshift64, Marsaglia 2003), so that a lost, doubled or moved packet
/// shows in the hash.
fn random_block() -> Vec<u8> {
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut block = Vec::with_capacity(LENGTH);
    while block.len() < LENGTH {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_fetched_bytes_have_the_announced_hash() {
        let outside = Outside::start().expect("a server");
        let mut client = TcpStream::connect(("127.0.0.1", outside.port)).expect("a connection");
        write!(client, "GET /bytes/{LENGTH} HTTP/1.1\r\nHost: x\r\n\r\n").expect("a request");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).expect("an answer");
        let body = &answer[answer.len() - LENGTH..];
        let hash: String = Sha256::digest(body)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(hash, outside.sha256);
    }

    #[test]
    fn other_requests_have_no_length() {
        assert_eq!(length_of("GET /bytes/12 HTTP/1.1\r\n"), Some(12));
        assert_eq!(length_of("GET / HTTP/1.1\r\n"), None);
    }
}
