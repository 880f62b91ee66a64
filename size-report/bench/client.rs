//! An SDK that uploads: one connection, one request after the other, each written at once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::GUARD;
use crate::lambda::content_length;
use crate::subjects::wait_until;

const ANSWER_BYTES_MAX: usize = 4096;

pub struct Client {
    address: SocketAddr,
    connection: TcpStream,
    request: Vec<u8>,
}

/// What came of an upload.
pub struct Posted {
    /// None: the connection ended instead.
    pub status: Option<u16>,
    /// When its first byte was written.
    pub from: Instant,
    /// From the request's first byte to the end of the answer's head.
    pub took: Duration,
}

impl Client {
    /// Connects; the extension may not listen yet.
    pub fn connect(address: SocketAddr, payload_bytes: usize) -> Self {
        let mut request = format!(
            "POST /ingest?aggregationType=sum&from=1655819920&name=simple.golang.app%7Bfoo%3Dbar%7D\
             &sampleRate=100&spyName=gospy&units=samples&until=1655819927 HTTP/1.1\r\n\
             Host: localhost:4040\r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {payload_bytes}\r\n\
             Content-Type: multipart/form-data; boundary=abc\r\nAccept-Encoding: gzip\r\n\r\n"
        )
        .into_bytes();
        request.resize(request.len() + payload_bytes, b'x');
        Self {
            address,
            connection: connect(address),
            request,
        }
    }

    pub fn post(&mut self) -> Posted {
        let from = Instant::now();
        let answer = self.exchange();
        let (status, took) = match answer {
            Some((status, until)) => (Some(status), until - from),
            None => {
                self.connection = connect(self.address);
                (None, from.elapsed())
            }
        };
        Posted { status, from, took }
    }

    fn exchange(&mut self) -> Option<(u16, Instant)> {
        self.connection.write_all(&self.request).ok()?;
        let mut answer = [0; ANSWER_BYTES_MAX];
        let mut filled = 0;
        loop {
            let more = self.connection.read(&mut answer[filled..]).ok()?;
            let at = Instant::now();
            if more == 0 {
                return None;
            }
            filled += more;
            let text = String::from_utf8_lossy(&answer[..filled]);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let status = head.split(' ').nth(1)?.parse().ok()?;
                let mut rest = vec![0; content_length(head)?.checked_sub(body.len())?];
                self.connection.read_exact(&mut rest).ok()?;
                return Some((status, at));
            }
        }
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let connection = wait_until("somebody to listen", || TcpStream::connect(address).ok());
    connection.set_nodelay(true).expect("no delay");
    connection.set_read_timeout(Some(GUARD)).expect("a guard");
    connection
}
