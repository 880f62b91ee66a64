//! One local client connection: reads requests, writes their bodies into the ring, answers.
//!
//! ```text
//!          ┌────────────── keep-alive ──────────────┐
//!          ▼                                        │
//! ──▶ Head ── head complete ──▶ Body ── complete, answered ──▶ Last ── written ──▶ Linger ──▶ Closed
//!          └── refused, answered ───────────────────────────────▲
//! ```
//!
//! The answer is written as soon as the body is in the ring. In `Last` the final answer is written and no more requests
//! are read. `Linger` has closed its side and discards what still arrives, so that the client sees the answer and not a
//! reset (RFC 9112 section 9.6). There is no other time limit: a client frozen in the middle of its body continues
//! after the thaw.

mod destination;
mod request;

use std::time::{Duration, Instant};

use crate::http1::HEAD_BYTES_MAX;
use crate::http1::body::BodyReader;
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::request::RequestReader;

use super::ring::{PayloadId, Ring};

pub use destination::Context;
use destination::Sink;
pub(super) use destination::session_id;

/// First size of the buffer for heads: it holds every head seen from SDKs, and a small body.
const INBOX_START: usize = 4096;

/// Size of the buffer for discarded bodies.
const DISCARD_BYTES: usize = 16 * 1024;

/// Most bytes read at once of a chunked body: bytes after the body go back to the head buffer.
const CHUNKED_READ_MAX: usize = 64 * 1024;

/// Most bytes of unread answers to a client; beyond it, no more of its requests are read.
const UNREAD_ANSWERS_MAX: usize = 1024;

/// Most bytes discarded after a final answer. Enough to answer 413 to the largest profile seen.
const LINGER_BYTES_MAX: u64 = 256 << 20;

/// Longest wait for the client to close after a final answer.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a new client may take to begin its request before it counts as idle. From connecting to writing takes
/// microseconds, and longer on a busy machine.
pub(super) const NEW_CLIENT_MAX: Duration = Duration::from_millis(250);

/// See the module's documentation.
#[derive(Debug)]
pub struct Inlet {
    state: State,
    inbox: ReceiveBuffer,
    /// Answers, of which `sent` bytes are written.
    answers: Vec<u8>,
    sent: usize,
    /// The client sends no more.
    half_closed: bool,
    /// Whether any byte of it was ever read.
    has_sent_bytes: bool,
    progressed: Instant,
}

#[derive(Debug)]
enum State {
    Head,
    Body {
        sink: Sink,
        reader: RequestReader,
        /// Bytes of body so far.
        taken: u64,
    },
    Last,
    Linger {
        left: u64,
        until: Instant,
    },
    Closed,
}

/// What the owner must do to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// Close our side and continue to read.
    WriteSide,
    /// Close both sides.
    Both,
}

impl Inlet {
    /// An inlet for a new connection.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            state: State::Head,
            inbox: ReceiveBuffer::new(),
            answers: Vec::new(),
            sent: 0,
            half_closed: false,
            has_sent_bytes: false,
            progressed: now,
        }
    }

    /// Whether bytes from the client are wanted.
    #[must_use]
    pub const fn wants(&self) -> bool {
        !self.half_closed
            && !self.has_unread_backlog()
            && !matches!(self.state, State::Last | State::Closed)
    }

    /// Where the next bytes from the client are read to; empty while none are wanted.
    pub fn space<'b>(&'b mut self, ring: &'b mut Ring) -> &'b mut [u8] {
        if let Some((id, most)) = self.slot() {
            match ring.reserve(id) {
                Ok(()) => {
                    let room = ring.room(id);
                    let n = room.len().min(most);
                    return &mut room[..n];
                }
                Err(no) => self.overflow(no, ring),
            }
        }
        match self.state {
            _ if !self.wants() => &mut [],
            State::Head => self.inbox.space(INBOX_START, HEAD_BYTES_MAX),
            State::Body { .. } | State::Linger { .. } => {
                self.inbox.space(DISCARD_BYTES, HEAD_BYTES_MAX)
            }
            State::Last | State::Closed => &mut [],
        }
    }

    /// The payload that the next bytes belong to, if any, and how many are read at once.
    const fn slot(&self) -> Option<(PayloadId, usize)> {
        match &self.state {
            State::Body {
                sink: Sink::Slot(id),
                reader,
                ..
            } if self.wants() => Some((
                *id,
                match reader.body {
                    BodyReader::Chunked(_) => CHUNKED_READ_MAX,
                    _ => usize::MAX,
                },
            )),
            _ => None,
        }
    }

    /// `n` bytes of [`Inlet::space`] have been read.
    pub fn received(&mut self, n: usize, cx: &mut Context) {
        self.has_sent_bytes = true;
        self.progressed = cx.now.mono;
        if let State::Body {
            sink: Sink::Slot(id),
            reader,
            taken,
            ..
        } = &mut self.state
        {
            let room = &mut cx.ring.room(*id)[..n];
            match reader.body.decode(room) {
                Ok(at) => {
                    self.inbox.append(&room[at.used..]);
                    cx.ring.filled(*id, at.body);
                    *taken += at.body as u64;
                }
                Err(bad) => return self.refuse(bad.into(), cx),
            }
        } else {
            self.inbox.received(n);
        }
        self.advance(cx);
    }

    /// The client closed its side, or the connection broke.
    pub fn ended(&mut self, orderly: bool, ring: &mut Ring) {
        self.half_closed = true;
        if !orderly || !self.has_answers() || matches!(self.state, State::Linger { .. }) {
            self.close(ring);
        }
    }

    /// Answers to be written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.answers[self.sent..]
    }

    /// `n` bytes of [`Inlet::pending`] have been written.
    pub fn sent(&mut self, n: usize, cx: &mut Context) {
        self.progressed = cx.now.mono;
        self.sent += n;
        if self.sent == self.answers.len() {
            self.answers.clear();
            self.sent = 0;
            if self.half_closed {
                self.close(cx.ring);
            } else {
                self.advance(cx);
            }
        }
    }

    /// Whether the connection must be closed now, and how.
    pub fn close_due(&mut self, now: Instant) -> Option<Close> {
        match self.state {
            State::Closed => Some(Close::Both),
            State::Last if !self.has_answers() => {
                self.state = State::Linger {
                    left: LINGER_BYTES_MAX,
                    until: now + LINGER_TIME_MAX,
                };
                Some(Close::WriteSide)
            }
            _ => None,
        }
    }

    /// Ends the wait for the client to close.
    pub fn expire(&mut self, now: Instant) {
        if self.deadline().is_some_and(|at| at <= now) {
            self.state = State::Closed;
        }
    }

    /// When [`Inlet::expire`] has work.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Linger { until, .. } => Some(until),
            _ => None,
        }
    }

    /// Frozen time does not count.
    pub fn thawed(&mut self, frozen: Duration) {
        if let State::Linger { until, .. } = &mut self.state {
            *until += frozen;
        }
        self.progressed += frozen;
    }

    /// Closes the connection, to make room for another one.
    pub fn close(&mut self, ring: &mut Ring) {
        if let State::Body { sink, .. } = self.state {
            ring.broke_off();
            if let Sink::Slot(id) = sink {
                ring.abandon(id);
            }
        }
        self.state = State::Closed;
    }

    /// When the client last made progress.
    #[must_use]
    pub const fn progressed(&self) -> Instant {
        self.progressed
    }

    /// Whether a request is being read or an answer is being written.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self.state, State::Body { .. }) || self.has_answers() || !self.inbox.is_empty()
    }

    /// Whether a request has begun and is not complete.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        match self.state {
            State::Body { .. } => !self.half_closed,
            State::Head => !self.half_closed && !self.inbox.is_empty(),
            State::Last | State::Linger { .. } | State::Closed => false,
        }
    }

    /// Whether the client has just connected and sent nothing yet: its request is on its way.
    #[must_use]
    pub fn is_new(&self, now: Instant) -> bool {
        self.new_until().is_some_and(|until| now < until)
    }

    /// Until when [`Inlet::is_new`] holds, if nothing is read.
    #[must_use]
    pub fn new_until(&self) -> Option<Instant> {
        let is_silent =
            !self.has_sent_bytes && !self.half_closed && matches!(self.state, State::Head);
        is_silent.then(|| self.progressed + NEW_CLIENT_MAX)
    }

    const fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether the client reads its answers too slowly to get more.
    const fn has_unread_backlog(&self) -> bool {
        self.answers.len() > UNREAD_ANSWERS_MAX
    }
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests;
