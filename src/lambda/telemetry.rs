//! Lambda's Telemetry API: subscribes to platform events, to learn when an invocation's function is done. Pure.
//!
//! ```text
//! Bind ── port ──▶ Subscribe ── 200 ──▶ Subscribed ◀── batches ── Lambda
//!   └───────────────┴── refused ──▶ Refused
//! ```
//!
//! The subscription is sent on its own connection. Lambda delivers events on connections to a port of ours, which
//! accepts only their batches. The function's uploads use another port, because Lambda's emulator drops the path of the
//! address it is given: one port could not tell the two apart.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::contract::{ConnId, End, error_words};
use crate::http1::refusal::Refusal;
use crate::http1::write;
use crate::json;

use super::delivery::Delivery;
use super::wire::{Ended, Wire};

/// Most connections for deliveries. Lambda uses one; a new one replaces the oldest.
const DELIVERIES_MAX: usize = 4;

/// Longest wait for the subscription to be written before the first `GET /event/next`: once every extension has asked,
/// Lambda accepts no subscription any more.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// Longest time an invocation waits for telemetry if none has ever arrived: the start of the sandbox alone causes
/// several events, so by then they are lost.
pub const SILENCE_MAX: Duration = Duration::from_secs(2);

/// Number of finished invocations that are remembered. Lambda runs one at a time, so two would be enough.
const DONE_MAX: usize = 4;

/// See the module's documentation.
#[derive(Debug)]
pub struct Telemetry {
    state: State,
    wire: Wire,
    authority: String,
    identifier: Vec<u8>,
    /// Until when the first `GET /event/next` waits.
    until: Instant,
    /// In the order in which they were made.
    deliveries: Vec<(ConnId, Delivery)>,
    /// Whether anything was ever delivered.
    has_delivered: bool,
    /// The invocation whose end is awaited.
    awaited: String,
    /// The last invocations that are done, the latest first. One may be reported before its INVOKE.
    done: VecDeque<String>,
    /// Events were lost since the invocation began: its end may be one of them.
    lost: bool,
    event: Option<TelemetryEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A port must be bound, or is being bound.
    Bind {
        asked: bool,
    },
    /// The subscription for that port must be answered.
    Subscribe {
        port: u16,
    },
    Subscribed,
    Refused,
}

/// A result of the subscription or of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TelemetryEvent {
    /// Events will come.
    Subscribed,
    /// None will arrive, and why.
    Refused(String),
    /// A delivery was not a batch of events, and why.
    Unexpected(&'static str),
}

impl Telemetry {
    /// A subscriber at the API at `authority`, for the extension registered under `identifier`.
    #[must_use]
    pub fn new(authority: &str, identifier: &[u8], now: Instant) -> Self {
        Self {
            state: State::Bind { asked: false },
            wire: Wire::new(),
            authority: authority.to_owned(),
            identifier: identifier.to_vec(),
            until: now + WRITE_MAX,
            deliveries: Vec::new(),
            has_delivered: false,
            awaited: String::new(),
            done: VecDeque::new(),
            lost: false,
            event: None,
        }
    }

    /// Returns the last result, once.
    pub const fn event(&mut self) -> Option<TelemetryEvent> {
        self.event.take()
    }

    /// Whether a port must be bound now; `true` once.
    pub fn take_port(&mut self) -> bool {
        let due = self.state == State::Bind { asked: false };
        if due {
            self.state = State::Bind { asked: true };
        }
        due
    }

    /// The port is bound, or cannot be.
    pub fn bound(&mut self, port: Result<u16, ErrorKind>) {
        match port {
            Ok(port) => self.state = State::Subscribe { port },
            Err(kind) => self.refuse(format!("no port for it: {}", error_words(kind))),
        }
    }

    /// Whether a connection to the API is due.
    #[must_use]
    pub const fn is_connection_due(&self) -> bool {
        matches!(self.state, State::Subscribe { .. }) && self.wire.is_cut()
    }

    /// The owner starts the connection that is due, under that id.
    pub const fn connect(&mut self, id: ConnId) {
        self.wire.connecting(id);
    }

    /// No connection is possible.
    pub fn refuse(&mut self, cause: String) {
        self.state = State::Refused;
        self.event = Some(TelemetryEvent::Refused(cause));
    }

    /// Until when the next event must not be asked for, because the subscription is not written yet.
    #[must_use]
    pub fn delays_next_until(&self, now: Instant) -> Option<Instant> {
        let unwritten = match self.state {
            State::Bind { .. } => true,
            State::Subscribe { .. } => !self.wire.is_written(),
            State::Subscribed | State::Refused => false,
        };
        Some(self.until).filter(|until| unwritten && now < *until)
    }

    /// Begins to wait for the end of that invocation.
    pub fn await_done(&mut self, request_id: &str) {
        request_id.clone_into(&mut self.awaited);
        self.lost = false;
    }

    fn is_done(&self) -> bool {
        self.awaited.is_empty() || self.lost || self.done.contains(&self.awaited)
    }

    /// Whether the awaited invocation is done. Its end is used only once, because Lambda's second try of an event has
    /// the same id.
    pub fn take_done(&mut self) -> bool {
        if self.is_done() {
            let awaited = std::mem::take(&mut self.awaited);
            self.done.retain(|done| *done != awaited);
            return true;
        }
        false
    }

    /// Whether any telemetry has ever arrived.
    #[must_use]
    pub const fn has_delivered(&self) -> bool {
        self.has_delivered
    }

    /// Lambda connected to our port. Returns the connection that it replaces, if any.
    pub fn accepted(&mut self, id: ConnId) -> Option<ConnId> {
        let full = self.deliveries.len() >= DELIVERIES_MAX;
        let oldest = full.then(|| self.deliveries.remove(0).0);
        self.deliveries.push((id, Delivery::default()));
        oldest
    }

    /// Whether `id` is one of these connections.
    #[must_use]
    pub fn owns(&self, id: ConnId) -> bool {
        self.wire.owns(id) || self.deliveries.iter().any(|(own, _)| *own == id)
    }

    /// The connection to the API is open.
    pub fn connected(&mut self, id: ConnId) {
        self.wire.connected(id);
        if let State::Subscribe { port } = self.state {
            let (authority, identifier) = (self.authority.as_bytes(), &self.identifier[..]);
            self.wire
                .put(|out| write_request(out, authority, identifier, port));
        }
    }

    /// Whether bytes are wanted.
    #[must_use]
    pub fn wants(&self, id: ConnId) -> bool {
        match self.delivery(id) {
            Some(delivery) => delivery.wants(),
            None => self.wire.wants(),
        }
    }

    /// Where the next bytes are read to.
    pub fn space(&mut self, id: ConnId) -> &mut [u8] {
        match self.deliveries.iter_mut().find(|(own, _)| *own == id) {
            Some((_, delivery)) => delivery.space(),
            None => self.wire.space(),
        }
    }

    /// `n` bytes of [`Telemetry::space`] have been read. Returns a connection to close, if any.
    pub fn received(&mut self, id: ConnId, n: usize) -> Option<ConnId> {
        let Some(at) = self.deliveries.iter().position(|(own, _)| *own == id) else {
            match self.wire.received(n) {
                Ok(false) => return None,
                Ok(true) => self.answered(),
                Err(cause) => self.refuse(cause.to_owned()),
            }
            self.wire.cut();
            return Some(id);
        };
        let (has_delivered, done, lost) = (&mut self.has_delivered, &mut self.done, &mut self.lost);
        let result = self.deliveries[at].1.received(n, |batch| {
            read_batch(batch, |event| match event {
                PlatformEvent::RuntimeDone(request_id) => {
                    done.truncate(DONE_MAX - 1);
                    done.push_front(request_id.to_owned());
                }
                PlatformEvent::LogsDropped => *lost = true,
            })?;
            *has_delivered = true;
            Ok(())
        });
        // An error of the subscription is more important than one of a delivery.
        if let (Err(cause), None) = (result, &self.event) {
            self.event = Some(TelemetryEvent::Unexpected(cause));
        }
        None
    }

    /// The connection ended.
    pub fn ended(&mut self, id: ConnId, why: End) {
        if let Some(at) = self.deliveries.iter().position(|(own, _)| *own == id) {
            self.deliveries.remove(at);
            return;
        }
        match self.wire.ended(why) {
            Ended::Nothing | Ended::Stale => {}
            Ended::Answered => self.answered(),
            Ended::Broke(cause) => self.refuse(cause.to_owned()),
        }
    }

    /// Bytes to be written.
    #[must_use]
    pub fn pending(&self, id: ConnId) -> &[u8] {
        match self.delivery(id) {
            Some(delivery) => delivery.pending(),
            None => self.wire.pending(),
        }
    }

    /// `n` bytes of [`Telemetry::pending`] have been written. Returns a connection to close, if any.
    pub fn sent(&mut self, id: ConnId, n: usize) -> Option<ConnId> {
        let Some(at) = self.deliveries.iter().position(|(own, _)| *own == id) else {
            self.wire.sent(n);
            return None;
        };
        let over = self.deliveries[at].1.sent(n);
        over.then(|| self.deliveries.remove(at).0)
    }

    fn delivery(&self, id: ConnId) -> Option<&Delivery> {
        let mut all = self.deliveries.iter();
        all.find(|(own, _)| *own == id)
            .map(|(_, delivery)| delivery)
    }

    /// Where there is no telemetry, Lambda answers 202: not really a success.
    fn answered(&mut self) {
        let answer = self.wire.take_answer();
        if answer.status == 200 {
            self.state = State::Subscribed;
            self.event = Some(TelemetryEvent::Subscribed);
        } else {
            self.refuse(answer.words());
        }
    }
}

/// `PUT /2022-07-01/telemetry`: only platform events, and as fast as possible (25 ms is the minimum).
fn write_request(out: &mut Vec<u8>, authority: &[u8], identifier: &[u8], port: u16) {
    let mut body = Vec::with_capacity(256);
    body.extend_from_slice(
        br#"{"schemaVersion":"2022-12-13","types":["platform"],"buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":25},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:"#,
    );
    write::number(&mut body, u64::from(port));
    body.extend_from_slice(br#""}}"#);
    out.extend_from_slice(b"PUT /2022-07-01/telemetry HTTP/1.1\r\n");
    write::field(out, b"Host", authority);
    write::field(out, b"Lambda-Extension-Identifier", identifier);
    write::json(out, &body);
}

/// The events that matter to us.
enum PlatformEvent<'b> {
    /// `platform.runtimeDone`, with its request id: the function has answered.
    RuntimeDone(&'b str),
    /// `platform.logsDropped`: events are missing.
    LogsDropped,
}

/// Reads an array of events, and passes on those that matter.
fn read_batch(batch: &str, mut take: impl FnMut(PlatformEvent)) -> Result<(), Refusal> {
    let mut whole = true;
    let parsed = json::array(batch, |element| {
        let json::Value::Nested(event) = element else {
            return whole = false;
        };
        let (mut is_done, mut is_dropped, mut record) = (false, false, "");
        let parsed = json::object(event, |key, value| match (&*key, value) {
            ("type", json::Value::String(kind)) => {
                is_done = kind == "platform.runtimeDone";
                is_dropped = kind == "platform.logsDropped";
            }
            ("record", json::Value::Nested(text)) => record = text,
            _ => {}
        });
        whole &= parsed.is_ok();
        if is_dropped {
            take(PlatformEvent::LogsDropped);
        }
        if is_done {
            let parsed = json::object(record, |key, value| {
                if let ("requestId", json::Value::String(request_id)) = (&*key, value) {
                    take(PlatformEvent::RuntimeDone(&request_id));
                }
            });
            whole &= parsed.is_ok();
        }
    });
    if parsed.is_ok() && whole {
        Ok(())
    } else {
        Err(Refusal::NotABatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(batch: &str) -> Result<Vec<String>, Refusal> {
        let mut all = Vec::new();
        let name = |event: PlatformEvent| match event {
            PlatformEvent::RuntimeDone(request_id) => request_id.to_owned(),
            PlatformEvent::LogsDropped => "dropped".to_owned(),
        };
        read_batch(batch, |event| all.push(name(event))).map(|()| all)
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a made-up clock has to start somewhere"
    )]
    fn a_connection_that_the_api_closes_is_closed_here_too() {
        let mut t = Telemetry::new("a:1", b"i", Instant::now());
        assert!(t.take_port());
        t.bound(Ok(1));
        let id = ConnId(7);
        t.connect(id);
        t.connected(id);
        let n = t.pending(id).len();
        t.sent(id, n);
        let answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nOK";
        t.space(id)[..answer.len()].copy_from_slice(answer);
        assert_eq!(t.received(id, answer.len()), Some(id));
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a made-up clock has to start somewhere"
    )]
    fn a_second_try_of_an_event_is_waited_for_again() {
        let mut t = Telemetry::new("a:1", b"i", Instant::now());
        let id = ConnId(7);
        t.accepted(id);
        let body = r#"[{"type":"platform.runtimeDone","record":{"requestId":"r"}}]"#;
        let post = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        t.await_done("r");
        assert!(!t.is_done());
        t.space(id)[..post.len()].copy_from_slice(post.as_bytes());
        t.received(id, post.len());
        assert!(t.take_done() && t.take_done());
        t.await_done("r"); // Lambda's second try of an asynchronous event
        assert!(!t.is_done(), "the first try's end is not the second's");
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "a made-up clock has to start somewhere"
    )]
    fn subscriber() -> Telemetry {
        Telemetry::new("a:1", b"i", Instant::now())
    }

    /// A `platform.runtimeDone` for each arrives on that connection.
    fn deliver(t: &mut Telemetry, id: ConnId, requests: &[&str]) {
        let event =
            |r| format!(r#"{{"type":"platform.runtimeDone","record":{{"requestId":"{r}"}}}}"#);
        let events: Vec<String> = requests.iter().map(event).collect();
        let body = format!("[{}]", events.join(","));
        let length = body.len();
        let post = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}");
        t.space(id)[..post.len()].copy_from_slice(post.as_bytes());
        t.received(id, post.len());
        let n = t.pending(id).len();
        t.sent(id, n);
    }

    #[test]
    fn the_end_of_one_invocation_leaves_those_of_others() {
        let (mut t, id) = (subscriber(), ConnId(7));
        t.accepted(id);
        deliver(&mut t, id, &["a", "b"]);
        for request in ["a", "b"] {
            t.await_done(request);
            assert!(t.take_done(), "{request}");
        }
        t.await_done("a");
        assert!(!t.take_done(), "used up");
    }

    #[test]
    fn the_last_invocations_that_ended_are_remembered() {
        let (mut t, id) = (subscriber(), ConnId(7));
        t.accepted(id);
        deliver(&mut t, id, &["a", "b", "c", "d", "e"]);
        for (request, remembered) in [("a", false), ("b", true), ("e", true)] {
            t.await_done(request);
            assert_eq!(t.take_done(), remembered, "{request}");
        }
    }

    #[test]
    fn it_knows_its_connections_and_when_they_want_bytes() {
        let mut t = subscriber();
        let (api, delivery, other) = (ConnId(1), ConnId(2), ConnId(3));
        t.take_port();
        t.bound(Ok(1));
        assert!(!t.owns(api));
        t.connect(api);
        assert!(t.owns(api) && !t.owns(delivery) && !t.owns(other));
        assert!(!t.wants(api), "nothing is asked yet");
        t.connected(api);
        assert!(t.wants(api));
        t.accepted(delivery);
        assert!(t.owns(api) && t.owns(delivery) && !t.owns(other));
        assert!(t.wants(delivery));
        let get = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        t.space(delivery)[..get.len()].copy_from_slice(get);
        t.received(delivery, get.len());
        assert!(!t.wants(delivery), "the answer first");
        let n = t.pending(delivery).len();
        assert_eq!(t.sent(delivery, n), Some(delivery), "and no more");
        assert!(!t.owns(delivery));
    }

    #[test]
    fn a_new_delivery_replaces_the_oldest() {
        let mut t = subscriber();
        for id in 0..DELIVERIES_MAX as u64 {
            assert_eq!(t.accepted(ConnId(id)), None);
        }
        assert_eq!(t.accepted(ConnId(99)), Some(ConnId(0)));
        assert!(!t.owns(ConnId(0)) && t.owns(ConnId(99)));
        t.ended(ConnId(2), End::Eof);
        assert!(!t.owns(ConnId(2)) && t.owns(ConnId(1)));
        assert_eq!(t.accepted(ConnId(100)), None);
    }

    #[test]
    fn batches() {
        assert_eq!(done("[]"), Ok(vec![]));
        assert_eq!(
            done(
                r#"[{"time":"2026-01-01T00:00:00.000Z","type":"platform.start","record":{"requestId":"a","version":"$LATEST"}},
                {"record":{"status":"success","requestId":"b","metrics":{"durationMs":1.5}},"type":"platform.runtimeDone"},
                {"type":"function","record":"platform.runtimeDone requestId c"},
                {"type":"platform.report","record":{"requestId":"d"}}]"#
            ),
            Ok(vec!["b".to_owned()])
        );
        assert_eq!(
            done(
                r#"[{"type":"platform.logsDropped","record":{"reason":"slow","droppedRecords":7}}]"#
            ),
            Ok(vec!["dropped".to_owned()])
        );
        for bad in [
            "",
            "{}",
            "[1]",
            r#"[{"type":"platform.runtimeDone"}]"#,
            r#"[{"type":"platform.runtimeDone","record":"a"}]"#,
            r#"[{"type":"a"}"#,
            r#"[{"type"},{"type":"a"}]"#,
        ] {
            assert_eq!(done(bad), Err(Refusal::NotABatch), "{bad}");
        }
    }
}
