//! Reads requests, one after another: the head, then the body.
//!
//! ```text
//! begin ── head complete ──▶ body ── complete ──▶ acknowledge ── keep-alive ──▶ begin
//! ```

use super::body::BodyReader;
use super::buffer::ReceiveBuffer;
use super::head::{self, Framing, Request};
use super::refusal::Refusal;
use super::{HEAD_BYTES_MAX, header_slots, write};

/// A request whose head was read. The bytes stay in the caller's buffer.
#[derive(Debug)]
pub struct RequestReader {
    /// The rest of the body.
    pub body: BodyReader,
    keep_alive: bool,
    http10: bool,
}

impl RequestReader {
    /// Reads the head at the start of `inbox` and passes it to `accept`, whose result is returned too. `None` if the
    /// head is not complete yet.
    ///
    /// Bytes after the head stay in `inbox`. If the client waits for it, 100 is written to `answers`.
    ///
    /// # Errors
    /// Why the request is refused: by RFC 9112, by one of our limits, or by `accept`.
    pub fn begin<T>(
        inbox: &mut ReceiveBuffer,
        answers: &mut Vec<u8>,
        accept: impl FnOnce(&Request, &Framing) -> Result<T, Refusal>,
    ) -> Result<Option<(Self, T)>, Refusal> {
        // After most requests there is nothing more.
        if inbox.is_empty() {
            return Ok(None);
        }
        let Some(len) = head_len(inbox)? else {
            return Ok(None);
        };
        let mut slots = header_slots();
        let request = head::request(&inbox.bytes()[..len], &mut slots)?;
        let framing = request.framing()?;
        let accepted = accept(&request, &framing)?;
        let reader = Self {
            body: framing.body,
            keep_alive: framing.keep_alive,
            http10: request.http10,
        };
        // A client that has begun its body no longer waits for it.
        if framing.expects_continue && len == inbox.len() {
            answers.extend_from_slice(write::CONTINUE);
        }
        inbox.consume(len);
        Ok(Some((reader, accepted)))
    }

    /// Writes the answer 200. Returns whether another request may follow.
    pub fn acknowledge(&self, answers: &mut Vec<u8>) -> bool {
        write::reply(answers, 200, self.keep_alive, self.http10);
        self.keep_alive
    }
}

/// The length of the head at the start of `inbox`, after empty lines, which are skipped. `None` if it is not complete.
fn head_len(inbox: &mut ReceiveBuffer) -> Result<Option<usize>, Refusal> {
    if inbox.bytes().first() == Some(&b'\r') {
        inbox.consume(head::leading_blank(inbox.bytes()));
    }
    match inbox.bytes() {
        // Perhaps half of an empty line.
        [] | [b'\r'] => return Ok(None),
        [first, ..] if !head::begins_request(*first) => return Err(Refusal::NotHttp),
        _ => {}
    }
    if let Some(len) = inbox.head_end() {
        Ok(Some(len))
    } else if !inbox.is_full(HEAD_BYTES_MAX) {
        Ok(None)
    } else if inbox.bytes().contains(&b'\n') {
        Err(Refusal::HeadTooLong)
    } else {
        Err(Refusal::LineTooLong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The requests in some bytes, and the answers to them.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Seen {
        targets: Vec<String>,
        bodies: Vec<Vec<u8>>,
        answers: String,
        refusal: Option<Refusal>,
    }

    /// Reads `wire`, cut into pieces of that size. An answer ends the connection if it says so.
    fn read(wire: &[u8], size: usize) -> Seen {
        let (mut inbox, mut answers, mut seen) =
            (ReceiveBuffer::new(), Vec::new(), Seen::default());
        let mut current: Option<RequestReader> = None;
        for piece in wire.chunks(size) {
            inbox.append(piece);
            loop {
                if let Some(reader) = &mut current {
                    let decoded = reader.body.decode(inbox.bytes_mut());
                    let at = match decoded.map_err(Refusal::from) {
                        Ok(at) => at,
                        Err(refusal) => return refused(seen, refusal, &answers),
                    };
                    let body = seen.bodies.last_mut().unwrap();
                    body.extend_from_slice(&inbox.bytes()[..at.body]);
                    inbox.consume(at.used);
                    if !reader.body.is_done() {
                        break;
                    }
                    if !reader.acknowledge(&mut answers) {
                        seen.answers = String::from_utf8(answers).unwrap();
                        return seen;
                    }
                    current = None;
                }
                let begun = RequestReader::begin(&mut inbox, &mut answers, |request, _| {
                    if request.target == "/no" {
                        return Err(Refusal::LargerThanRing);
                    }
                    Ok(request.target.to_owned())
                });
                match begun {
                    Ok(None) => break,
                    Ok(Some((reader, target))) => {
                        seen.targets.push(target);
                        seen.bodies.push(Vec::new());
                        current = Some(reader);
                    }
                    Err(refusal) => return refused(seen, refusal, &answers),
                }
            }
        }
        seen.answers = String::from_utf8(answers).unwrap();
        seen
    }

    fn refused(mut seen: Seen, refusal: Refusal, answers: &[u8]) -> Seen {
        seen.refusal = Some(refusal);
        seen.answers = String::from_utf8(answers.to_vec()).unwrap();
        seen
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    #[test]
    fn requests_come_out_one_after_the_other_whatever_the_cuts() {
        let wire = b"\r\n\r\nPOST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc\r\n\
            POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n\
            GET /c HTTP/1.1\r\nHost: h\r\n\r\n\
            POST /d HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\ng\
            POST /e HTTP/1.0\r\n\r\nPOST /f HTTP/1.1\r\nHost: h\r\n\r\n";
        for size in 1..=wire.len() {
            let seen = read(wire, size);
            assert_eq!(seen.targets, ["/a", "/b", "/c", "/d", "/e"], "{size}");
            let bodies: [&[u8]; 5] = [b"abc", b"def", b"", b"g", b""];
            assert_eq!(seen.bodies, bodies, "{size}");
            let kept = OK.replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n");
            let last = OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
            assert_eq!(seen.answers, [&OK.repeat(3), &*kept, &*last].concat());
        }
    }

    #[test]
    fn only_a_client_that_has_not_begun_its_body_is_asked_to_go_on() {
        let head =
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        let wire = [head, "ab"].concat();
        let go_on = str::from_utf8(write::CONTINUE).unwrap();
        for (size, answers) in [
            (wire.len(), OK.to_owned()),
            (head.len() + 1, OK.to_owned()),
            (head.len(), [go_on, OK].concat()),
            (1, [go_on, OK].concat()),
        ] {
            assert_eq!(read(wire.as_bytes(), size).answers, answers, "{size}");
        }
    }

    #[test]
    fn what_cannot_be_read_or_is_not_accepted_is_refused_at_every_cut() {
        let line = "GET /".to_owned() + &"a".repeat(HEAD_BYTES_MAX);
        let field = "GET / HTTP/1.1\r\nX: ".to_owned() + &"a".repeat(HEAD_BYTES_MAX);
        let chunked = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx";
        for (wire, refusal) in [
            ("\0", Refusal::NotHttp),
            ("\r\rG", Refusal::NotHttp),
            ("\r\n\n", Refusal::NotHttp),
            ("GET / HTTP/1.1\r\n\r\n", Refusal::NeedsOneHost),
            ("GET / HTTP/2.0\r\n\r\n", Refusal::NotHttp1),
            (
                "GET /no HTTP/1.1\r\nHost: h\r\n\r\n",
                Refusal::LargerThanRing,
            ),
            (&line, Refusal::LineTooLong),
            (&field, Refusal::HeadTooLong),
            (chunked, Refusal::MalformedChunk),
        ] {
            let sizes = if wire.len() < 1000 {
                1..=wire.len()
            } else {
                1000..=1001
            };
            for size in sizes {
                let seen = read(wire.as_bytes(), size);
                let start = &wire[..wire.len().min(40)];
                assert_eq!(seen.refusal, Some(refusal), "{start:?}, {size}");
                assert_eq!(seen.answers, "");
            }
        }
        let longest = HEAD_BYTES_MAX - "GET / HTTP/1.1\r\nHost: h\r\nX: \r\n\r\n".len();
        let field = "a".repeat(longest);
        let wire = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {field}\r\n\r\n");
        assert_eq!(read(wire.as_bytes(), usize::MAX).answers, OK, "the longest");
    }
}
