//! One connection on which Lambda delivers telemetry: reads batches and answers each.
//!
//! ```text
//!      ┌────── keep-alive ──────┐
//!      ▼                        │
//! ──▶ Head ──▶ Body ── whole, answered ──▶ Last ── written ──▶ closed
//!      └── refused, answered ────────────────▲
//! ```

use crate::http1::body::BodyReader;
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::head::{Framing, Request};
use crate::http1::refusal::Refusal;
use crate::http1::request::RequestReader;
use crate::http1::{HEAD_BYTES_MAX, write};

/// First size of the buffer: the platform events of one invocation take about 1 KB.
const INBOX_START: usize = 2048;

/// Largest batch accepted. AWS says to expect twice the subscription's `maxBytes` of 256 KiB, and metadata.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    state: State,
    inbox: ReceiveBuffer,
    /// The part of the batch that has arrived.
    batch: Vec<u8>,
    answers: Vec<u8>,
    sent: usize,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    Body(RequestReader),
    Last,
}

impl Delivery {
    /// Whether bytes are wanted: not after the last answer.
    pub(super) const fn wants(&self) -> bool {
        self.answers.is_empty() && !matches!(self.state, State::Last)
    }

    /// Where the next bytes are read to.
    pub(super) fn space(&mut self) -> &mut [u8] {
        if !self.wants() {
            return &mut [];
        }
        self.inbox.space(INBOX_START, HEAD_BYTES_MAX)
    }

    /// `n` bytes of [`Delivery::space`] have been read. Each complete batch is passed to `take`.
    ///
    /// # Errors
    /// What is wrong with the received bytes, as text. They have been refused.
    pub(super) fn received(
        &mut self,
        n: usize,
        mut take: impl FnMut(&str) -> Result<(), Refusal>,
    ) -> Result<(), &'static str> {
        self.inbox.received(n);
        loop {
            let before = self.inbox.len();
            match self.advance(&mut take) {
                Ok(goes_on) if goes_on || self.inbox.len() < before => {}
                Ok(_) => return Ok(()),
                Err(refusal) => {
                    write::reply(&mut self.answers, refusal.status(), false, false);
                    self.state = State::Last;
                    self.inbox.clear();
                    return Err(refusal.reason());
                }
            }
        }
    }

    /// Answers to be written.
    pub(super) fn pending(&self) -> &[u8] {
        &self.answers[self.sent..]
    }

    /// `n` bytes of [`Delivery::pending`] have been written. Returns whether the connection must be closed.
    pub(super) fn sent(&mut self, n: usize) -> bool {
        self.sent += n;
        if self.sent == self.answers.len() {
            self.answers.clear();
            self.sent = 0;
        }
        self.answers.is_empty() && matches!(self.state, State::Last)
    }

    /// Reads a head, or a piece of a batch. Returns whether it is complete.
    fn advance(
        &mut self,
        take: &mut impl FnMut(&str) -> Result<(), Refusal>,
    ) -> Result<bool, Refusal> {
        match &mut self.state {
            State::Head => {
                let Some((reader, ())) =
                    RequestReader::begin(&mut self.inbox, &mut self.answers, accept)?
                else {
                    return Ok(false);
                };
                self.state = State::Body(reader);
            }
            State::Body(reader) => {
                let at = reader.body.decode(self.inbox.bytes_mut())?;
                if self.batch.len() + at.body > BATCH_BYTES_MAX {
                    return Err(Refusal::BatchTooLarge);
                }
                self.batch.extend_from_slice(&self.inbox.bytes()[..at.body]);
                self.inbox.consume(at.used);
                if !reader.body.is_done() {
                    return Ok(false);
                }
                let batch = std::mem::take(&mut self.batch);
                take(&String::from_utf8_lossy(&batch))?;
                self.state = if reader.acknowledge(&mut self.answers) {
                    State::Head
                } else {
                    State::Last
                };
            }
            State::Last => {
                self.inbox.clear();
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Refuses what is no batch.
fn accept(request: &Request, framing: &Framing) -> Result<(), Refusal> {
    if request.method != "POST" {
        return Err(Refusal::NotPost);
    }
    if matches!(framing.body, BodyReader::Length(length) if length > BATCH_BYTES_MAX as u64) {
        return Err(Refusal::BatchTooLarge);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    /// A delivery, and its result.
    #[derive(Default)]
    struct Bench {
        delivery: Delivery,
        batches: Vec<String>,
        errors: Vec<&'static str>,
    }

    impl Bench {
        /// Receives as much as is wanted, at most `step` bytes at a time. Returns how much that was.
        fn come(&mut self, bytes: &[u8], step: usize) -> usize {
            let mut taken = 0;
            while taken < bytes.len() {
                let space = self.delivery.space();
                let n = space.len().min(bytes.len() - taken).min(step);
                if n == 0 {
                    break;
                }
                space[..n].copy_from_slice(&bytes[taken..taken + n]);
                taken += n;
                let batches = &mut self.batches;
                let result = self.delivery.received(n, |batch| {
                    batches.push(batch.to_owned());
                    if batch == "bad" {
                        Err(Refusal::NotABatch)
                    } else {
                        Ok(())
                    }
                });
                self.errors.extend(result.err());
            }
            taken
        }

        /// The written answers, and whether the connection must be closed after them.
        fn written(&mut self) -> (String, bool) {
            let bytes = self.delivery.pending().to_vec();
            let closed = self.delivery.sent(bytes.len());
            (String::from_utf8(bytes).unwrap(), closed)
        }
    }

    fn post(fields: &str, body: &str) -> Vec<u8> {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {length}\r\n\r\n{body}")
            .into()
    }

    fn chunked(body: &str) -> Vec<u8> {
        let length = body.len();
        format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
            .into()
    }

    #[test]
    fn one_batch_after_the_other_is_taken_and_answered() {
        for step in [1, 7, usize::MAX] {
            let mut bench = Bench::default();
            for bytes in [post("", "[1]"), chunked("[2]"), post("", "[3]")] {
                assert!(bench.delivery.wants());
                assert_eq!(bench.come(&bytes, step), bytes.len());
                assert!(!bench.delivery.wants(), "the answer first");
                assert!(bench.delivery.space().is_empty());
                assert_eq!(bench.written(), (OK.to_owned(), false));
            }
            assert_eq!(bench.batches, ["[1]", "[2]", "[3]"]);
            assert!(bench.errors.is_empty());
        }
    }

    #[test]
    fn batches_that_come_together_are_taken_together() {
        let mut bench = Bench::default();
        let bytes = [post("", "[1]"), chunked("[2]"), post("", "[3]")].concat();
        assert_eq!(bench.come(&bytes, usize::MAX), bytes.len());
        assert_eq!(bench.batches, ["[1]", "[2]", "[3]"]);
        assert!(!bench.delivery.sent(OK.len()), "two answers are left");
        assert_eq!(bench.written(), (OK.repeat(2), false));
    }

    #[test]
    fn a_connection_that_lambda_ends_is_closed_after_its_answer() {
        let mut bench = Bench::default();
        bench.come(&post("Connection: close\r\n", "[1]"), usize::MAX);
        let (answer, closed) = bench.written();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(closed);
        assert!(!bench.delivery.wants(), "nothing more is wanted");
    }

    #[test]
    fn lambda_may_ask_whether_to_go_on() {
        let mut bench = Bench::default();
        let bytes = post("Expect: 100-continue\r\n", "[1]");
        let (head, body) = bytes.split_at(bytes.len() - 3);
        bench.come(head, usize::MAX);
        let (answer, closed) = bench.written();
        assert_eq!((answer.as_bytes(), closed), (write::CONTINUE, false));
        bench.come(body, usize::MAX);
        assert_eq!(bench.written(), (OK.to_owned(), false));
    }

    #[test]
    fn what_is_no_batch_is_refused_and_the_connection_closed() {
        let long_head = format!("POST / HTTP/1.1\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
        let too_large = "x".repeat(BATCH_BYTES_MAX + 1);
        let announced = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
            BATCH_BYTES_MAX + 1
        );
        let bad_chunk = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n";
        for (bytes, status, why) in [
            (post("", "bad"), 400, "not a batch of events"),
            (
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
                405,
                "telemetry comes by POST",
            ),
            (long_head.into(), 431, "the head is too long"),
            (announced.into(), 413, "the batch is too large"),
            (chunked(&too_large), 413, "the batch is too large"),
            (bad_chunk.into(), 400, "malformed chunk"),
        ] {
            let mut bench = Bench::default();
            bench.come(&bytes, usize::MAX);
            assert_eq!(bench.errors, [why]);
            assert!(!bench.delivery.wants());
            let (answer, closed) = bench.written();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(closed, "{why}");
            assert!(!bench.delivery.wants(), "{why}: nothing more is wanted");
        }
    }

    #[test]
    fn the_largest_batch_is_taken() {
        let largest = "x".repeat(BATCH_BYTES_MAX);
        for bytes in [post("", &largest), chunked(&largest)] {
            let mut bench = Bench::default();
            assert_eq!(bench.come(&bytes, usize::MAX), bytes.len());
            assert_eq!(bench.batches.len(), 1, "{:?}", bench.errors);
            assert_eq!(bench.batches[0].len(), BATCH_BYTES_MAX);
        }
    }
}
