//! A blocking connection to the server, plain or through TLS. All waits on it share one deadline.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::cli;
use crate::contract::{Ends, error_words};
use crate::http1::HEAD_BYTES_MAX;
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::fields;
use crate::http1::response::ResponseReader;
use crate::relay::phrases;
use crate::shell::clock;
use crate::shell::sockets::ends;
use crate::tls::{Client, Tls};

/// Most bytes of an answer's body that are read to see whether it is complete.
const ANSWER_BODY_MAX: usize = 64 * 1024;

/// First size of the buffer for answers.
const INBOX_START: usize = 4096;

/// The cause when `PYROSCOPE_TIMEOUT` is exceeded.
pub(super) const TIMED_OUT: &str = error_words(ErrorKind::TimedOut);

/// The cause when a plain request reaches a server that requires TLS.
pub(super) const WANTS_TLS: &str = "TLS is spoken here";

/// See the module's documentation.
pub(super) struct Line {
    stream: TcpStream,
    tls: Option<Tls>,
    until: Instant,
}

/// The server's answer.
#[derive(Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The target of a redirect, without parts that may be secret.
    pub(super) place: String,
    /// Whether it is a page for a browser.
    pub(super) is_page: bool,
    pub(super) body: Vec<u8>,
}

impl Line {
    /// Connects within one of `shares` of the time left, as the relay does; everything after that has until `until`.
    pub(super) fn connect(
        address: SocketAddr,
        shares: usize,
        until: Instant,
    ) -> Result<Self, &'static str> {
        let shares = u32::try_from(shares).unwrap_or(1).max(1);
        let stream = TcpStream::connect_timeout(&address, left(until)? / shares)
            .map_err(|error| words(error.kind()))?;
        Ok(Self {
            stream,
            tls: None,
            until,
        })
    }

    /// The two ends of the connection.
    pub(super) fn ends(&self, listening: &[SocketAddr]) -> std::io::Result<Ends> {
        ends(self.stream.peer_addr()?, listening, || {
            self.stream.local_addr()
        })
    }

    pub(super) const fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(super) fn shake_hands(&mut self, client: &Client) -> Result<(), String> {
        self.tls = Some(Tls::new(client)?);
        let mut early = ReceiveBuffer::new();
        loop {
            self.flush()?;
            if self.tls.as_ref().is_some_and(Tls::may_send) {
                return Ok(());
            }
            if !self.read(&mut early)? {
                return Err("connection closed in the middle of the TLS handshake".to_owned());
            }
        }
    }

    pub(super) fn write(&mut self, mut plain: &[u8]) -> Result<(), String> {
        while !plain.is_empty() {
            let written = match &mut self.tls {
                Some(tls) => tls.seal(plain)?,
                None => send(&mut self.stream, plain, self.until)?,
            };
            plain = &plain[written..];
            self.flush()?;
        }
        Ok(())
    }

    /// Writes the pending TLS bytes.
    fn flush(&mut self) -> Result<(), &'static str> {
        while let Some(tls) = &mut self.tls
            && !tls.pending().is_empty()
        {
            let written = send(&mut self.stream, tls.pending(), self.until)?;
            tls.sent(written);
        }
        Ok(())
    }

    /// Appends the next bytes to `plain`; `false` at the end.
    fn read(&mut self, plain: &mut ReceiveBuffer) -> Result<bool, String> {
        let wait = left(self.until)?;
        self.stream.set_read_timeout(Some(wait)).ok();
        let read = match &mut self.tls {
            Some(tls) => self.stream.read(tls.space()),
            None => self.stream.read(plain.space(INBOX_START, HEAD_BYTES_MAX)),
        };
        let read = match read {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(words(error.kind()).to_owned()),
            Ok(read) => read,
        };
        match &mut self.tls {
            Some(tls) => tls.received(read, plain)?,
            None => plain.received(read),
        }
        Ok(read > 0)
    }

    /// Asks the proxy at the other end for a tunnel to the server.
    pub(super) fn tunnel(&mut self, request: &[u8]) -> Result<(), String> {
        self.write(request)?;
        let status = self.read_answer(true)?.status;
        match status {
            200..=299 => Ok(()),
            401 | 407 => Err(format!("status {status}, it wants other credentials")),
            _ => Err(format!("status {status}")),
        }
    }

    /// Reads the answer, and its body as far as it arrives.
    pub(super) fn answer(&mut self) -> Result<Answer, String> {
        self.read_answer(false)
    }

    /// The answer to a `CONNECT` has no body to read.
    fn read_answer(&mut self, to_connect: bool) -> Result<Answer, String> {
        let (mut answer, mut inbox) = (Answer::default(), ReceiveBuffer::new());
        let mut reader = ResponseReader::new(to_connect);
        loop {
            let more = self.read(&mut inbox);
            if !reader.has_head() && !may_be_http(inbox.bytes()) {
                return Err(if self.tls.is_none() && cli::wants_tls(inbox.bytes()) {
                    WANTS_TLS.to_owned()
                } else {
                    "what answers here does not speak HTTP/1".to_owned()
                });
            }
            let Answer {
                status,
                place,
                is_page,
                body,
            } = &mut answer;
            let result = reader.read(
                &mut inbox,
                |head| {
                    let value = |name| fields::value(head.headers, name).unwrap_or_default();
                    *status = head.status;
                    *place = phrases::place(value("location"));
                    let mut parts = value("content-type").windows(4);
                    *is_page = parts.any(|part| part.eq_ignore_ascii_case(b"html"));
                },
                |piece| body.extend_from_slice(piece),
            );
            let is_whole = reader.done().is_some() || answer.body.len() > ANSWER_BODY_MAX;
            match (result, more) {
                (Err(cause), _) if !reader.has_head() => return Err(cause.to_owned()),
                (Ok(()), Ok(true)) if !is_whole => {}
                // A final status counts, whatever happens to the rest.
                _ if reader.has_head() => break,
                (_, Err(cause)) => return Err(cause),
                (_, Ok(_)) => return Err("connection closed without an answer".to_owned()),
            }
        }
        if self.tls.is_none() && answer.status == 400 && cli::wants_tls(&answer.body) {
            return Err(WANTS_TLS.to_owned());
        }
        Ok(answer)
    }
}

/// Whether an answer can begin with these bytes.
fn may_be_http(inbox: &[u8]) -> bool {
    inbox.iter().zip(b"HTTP/1.").all(|(is, must)| is == must)
}

/// Writes some of `bytes`, one at least.
fn send(stream: &mut TcpStream, bytes: &[u8], until: Instant) -> Result<usize, &'static str> {
    stream.set_write_timeout(Some(left(until)?)).ok();
    match stream.write(bytes) {
        Ok(0) => Err("connection closed while sending"),
        Ok(written) => Ok(written),
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(words(error.kind())),
    }
}

/// The time left for the attempt, or the timeout error.
pub(super) fn left(until: Instant) -> Result<Duration, &'static str> {
    match until.saturating_duration_since(clock().mono) {
        Duration::ZERO => Err(TIMED_OUT),
        left => Ok(left),
    }
}

/// A system error as text; a socket's own timeout is reported as `WouldBlock`.
const fn words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::WouldBlock => TIMED_OUT,
        kind => error_words(kind),
    }
}
