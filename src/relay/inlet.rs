//! One local client connection: takes requests, puts their bodies into the ring, answers.
//!
//! ```text
//!          ┌────────────── keep-alive ──────────────┐
//!          ▼                                        │
//! ──▶ Head ── head complete ──▶ Body ── complete, answered ──▶ Last ── written ──▶ Linger ──▶ Closed
//!          └── refused, answered ───────────────────────────────▲
//! ```
//!
//! The answer is written as soon as the body is in the ring. `Last` is an answer behind which nothing more is
//! read as a request; `Linger` has closed its side and throws away what still comes, so that the client sees
//! the answer and not a reset (RFC 9112 section 9.6). There is no other time limit here: a client frozen in the
//! middle of its body goes on after the thaw.

use std::time::{Duration, Instant};

use crate::config::{Labels, Remote, Share};
use crate::contract::Now;
use crate::http1::body::BodyReader;
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::head::{self, Framing, Refusal, Request};
use crate::http1::{HEAD_BYTES_MAX, header_slots, write};
use crate::log::{Level, Log};
use crate::times::{Stamp, Thaw, Upload};

use super::forward::{self, Added};
use super::report::Limit;
use super::ring::{LeftOut, Loss, NoSpace, PayloadId, Ring, Shape};

/// First size of the buffer for heads: all heads seen from SDKs fit, and a small body with them.
const INBOX_START: usize = 4096;

/// Size of the buffer a body is thrown away through.
const DISCARD_BYTES: usize = 16 * 1024;

/// Most bytes read at once of a chunked body: what stands behind it goes back to the head's buffer.
const CHUNKED_READ_MAX: usize = 64 * 1024;

/// Most bytes of answers that wait for a client to read them; then no more of its requests are read.
const UNREAD_ANSWERS_MAX: usize = 1024;

/// Most bytes thrown away behind a last answer. Enough for the largest profile seen to be answered with 413.
const LINGER_BYTES_MAX: u64 = 256 << 20;

/// Longest wait for the client to close behind a last answer.
const LINGER_TIME_MAX: Duration = Duration::from_secs(5);

/// See the module's documentation.
#[derive(Debug)]
pub struct Inlet {
    state: State,
    inbox: ReceiveBuffer,
    /// Answers, of which `sent` bytes are written.
    answers: Vec<u8>,
    sent: usize,
    /// The client will send no more.
    half_closed: bool,
    /// Whether a byte of it was ever read.
    was_heard: bool,
    progressed: Instant,
}

#[derive(Debug)]
enum State {
    Head,
    Body {
        sink: Sink,
        reader: BodyReader,
        /// Bytes of body so far.
        taken: u64,
        keep_alive: bool,
        http10: bool,
    },
    Last,
    Linger {
        left: u64,
        until: Instant,
    },
    Closed,
}

/// Where a body goes.
#[derive(Debug, Clone, Copy)]
enum Sink {
    Slot(PayloadId),
    /// Read to its end, acknowledged and lost.
    Discard(Loss),
    /// Read to its end, acknowledged and not sent.
    LeaveOut(LeftOut),
}

/// What an inlet needs from its owner.
#[derive(Debug)]
pub struct Context<'r> {
    /// Where bodies go.
    pub ring: &'r mut Ring,
    /// Where requests go; `None` if the address is unusable.
    pub remote: Option<&'r Remote>,
    /// The sandbox's session id, drawn when it is first needed.
    pub session: &'r mut Option<u64>,
    /// Randomness for the session id.
    pub entropy: fn() -> u64,
    /// The share of profiles to keep.
    pub sample: Share,
    /// Labels that every profile gets.
    pub labels: &'r Labels,
    /// Whether profiles get unique times.
    pub unique_times: bool,
    /// The last freeze.
    pub thaw: Option<Thaw>,
    /// The target of the last upload that covers no time.
    pub last_empty: &'r mut String,
    /// Reused room for outgoing heads.
    pub head: &'r mut Vec<u8>,
    /// Cleared when we are gone: what is read then is no longer answered.
    pub taking: bool,
    /// How often refusals are told.
    pub refusals: &'r mut Limit,
    /// Where to log.
    pub log: &'r mut Log,
    /// The time.
    pub now: Now,
}

/// What the owner should do to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hang {
    /// Close our side, go on reading.
    Half,
    /// Close it.
    Up,
}

impl Inlet {
    /// A connection just accepted.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            state: State::Head,
            inbox: ReceiveBuffer::new(),
            answers: Vec::new(),
            sent: 0,
            half_closed: false,
            was_heard: false,
            progressed: now,
        }
    }

    /// Whether bytes from the client are wanted.
    #[must_use]
    pub const fn wants(&self) -> bool {
        !self.half_closed && !self.is_behind() && !matches!(self.state, State::Last | State::Closed)
    }

    /// Where the next bytes from the client go; empty while none are wanted.
    pub fn space<'b>(&'b mut self, ring: &'b mut Ring) -> &'b mut [u8] {
        if !self.wants() {
            return &mut [];
        }
        match &mut self.state {
            State::Last | State::Closed => &mut [],
            State::Body {
                sink: Sink::Slot(id),
                reader,
                ..
            } => {
                let id = *id;
                let chunked = matches!(reader, BodyReader::Chunked(_));
                if let Err(no) = ring.space(id) {
                    self.overflow(no, ring);
                    self.space(ring)
                } else {
                    // Asked twice for the borrow's sake; the second time nothing grows.
                    let space = ring.space(id).unwrap_or_default();
                    let most = if chunked {
                        CHUNKED_READ_MAX
                    } else {
                        usize::MAX
                    };
                    let n = space.len().min(most);
                    &mut space[..n]
                }
            }
            State::Head => self.inbox.space(INBOX_START, HEAD_BYTES_MAX),
            State::Body {
                sink: Sink::Discard(_) | Sink::LeaveOut(_),
                ..
            }
            | State::Linger { .. } => self.inbox.space(DISCARD_BYTES, HEAD_BYTES_MAX),
        }
    }

    /// `n` bytes of [`Inlet::space`] have been read.
    pub fn received(&mut self, n: usize, cx: &mut Context) {
        self.was_heard = true;
        self.progressed = cx.now.mono;
        if let State::Body {
            sink: Sink::Slot(id),
            reader,
            taken,
            ..
        } = &mut self.state
        {
            let space = cx.ring.space(*id).unwrap_or_default();
            let n = n.min(space.len());
            match reader.decode(&mut space[..n]) {
                Ok(at) => {
                    self.inbox.append(&space[at.used..n]);
                    cx.ring.filled(*id, at.body);
                    *taken += at.body as u64;
                }
                Err(_) => return self.refuse(BAD_CHUNK, cx),
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

    /// What is to be done to the connection now.
    pub fn hang(&mut self, now: Instant) -> Option<Hang> {
        match self.state {
            State::Closed => Some(Hang::Up),
            State::Last if !self.has_answers() => {
                self.state = State::Linger {
                    left: LINGER_BYTES_MAX,
                    until: now + LINGER_TIME_MAX,
                };
                Some(Hang::Half)
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

    /// When [`Inlet::expire`] has something to do.
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

    /// Gives way to another connection.
    pub fn close(&mut self, ring: &mut Ring) {
        if let State::Body {
            sink: Sink::Slot(id),
            ..
        } = self.state
        {
            ring.abandon(id);
        }
        self.state = State::Closed;
    }

    /// When the client was last seen to do something.
    #[must_use]
    pub const fn progressed(&self) -> Instant {
        self.progressed
    }

    /// Whether a request is being read or an answer being written.
    #[must_use]
    pub const fn is_busy(&self) -> bool {
        matches!(self.state, State::Body { .. }) || self.has_answers() || !self.inbox.is_empty()
    }

    /// Whether a request has begun that is not whole yet.
    #[must_use]
    pub const fn is_reading(&self) -> bool {
        match self.state {
            State::Body { .. } => !self.half_closed,
            State::Head => !self.half_closed && !self.inbox.is_empty(),
            State::Last | State::Linger { .. } | State::Closed => false,
        }
    }

    /// Whether the client has just come and not said anything: its request is on its way.
    #[must_use]
    pub fn is_new(&self, now: Instant) -> bool {
        self.new_until().is_some_and(|until| now < until)
    }

    /// Until when [`Inlet::is_new`] holds, or did, while nothing is read.
    #[must_use]
    pub fn new_until(&self) -> Option<Instant> {
        let is_silent = !self.was_heard && !self.half_closed && matches!(self.state, State::Head);
        is_silent.then(|| self.progressed + super::clients::NEWCOMER)
    }

    const fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Whether the client reads its answers too slowly to be given more.
    const fn is_behind(&self) -> bool {
        self.answers.len() > UNREAD_ANSWERS_MAX
    }

    /// Uses up what has been read, as far as it goes.
    fn advance(&mut self, cx: &mut Context) {
        while cx.taking && !self.is_behind() {
            let goes_on = match self.state {
                State::Head => self.read_head(cx),
                State::Body { .. } => self.read_body(cx),
                State::Linger { left, until } => {
                    let left = left.saturating_sub(self.inbox.len() as u64);
                    self.state = if left > 0 {
                        State::Linger { left, until }
                    } else {
                        State::Closed
                    };
                    self.inbox.clear();
                    false
                }
                State::Last | State::Closed => false,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Looks for a whole head. Whether there is more to do at once.
    fn read_head(&mut self, cx: &mut Context) -> bool {
        self.inbox.consume(head::leading_blank(self.inbox.bytes()));
        let bytes = self.inbox.bytes();
        let Some(&first) = bytes.first() else {
            return false;
        };
        if bytes == b"\r" {
            // Half of an empty line.
            return false;
        }
        if !head::begins_request(first) {
            self.refuse(
                Refusal {
                    status: 400,
                    reason: "not HTTP",
                },
                cx,
            );
        } else if let Some(len) = self.inbox.head_end() {
            let begun = self.begin(len, cx);
            self.inbox.consume(len);
            if let Err(refusal) = begun {
                self.refuse(refusal, cx);
            }
        } else if self.inbox.is_full(HEAD_BYTES_MAX) {
            let has_line = self.inbox.bytes().contains(&b'\n');
            let status = if has_line { 431 } else { 414 };
            self.refuse(
                Refusal {
                    status,
                    reason: "the head is too long",
                },
                cx,
            );
        } else {
            return false;
        }
        true
    }

    /// Begins the request whose head is the next `len` bytes.
    fn begin(&mut self, len: usize, cx: &mut Context) -> Result<(), Refusal> {
        let mut slots = header_slots();
        let request = head::request(&self.inbox.bytes()[..len], &mut slots)?;
        let framing = request.framing()?;
        let http10 = request.http10;
        let sink = cx.destination(&request, &framing)?;
        // A client that has begun its body does not wait any more.
        if framing.expects_continue && len == self.inbox.len() {
            self.answers.extend_from_slice(write::CONTINUE);
        }
        self.state = State::Body {
            sink,
            reader: framing.body,
            taken: 0,
            keep_alive: framing.keep_alive,
            http10,
        };
        Ok(())
    }

    /// Moves body bytes from the inbox to where they belong. Whether there is more to do at once.
    fn read_body(&mut self, cx: &mut Context) -> bool {
        let State::Body {
            sink,
            reader,
            taken,
            ..
        } = &mut self.state
        else {
            return false;
        };
        let sink = *sink;
        if reader.is_done() {
            self.acknowledge(sink, cx.ring);
            return true;
        }
        if self.inbox.is_empty() {
            return false;
        }
        let read = self.inbox.bytes_mut();
        let decoded = match sink {
            Sink::Discard(_) | Sink::LeaveOut(_) => reader.decode(read),
            Sink::Slot(id) => match cx.ring.space(id) {
                Err(no) => {
                    self.overflow(no, cx.ring);
                    return true;
                }
                Ok(space) => {
                    let n = space.len().min(read.len());
                    space[..n].copy_from_slice(&read[..n]);
                    let decoded = reader.decode(&mut space[..n]);
                    cx.ring.filled(id, decoded.map_or(0, |at| at.body));
                    decoded
                }
            },
        };
        match decoded {
            Err(_) => self.refuse(BAD_CHUNK, cx),
            Ok(at) => {
                self.inbox.consume(at.used);
                *taken += at.body as u64;
                // It found no room among others; but it would not fit alone either.
                if matches!(sink, Sink::Discard(Loss::Full)) && *taken > cx.ring.bytes_max() as u64
                {
                    self.overflow(NoSpace::TooLarge, cx.ring);
                }
            }
        }
        true
    }

    /// The body is whole: answers 200.
    fn acknowledge(&mut self, sink: Sink, ring: &mut Ring) {
        let State::Body {
            keep_alive, http10, ..
        } = self.state
        else {
            return;
        };
        match sink {
            Sink::Slot(id) => ring.commit(id),
            Sink::Discard(loss) => ring.acknowledge_lost(loss),
            Sink::LeaveOut(why) => ring.acknowledge_left_out(why),
        }
        write::reply(&mut self.answers, 200, keep_alive, http10);
        self.state = if keep_alive { State::Head } else { State::Last };
    }

    /// The body cannot be kept: it is refused if it is too large for us, else read to its end and lost.
    fn overflow(&mut self, no: NoSpace, ring: &mut Ring) {
        let State::Body { sink, .. } = &mut self.state else {
            return;
        };
        if let Sink::Slot(id) = *sink {
            ring.abandon(id);
            *sink = Sink::Discard(Loss::Full);
        }
        if no == NoSpace::TooLarge {
            write::reply(&mut self.answers, TOO_LARGE.status, false, false);
            self.inbox.clear();
            self.state = State::Last;
        }
    }

    fn refuse(&mut self, refusal: Refusal, cx: &mut Context) {
        self.close(cx.ring);
        self.inbox.clear();
        write::reply(&mut self.answers, refusal.status, false, false);
        self.state = State::Last;
        if let Some(count) = cx.refusals.happened(cx.now.mono) {
            let fields = [
                super::CONTROLLER,
                ("count", count.into()),
                ("reason", refusal.reason.into()),
                ("status", u64::from(refusal.status).into()),
                super::SVC,
            ];
            cx.log
                .line(Level::Warning, cx.now.unix_ms, "Request refused", &fields);
        }
    }
}

const BAD_CHUNK: Refusal = Refusal {
    status: 400,
    reason: "malformed chunk",
};

const TOO_LARGE: Refusal = Refusal {
    status: 413,
    reason: "the body is larger than the ring",
};

impl<'r> Context<'r> {
    /// Where the body of that request goes.
    fn destination(&mut self, request: &Request, framing: &Framing) -> Result<Sink, Refusal> {
        let Some(remote) = self.remote else {
            return Ok(Sink::Discard(Loss::Unusable));
        };
        let upload = if self.unique_times || !self.labels.is_empty() {
            Upload::of(request)
        } else {
            Upload::default()
        };
        let session = session_id(self.session, self.entropy);
        if request.method == "POST" && !self.sample.has(session, self.now.minute()) {
            return Ok(Sink::LeaveOut(LeftOut::Sampled));
        }
        let is_empty = self.unique_times && upload.query.is_empty();
        if is_empty && self.is_repeated(request.target) {
            return Ok(Sink::LeaveOut(LeftOut::Empty));
        }
        let stamp = self.unique_times.then_some(Stamp {
            session,
            received_ms: self.now.unix_ms,
            thaw: self.thaw,
        });
        let times = stamp.map(|stamp| upload.query.unique(&stamp));
        let added = Added {
            session,
            labels: self.labels,
            times: times.unwrap_or_default(),
        };
        self.head.clear();
        forward::head(self.head, request, remote, &added);
        let length = match framing.body {
            BodyReader::Length(length) if self.ring.could_hold(self.head.len(), length) => {
                Some(length as usize)
            }
            BodyReader::Length(_) => return Err(TOO_LARGE),
            _ => None,
        };
        // A method that is about its content says a length even where there is none (RFC 9110 section 8.6).
        let has_body = framing.has_body || matches!(request.method, "POST" | "PUT" | "PATCH");
        let shape = Shape {
            length,
            has_body,
            to_head_request: request.method == "HEAD",
            change: upload.form.map(|form| (form, stamp)),
        };
        let Ok(id) = self.ring.open(self.head, shape) else {
            return Ok(Sink::Discard(Loss::Full));
        };
        if !self.labels.is_empty() {
            self.keep_target(id, request, remote, added);
        }
        Ok(Sink::Slot(id))
    }

    /// Keeps the target as it is without labels, if it has any.
    fn keep_target(&mut self, id: PayloadId, request: &Request, remote: &Remote, added: Added<'r>) {
        let added = Added {
            times: added.times,
            ..Added::session(added.session)
        };
        let mut plain = Vec::new();
        forward::target(&mut plain, request.target, &remote.path, &added);
        let own = self.head.get(request.method.len() + 1..);
        let rest = own.and_then(|own| own.strip_prefix(&*plain));
        if !rest.is_some_and(|rest| rest.starts_with(b" ")) {
            self.ring.keep_target(id, plain);
        }
    }

    /// Whether an upload of nothing is one more of its kind: the server would count it as one with the upload before.
    ///
    /// After a thaw Java's SDK makes up for each interval that it missed, all at once: hundreds of uploads that begin
    /// and end in the same second.
    fn is_repeated(&mut self, target: &str) -> bool {
        let repeated = *self.last_empty == target;
        if !repeated {
            target.clone_into(self.last_empty);
        }
        repeated
    }
}

/// Gives the session id that is kept there, drawn if there is none.
pub(super) fn session_id(session: &mut Option<u64>, entropy: fn() -> u64) -> u64 {
    *session.get_or_insert_with(entropy)
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests {
    use super::*;

    /// What one inlet needs, and the inlet.
    struct Bench {
        inlet: Inlet,
        ring: Ring,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::now();
            Self {
                inlet: Inlet::new(now),
                ring: Ring::new(1 << 20),
                now,
            }
        }

        /// Does that with the inlet and what it needs.
        fn with(&mut self, act: impl FnOnce(&mut Inlet, &mut Context)) {
            let mut cx = Context {
                ring: &mut self.ring,
                remote: None,
                session: &mut None,
                entropy: || 0,
                sample: Share::ALL,
                labels: &Labels::new(),
                unique_times: true,
                thaw: None,
                last_empty: &mut String::new(),
                head: &mut Vec::new(),
                taking: true,
                refusals: &mut Limit::default(),
                log: &mut Log::new(Level::Error),
                now: Now {
                    mono: self.now,
                    unix_ms: 0,
                },
            };
            act(&mut self.inlet, &mut cx);
        }

        fn receive(&mut self, bytes: &[u8]) {
            self.inlet.space(&mut self.ring)[..bytes.len()].copy_from_slice(bytes);
            self.with(|inlet, cx| inlet.received(bytes.len(), cx));
        }

        fn write_answers(&mut self) {
            self.with(|inlet, cx| inlet.sent(inlet.pending().len(), cx));
        }
    }

    const REQUEST: &[u8] = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";

    #[test]
    fn a_request_is_being_read_from_its_first_byte_to_its_last() {
        for end in 0..=REQUEST.len() {
            let mut bench = Bench::new();
            if end > 0 {
                bench.receive(&REQUEST[..end]);
            }
            let is_part = end > 0 && end < REQUEST.len();
            assert_eq!(bench.inlet.is_reading(), is_part, "{end} bytes");
            if is_part {
                bench.inlet.ended(true, &mut bench.ring);
                assert!(!bench.inlet.is_reading(), "{end} bytes, and no more");
                continue;
            }
            bench.write_answers();
            assert!(!bench.inlet.is_reading(), "answered");
        }
        let mut bench = Bench::new();
        bench.receive(b"\0not HTTP");
        assert!(!bench.inlet.is_reading(), "refused");
    }

    #[test]
    fn a_client_is_new_until_it_says_something_or_some_time_is_over() {
        let mut bench = Bench::new();
        let until = bench.now + crate::relay::clients::NEWCOMER;
        let just_before = until.checked_sub(Duration::from_nanos(1)).unwrap();
        assert_eq!(bench.inlet.new_until(), Some(until));
        assert!(bench.inlet.is_new(bench.now) && bench.inlet.is_new(just_before));
        assert!(!bench.inlet.is_new(until));

        let frozen = Duration::from_mins(1);
        bench.inlet.thawed(frozen);
        assert!(bench.inlet.is_new(just_before + frozen), "frozen meanwhile");
        assert!(!bench.inlet.is_new(until + frozen));

        bench.receive(&REQUEST[..1]);
        bench.inlet.thawed(frozen);
        assert_eq!(bench.inlet.new_until(), None, "its request has begun");
        bench.receive(&REQUEST[1..]);
        bench.write_answers();
        assert_eq!(bench.inlet.new_until(), None, "it was served");

        let mut bench = Bench::new();
        bench.inlet.ended(true, &mut bench.ring);
        assert_eq!(bench.inlet.new_until(), None, "it left");
    }
}
