//! A local HTTP client that sends exactly the bytes it is told to, as an SDK would or as no SDK should.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::message::{Body, Head, Messages};
use super::monitor::GUARD;
use super::pieces::{write_each, write_in_pieces};
use super::secrets;

/// One connection to the extension.
pub struct Client {
    addr: SocketAddr,
    stream: TcpStream,
    messages: Messages<TcpStream>,
}

/// One response, byte for byte.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub head: Head,
    pub body: Vec<u8>,
}

impl Client {
    #[track_caller]
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the extension takes connections");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream
            .set_read_timeout(Some(GUARD))
            .expect("a guard on reads");
        stream
            .set_write_timeout(Some(GUARD))
            .expect("a guard on writes");
        let messages = Messages::new(stream.try_clone().expect("another handle to the socket"));
        Self {
            addr,
            stream,
            messages,
        }
    }

    #[track_caller]
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .expect("the extension reads what it is sent");
    }

    /// Like [`Client::send`], for when the other side may have closed.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        secrets::sent(self.addr, bytes.as_ref());
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends one byte at a time, each read by the extension before the next.
    #[track_caller]
    pub fn send_bytewise(&mut self, bytes: impl AsRef<[u8]>) {
        self.send_in_pieces(bytes, 1);
    }

    #[track_caller]
    pub fn send_in_pieces(&mut self, bytes: impl AsRef<[u8]>, size: usize) {
        secrets::sent(self.addr, bytes.as_ref());
        write_in_pieces(&self.stream, bytes.as_ref(), size)
            .expect("the extension reads what it is sent");
    }

    /// Sends these segments, each read by the extension before the next.
    #[track_caller]
    pub fn send_segments(&mut self, segments: &[&[u8]]) {
        secrets::sent(self.addr, &segments.concat());
        write_each(&self.stream, segments.iter().copied())
            .expect("the extension reads what it is sent");
    }

    /// Says that nothing more will be sent; answers can still be read.
    pub fn half_close(&mut self) {
        self.stream
            .shutdown(Shutdown::Write)
            .expect("a connection to close half of");
    }

    /// Reads exactly one response, an interim one (1xx) included.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.try_response()
            .expect("a response")
            .expect("a response before the connection's end")
    }

    /// Reads one response; `None` when the connection ended before its first byte.
    pub fn try_response(&mut self) -> io::Result<Option<Response>> {
        let Some(head) = self.messages.head()? else {
            return Ok(None);
        };
        let mut body = Body::default();
        self.messages.body(head.response_framing(), &mut body)?;
        Ok(Some(Response {
            status: head.status(),
            head,
            body: body.decoded,
        }))
    }

    /// Reads one response, which must be the relay's plain "I have it".
    #[track_caller]
    pub fn expect_ok(&mut self) -> Response {
        let response = self.response();
        assert_eq!(response.status, 200, "{}", response.head.text());
        assert_eq!(
            response.head.header("Content-Length").as_deref(),
            Some("0"),
            "{}",
            response.head.text()
        );
        assert!(response.body.is_empty());
        response
    }

    /// The connection ends now, with no byte more.
    #[track_caller]
    pub fn expect_end(&mut self) {
        let rest = self.rest();
        assert!(
            rest.is_empty(),
            "instead of the end: {}",
            String::from_utf8_lossy(&rest)
        );
    }

    /// All bytes up to the connection's end, FIN or RST.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.messages.ahead().to_vec();
        if let Err(error) = self.stream.read_to_end(&mut rest) {
            assert_eq!(
                error.kind(),
                io::ErrorKind::ConnectionReset,
                "waiting for the connection's end"
            );
        }
        rest
    }

    /// Nothing has come that was not asked for. To be called when a later event proves that it would be here.
    #[track_caller]
    pub fn expect_silence(&self) {
        assert_eq!(self.messages.ahead(), b"", "bytes nobody asked for");
        self.stream.set_nonblocking(true).expect("a socket");
        let peeked = self.stream.peek(&mut [0; 64]).map_err(|error| error.kind());
        self.stream.set_nonblocking(false).expect("a socket");
        assert_eq!(
            peeked,
            Err(io::ErrorKind::WouldBlock),
            "bytes nobody asked for, or the connection's end"
        );
    }

    /// The address this end of the connection has.
    pub fn local_addr(&self) -> SocketAddr {
        self.stream
            .local_addr()
            .expect("a connected socket has an address")
    }
}

/// A request with a Content-Length, as bytes. `head` is everything before that header, with its line ends.
pub fn with_length(head: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{head}Content-Length: {}\r\n\r\n", body.len()).into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// A plain POST of `body` to `target`, as bytes.
pub fn post(target: &str, body: &[u8]) -> Vec<u8> {
    with_length(
        &format!("POST {target} HTTP/1.1\r\nHost: localhost:4040\r\n"),
        body,
    )
}

/// The body in chunks of the given sizes, the last one taking what is left, as `Transfer-Encoding: chunked` has it.
pub fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}
