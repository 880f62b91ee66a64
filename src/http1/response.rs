//! Reads one whole answer: skips interim responses, parses the head, reads the body.
//!
//! ```text
//! Head ──1xx──▶ Head ──final──▶ Body ──▶ Done
//! ```

use super::body::BodyReader;
use super::buffer::ReceiveBuffer;
use super::head::{self, Response};
use super::{HEAD_BYTES_MAX, header_slots};

/// Most interim (1xx) responses before the final one. Go's client stops at 5.
const INTERIM_MAX: u8 = 8;

/// Reads the answer to one request. The bytes stay in the caller's buffer.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    to_head_request: bool,
    interim: u8,
}

#[derive(Debug)]
enum State {
    Head,
    Body { body: BodyReader, keep_alive: bool },
    Done { keep_alive: bool },
}

impl ResponseReader {
    /// A reader for the answer to a request; an answer to HEAD has no body.
    #[must_use]
    pub const fn new(to_head_request: bool) -> Self {
        Self {
            state: State::Head,
            to_head_request,
            interim: 0,
        }
    }

    /// Whether the final head has been read.
    #[must_use]
    pub const fn has_head(&self) -> bool {
        !matches!(self.state, State::Head)
    }

    /// Whether the whole answer has been read, and if so, whether the connection may be reused.
    #[must_use]
    pub const fn done(&self) -> Option<bool> {
        match self.state {
            State::Done { keep_alive } => Some(keep_alive),
            _ => None,
        }
    }

    /// Reads `inbox` as far as possible. The final head is passed to `on_head` once, the body to `on_body` in pieces.
    ///
    /// Bytes after the answer stay in `inbox`. What was passed on before an error was well-formed and remains valid.
    ///
    /// # Errors
    /// What is wrong with the answer, as text.
    pub fn read(
        &mut self,
        inbox: &mut ReceiveBuffer,
        mut on_head: impl FnMut(&Response),
        mut on_body: impl FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        self.read_any(inbox, &mut on_head, &mut on_body)
    }

    /// The same without generics, so that it is compiled once.
    fn read_any(
        &mut self,
        inbox: &mut ReceiveBuffer,
        on_head: &mut dyn FnMut(&Response),
        on_body: &mut dyn FnMut(&[u8]),
    ) -> Result<(), &'static str> {
        while !inbox.is_empty() {
            match &mut self.state {
                State::Done { .. } => break,
                State::Head => {
                    let Some(len) = inbox.head_end() else {
                        return if inbox.is_full(HEAD_BYTES_MAX) {
                            Err("the answer's head is too long")
                        } else {
                            Ok(())
                        };
                    };
                    self.read_head(&inbox.bytes()[..len], on_head)?;
                    inbox.consume(len);
                }
                State::Body { body, keep_alive } => {
                    let decoded = body.decode(inbox.bytes_mut());
                    let at = decoded.map_err(|_| "malformed chunk in the answer")?;
                    if body.is_done() {
                        self.state = State::Done {
                            keep_alive: *keep_alive,
                        };
                    }
                    on_body(&inbox.bytes()[..at.body]);
                    inbox.consume(at.used);
                }
            }
        }
        Ok(())
    }

    /// Whether the answer is complete if the peer closes now.
    #[must_use]
    pub const fn is_whole_at_close(&self) -> bool {
        matches!(
            self.state,
            State::Body {
                body: BodyReader::UntilClose,
                ..
            } | State::Done { .. }
        )
    }

    /// Reads a whole head, interim or final.
    fn read_head(
        &mut self,
        head: &[u8],
        on_head: &mut dyn FnMut(&Response),
    ) -> Result<(), &'static str> {
        let mut slots = header_slots();
        let response = head::response(head, &mut slots)?;
        match response.status {
            // We never ask for an upgrade, so the peer may not switch protocols.
            101 => return Err("the answer switches protocols"),
            100..=199 => {
                self.interim += 1;
                return if self.interim <= INTERIM_MAX {
                    Ok(())
                } else {
                    Err("too many interim responses")
                };
            }
            200..=599 => {}
            _ => return Err("the answer's status is out of range"),
        }
        let (body, keep_alive) = response.framing(self.to_head_request)?;
        on_head(&response);
        self.state = if body.is_done() {
            State::Done { keep_alive }
        } else {
            State::Body { body, keep_alive }
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The result of reading an answer.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        statuses: Vec<u16>,
        body: Vec<u8>,
        /// Whether it was complete, and then whether the connection may be reused.
        done: Option<bool>,
        /// The bytes that were not used.
        rest: Vec<u8>,
        error: Option<&'static str>,
    }

    /// Reads `wire` in pieces of these lengths; the last length repeats.
    fn read(wire: &[u8], cut: &[usize]) -> Read {
        let (mut reader, mut inbox, mut seen) = (
            ResponseReader::new(false),
            ReceiveBuffer::new(),
            Read::default(),
        );
        let (mut rest, mut cut) = (wire, cut.iter());
        let mut size = wire.len();
        while !rest.is_empty() && seen.error.is_none() {
            size = *cut.next().unwrap_or(&size);
            let (piece, later) = rest.split_at(size.min(rest.len()));
            inbox.append(piece);
            rest = later;
            let (statuses, body) = (&mut seen.statuses, &mut seen.body);
            let result = reader.read(
                &mut inbox,
                |head| statuses.push(head.status),
                |piece| body.extend_from_slice(piece),
            );
            seen.error = result.err();
            assert_eq!(reader.has_head(), !seen.statuses.is_empty());
        }
        seen.done = reader.done();
        if seen.error.is_none() {
            seen.rest = [inbox.bytes(), rest].concat();
        }
        seen
    }

    /// Reads it whole, cut in two at every point, and in pieces of every size: the result is the same each time.
    fn read_at_every_cut(wire: &[u8]) -> Read {
        let whole = read(wire, &[]);
        for cut in 1..=wire.len() {
            let name = || format!("{:?} cut at {cut}", wire.escape_ascii());
            assert_eq!(read(wire, &[cut, wire.len()]), whole, "{}", name());
            assert_eq!(read(wire, &[cut]), whole, "{} again and again", name());
        }
        whole
    }

    #[test]
    fn answers_at_any_cut() {
        let cases: [(&[u8], u16, &[u8], bool); 6] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", true),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", true),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", true),
            (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 500, b"ab", true),
            (b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 503, b"x", false),
            (b"HTTP/1.1 202 OK\r\nOdd line\r\n\r\n", 202, b"", false),
        ];
        for (wire, status, body, keep_alive) in cases {
            for rest in [&b""[..], b"HTTP/1.1 200 OK\r\n\r\n"] {
                let expected = Read {
                    statuses: vec![status],
                    body: body.to_vec(),
                    done: Some(keep_alive),
                    rest: rest.to_vec(),
                    error: None,
                };
                assert_eq!(read_at_every_cut(&[wire, rest].concat()), expected);
            }
        }
    }

    #[test]
    fn a_final_head_holds_whatever_comes_after_it() {
        for garbage in ["x\r\n", "1\r\naX", "1\r\na\r\nzz", "0\r\n\n", "\0"] {
            for (line, status) in [("HTTP/1.1 200 OK", 200), ("HTTP/1.1 400 Bad", 400)] {
                let wire = format!("{line}\r\nTransfer-Encoding: chunked\r\n\r\n{garbage}");
                let seen = read(wire.as_bytes(), &[]);
                assert_eq!(seen.statuses, [status], "{garbage:?}");
                assert_eq!(seen.error, Some("malformed chunk in the answer"));
                assert_eq!(seen.done, None);
                for cut in 1..wire.len() {
                    let seen = read(wire.as_bytes(), &[cut]);
                    assert_eq!((&seen.statuses[..], seen.done), (&[status][..], None));
                }
            }
        }
    }

    #[test]
    fn until_close() {
        let (mut reader, mut inbox) = (ResponseReader::new(false), ReceiveBuffer::new());
        assert!(!reader.is_whole_at_close());
        inbox.append(b"HTTP/1.1 200 OK\r\n\r\nabc");
        let mut body = Vec::new();
        let result = reader.read(&mut inbox, |_| (), |piece| body.extend_from_slice(piece));
        assert_eq!((result, &body[..]), (Ok(()), &b"abc"[..]));
        assert_eq!(reader.done(), None);
        assert!(reader.is_whole_at_close());
    }

    #[test]
    fn refused() {
        for wire in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 999 X\r\n\r\n",
            "HTTP/1.1 500 X\r\nOdd line\r\n\r\n",
            "HTTP/1.1 200 X\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            &"HTTP/1.1 100 C\r\n\r\n".repeat(9),
        ] {
            let seen = read_at_every_cut(wire.as_bytes());
            assert!(seen.error.is_some() && seen.statuses.is_empty(), "{wire:?}");
        }
        let endless = read(&vec![b'x'; HEAD_BYTES_MAX], &[1000]);
        assert_eq!(endless.error, Some("the answer's head is too long"));
    }
}
