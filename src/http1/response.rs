//! Reading one whole answer: interim responses skipped, head parsed, body drained.
//!
//! ```text
//! Head ──1xx──▶ Head ──final──▶ Body ──▶ Done
//! ```

use super::body::BodyReader;
use super::head::{self, Response};
use super::{HEAD_BYTES_MAX, header_slots};

/// Most interim (1xx) responses before the final one. Go's client stops at 5.
const INTERIM_MAX: u8 = 8;

/// Reads the answer to one request. The bytes stay the caller's.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    to_head_request: bool,
    interim: u8,
    searched: usize,
}

#[derive(Debug)]
enum State {
    Head,
    Body { body: BodyReader, keep_alive: bool },
    Done { keep_alive: bool },
}

/// What [`ResponseReader::advance`] made of the bytes it was given.
#[derive(Debug, PartialEq, Eq)]
pub struct Advanced {
    /// So many bytes from the front were used up.
    pub used: usize,
    /// So many of them, from the front, are the body's now.
    pub body: usize,
}

impl ResponseReader {
    /// A reader for the answer to a request; whether that was a HEAD decides about the body.
    #[must_use]
    pub const fn new(to_head_request: bool) -> Self {
        Self {
            state: State::Head,
            to_head_request,
            interim: 0,
            searched: 0,
        }
    }

    /// Whether the final head has been read.
    #[must_use]
    pub const fn has_head(&self) -> bool {
        !matches!(self.state, State::Head)
    }

    /// Whether the whole answer has been read, and if so, whether the connection may be used again.
    #[must_use]
    pub const fn done(&self) -> Option<bool> {
        match self.state {
            State::Done { keep_alive } => Some(keep_alive),
            _ => None,
        }
    }

    /// Reads on. A final head is shown to `on_head` once; body bytes end up at the front of `bytes`.
    ///
    /// Returns after a head or a piece of body; call again while bytes are used and the answer is not done.
    ///
    /// # Errors
    /// What is wrong with the answer, in words.
    pub fn advance(
        &mut self,
        bytes: &mut [u8],
        on_head: impl FnOnce(&Response),
    ) -> Result<Advanced, &'static str> {
        match &mut self.state {
            State::Done { .. } => Ok(Advanced { used: 0, body: 0 }),
            State::Head => {
                let used = self.read_head(bytes, on_head)?;
                Ok(Advanced { used, body: 0 })
            }
            State::Body { body, keep_alive } => {
                let decoded = body
                    .decode(bytes)
                    .map_err(|_| "malformed chunk in the answer")?;
                if body.is_done() {
                    self.state = State::Done {
                        keep_alive: *keep_alive,
                    };
                }
                Ok(Advanced {
                    used: decoded.used,
                    body: decoded.body,
                })
            }
        }
    }

    /// Whether the answer is whole if the peer closes now.
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

    fn read_head(
        &mut self,
        bytes: &[u8],
        on_head: impl FnOnce(&Response),
    ) -> Result<usize, &'static str> {
        let Some(end) = head::end(bytes, &mut self.searched) else {
            return if bytes.len() < HEAD_BYTES_MAX {
                Ok(0)
            } else {
                Err("the answer's head is too long")
            };
        };
        self.searched = 0;
        let mut slots = header_slots();
        let response = head::response(&bytes[..end], &mut slots)?;
        match response.status {
            // We never ask for an upgrade, so nobody may switch protocols on us.
            101 => return Err("the answer switches protocols"),
            100..=199 => {
                self.interim += 1;
                return if self.interim <= INTERIM_MAX {
                    Ok(end)
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
        Ok(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Status, body, and whether the connection may be used again once the answer is whole.
    type Read = (Option<u16>, Vec<u8>, Option<bool>);

    /// Reads `wire` in pieces of `step`; the statuses seen, the body, and how it ended.
    fn read(wire: &[u8], step: usize) -> Result<Read, &'static str> {
        let mut reader = ResponseReader::new(false);
        let (mut status, mut body, mut inbox) = (None, Vec::new(), Vec::new());
        for piece in wire.chunks(step) {
            inbox.extend_from_slice(piece);
            loop {
                let at = reader.advance(&mut inbox, |head| status = Some(head.status))?;
                body.extend_from_slice(&inbox[..at.body]);
                inbox.drain(..at.used);
                if at.used == 0 || reader.done().is_some() {
                    break;
                }
            }
        }
        Ok((status, body, reader.done()))
    }

    #[test]
    fn answers_at_any_cut() {
        let cases: [(&[u8], u16, &[u8], bool); 5] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello", true),
            (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", true),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, b"", true),
            (b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n", 500, b"ab", true),
            (b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", 503, b"x", false),
        ];
        for (wire, status, body, keep_alive) in cases {
            for step in 1..=wire.len() {
                assert_eq!(
                    read(wire, step),
                    Ok((Some(status), body.to_vec(), Some(keep_alive))),
                    "step {step}"
                );
            }
        }
    }

    #[test]
    fn until_close() {
        let mut reader = ResponseReader::new(false);
        let mut wire = *b"HTTP/1.1 200 OK\r\n\r\nabc";
        let used = reader.advance(&mut wire, |_| ()).unwrap().used;
        assert_eq!(
            reader.advance(&mut wire[used..], |_| ()),
            Ok(Advanced { used: 3, body: 3 })
        );
        assert_eq!(reader.done(), None);
        assert!(reader.is_whole_at_close());
        assert!(!ResponseReader::new(false).is_whole_at_close());
    }

    #[test]
    fn refused() {
        for wire in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 101 Switching\r\n\r\n",
            "HTTP/1.1 999 X\r\n\r\n",
        ] {
            assert!(read(wire.as_bytes(), wire.len()).is_err(), "{wire:?}");
            assert!(read(wire.as_bytes(), 1).is_err(), "{wire:?} bytewise");
        }
        assert!(read("HTTP/1.1 100 C\r\n\r\n".repeat(9).as_bytes(), 7).is_err());
        assert!(read(&vec![b'x'; HEAD_BYTES_MAX], HEAD_BYTES_MAX).is_err());
    }
}
