//! Lambda's Extensions API: registers, asks for the next event, reads it. Pure.
//!
//! ```text
//! Register ── 200 ──▶ Parked ── ask ──▶ Poll ── INVOKE ──▶ Parked
//!    │  ▲ 403 InvalidEventType: SHUTDOWN alone    └─ SHUTDOWN ──▶ Leave
//!    └──┴── refused ──▶ Failed
//! ```
//!
//! `Parked`: we owe Lambda a `GET /event/next`, so it cannot freeze us. Asking is the owner's decision, the
//! permission to freeze. There is no deadline on the answer: AWS forbids one, it may take hours.
//!
//! What the API should not answer, and what we make of it:
//!
//! | answer | to register | to next |
//! |---|---|---|
//! | interim (1xx), eight at most | skipped | skipped |
//! | none: no connection, or it ends before the answer does | asked again after 100 ms, doubling to 1 s; the eighth time, exit 1 | asked again after 100 ms, doubling to 1 s, for ever; told once a minute. At once if a connection that was used before ends without a byte: it had died |
//! | no HTTP; a head or a body over 64 KiB; more interim answers | the same | the same |
//! | another status than 200 | exit 1, with a line that quotes it (403 for INVOKE: without it, once) | the same |
//! | no identifier; no JSON, or an event of unknown type | exit 1 | the same |
//! | bytes behind the answer | taken, and the connection is closed | the same |

mod delivery;
pub mod telemetry;
mod wire;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use crate::contract::{ConnId, End};
use crate::http1::write;
use crate::json;

use wire::{Answer, Ended, Wire};

/// Pause before the API is asked again after a failure, doubling up to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Failures to reach the API before registering is given up: four seconds in all, of the ten an init may take.
const REGISTER_TRIES: u32 = 8;

/// The API's path, with the version of the protocol.
const API: &[u8] = b"/2020-01-01/extension";

/// See the module's documentation.
#[derive(Debug)]
pub struct Lambda {
    state: State,
    wire: Wire,
    /// `Host` of our requests.
    authority: String,
    /// The file name of this program, which Lambda knows extensions by.
    name: String,
    identifier: Vec<u8>,
    /// Cleared where INVOKE is refused: Managed Instances.
    wants_invoke: bool,
    failures: u32,
    retry_at: Option<Instant>,
    event: Option<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Register,
    Parked,
    Poll,
    Leave,
    Failed,
}

/// What Lambda told us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// We are registered.
    Registered,
    /// Registration is refused; what Lambda said.
    Refused(String),
    /// The function is about to run.
    Invoke {
        /// Names the invocation.
        request_id: String,
        /// When the function times out, in Unix milliseconds.
        deadline_ms: Option<u64>,
    },
    /// The sandbox is about to end.
    Shutdown {
        /// When we are killed, in Unix milliseconds.
        deadline_ms: Option<u64>,
        /// `spindown`, `timeout`, `failure` or whatever else Lambda says.
        reason: String,
    },
    /// Something we do not act upon; for the log.
    Odd(String),
}

impl Lambda {
    /// A client for the API at `authority`, to register under `name`.
    #[must_use]
    pub const fn new(authority: String, name: String) -> Self {
        Self {
            state: State::Register,
            wire: Wire::new(),
            authority,
            name,
            identifier: Vec::new(),
            wants_invoke: true,
            failures: 0,
            retry_at: None,
            event: None,
        }
    }

    /// `host:port` of the API.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The name Lambda gave us for this sandbox's life.
    #[must_use]
    pub fn identifier(&self) -> &[u8] {
        &self.identifier
    }

    /// Whether invocations are told: on Managed Instances they are not.
    #[must_use]
    pub const fn hears_of_invocations(&self) -> bool {
        self.wants_invoke
    }

    /// What Lambda told us, once.
    pub const fn event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// Whether we owe Lambda a `GET /event/next`.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.state == State::Parked
    }

    /// Whether the request for the next event is written.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.state == State::Poll && self.wire.is_written()
    }

    /// Asks for the next event: from here on, Lambda may freeze us.
    pub fn ask(&mut self) {
        self.state = State::Poll;
        self.put();
    }

    /// Whether a connection is due.
    #[must_use]
    pub fn is_connection_due(&self, now: Instant) -> bool {
        matches!(self.state, State::Register | State::Poll)
            && self.wire.is_cut()
            && self.retry_at.is_none_or(|at| at <= now)
    }

    /// The owner makes the connection that is due, and reports it under `id`.
    pub const fn connect(&mut self, id: ConnId) {
        self.retry_at = None;
        self.wire.connecting(id);
    }

    /// How often the API could not be asked since it last could.
    #[must_use]
    pub const fn failures(&self) -> usize {
        self.failures as usize
    }

    /// When a connection is due after a failure.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Frozen time does not count.
    pub fn thawed(&mut self, frozen: Duration) {
        if let Some(at) = &mut self.retry_at {
            *at += frozen;
        }
    }

    /// Whether `id` is this client's connection.
    #[must_use]
    pub fn owns(&self, id: ConnId) -> bool {
        self.wire.owns(id)
    }

    /// The connection stands.
    pub fn connected(&mut self, id: ConnId) {
        self.wire.connected(id);
        self.put();
    }

    /// Whether bytes are wanted.
    #[must_use]
    pub const fn wants(&self) -> bool {
        self.wire.wants()
    }

    /// Whether the first request to register is still to be sent.
    #[must_use]
    pub fn is_registering(&self) -> bool {
        self.state == State::Register && self.failures == 0 && !self.wire.is_written()
    }

    /// Where the next bytes go.
    pub fn space(&mut self) -> &mut [u8] {
        self.wire.space()
    }

    /// `n` bytes of [`Lambda::space`] have been read. Gives a connection to be closed, if any.
    pub fn received(&mut self, id: ConnId, n: usize, now: Instant) -> Option<ConnId> {
        match self.wire.received(n) {
            Ok(false) => return None,
            Ok(true) => self.read_answer(now),
            Err(cause) => self.broke(cause, now),
        }
        (!self.owns(id)).then_some(id)
    }

    /// The connection ended.
    pub fn ended(&mut self, why: End, now: Instant) {
        match self.wire.ended(why) {
            Ended::Nothing | Ended::Stale => {}
            Ended::Answered => self.read_answer(now),
            Ended::Broke(cause) => self.broke(cause, now),
        }
    }

    /// Bytes to be written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.wire.pending()
    }

    /// `n` bytes of [`Lambda::pending`] have been written.
    pub const fn sent(&mut self, n: usize) {
        self.wire.sent(n);
    }

    /// Puts the request that the state calls for on the connection, where that is idle.
    fn put(&mut self) {
        let authority = self.authority.as_bytes();
        match self.state {
            State::Register => self.wire.put(|out| {
                write_start(out, b"POST ", b"/register", authority);
                write::field(out, b"Lambda-Extension-Name", self.name.as_bytes());
                let events: &[u8] = if self.wants_invoke {
                    br#"{"events":["INVOKE","SHUTDOWN"]}"#
                } else {
                    br#"{"events":["SHUTDOWN"]}"#
                };
                write::json(out, events);
            }),
            State::Poll => self.wire.put(|out| {
                write_start(out, b"GET ", b"/event/next", authority);
                write::field(out, b"Lambda-Extension-Identifier", &self.identifier);
                out.extend_from_slice(b"\r\n");
            }),
            State::Parked | State::Leave | State::Failed => {}
        }
    }

    fn read_answer(&mut self, now: Instant) {
        let answer = self.wire.take_answer();
        self.answered(&answer, now);
        self.wire.give_back(answer);
    }

    fn answered(&mut self, answer: &Answer, now: Instant) {
        match (self.state, answer.status) {
            (State::Register, 200) if !answer.identifier.is_empty() => {
                self.failures = 0;
                self.identifier.clone_from(&answer.identifier);
                self.state = State::Parked;
                self.event = Some(Event::Registered);
            }
            // Managed Instances have no INVOKE, and say so in this way.
            (State::Register, 403)
                if self.wants_invoke && contains(&answer.body, b"Extension.InvalidEventType") =>
            {
                self.wants_invoke = false;
                self.put();
            }
            (State::Register, _) => self.refuse(answer.words()),
            (State::Poll, 200) => self.read_event(&text(&answer.body), now),
            (State::Poll, _) => self.broke(&answer.words(), now),
            _ => {}
        }
    }

    fn read_event(&mut self, body: &str, now: Instant) {
        let (mut kind, mut request_id, mut reason, mut deadline_ms) =
            (String::new(), String::new(), String::new(), None);
        let parsed = json::object(body, |key, value| match (&*key, value) {
            ("eventType", json::Value::String(text)) => kind = text.into_owned(),
            ("requestId", json::Value::String(text)) => request_id = text.into_owned(),
            ("shutdownReason", json::Value::String(text)) => reason = text.into_owned(),
            ("deadlineMs", value) => deadline_ms = value.as_u64(),
            _ => {}
        });
        let event = match kind.as_str() {
            "INVOKE" => Event::Invoke {
                request_id,
                deadline_ms,
            },
            "SHUTDOWN" => Event::Shutdown {
                deadline_ms,
                reason,
            },
            // To ask again at once would be to ask without end.
            _ if parsed.is_err() => return self.broke("an event that is not JSON", now),
            _ => return self.broke(&format!("an event of unknown type \"{kind}\""), now),
        };
        self.failures = 0;
        self.state = match event {
            Event::Shutdown { .. } => State::Leave,
            _ => State::Parked,
        };
        self.event = Some(event);
    }

    /// The API could not be asked, or its answer not be used.
    fn broke(&mut self, cause: &str, now: Instant) {
        self.wire.cut();
        self.failures += 1;
        if self.state == State::Register && self.failures >= REGISTER_TRIES {
            let authority = &self.authority;
            return self.refuse(format!(
                "AWS_LAMBDA_RUNTIME_API {authority} cannot be reached: {cause}"
            ));
        }
        self.event = Some(Event::Odd(cause.to_owned()));
        let pause = PAUSE_MIN
            .saturating_mul(1 << self.failures.min(8))
            .min(PAUSE_MAX);
        self.retry_at = Some(now + pause);
    }

    fn refuse(&mut self, what: String) {
        self.state = State::Failed;
        self.event = Some(Event::Refused(what));
    }
}

/// Appends the request line, and `Host`.
fn write_start(out: &mut Vec<u8>, method: &[u8], path: &[u8], authority: &[u8]) {
    for part in [method, API, path, b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    write::field(out, b"Host", authority);
}

/// A body as text. It always is, and to see that is quicker than to mend what might not be.
fn text(body: &[u8]) -> Cow<'_, str> {
    str::from_utf8(body).map_or_else(|_| String::from_utf8_lossy(body), Cow::Borrowed)
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANTED: &str =
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: me\r\nContent-Length: 2\r\n\r\n{}";
    const NO_INVOKE: &str =
        "HTTP/1.1 403 F\r\nContent-Length: 26\r\n\r\nExtension.InvalidEventType";

    struct Api {
        lambda: Lambda,
        now: Instant,
        connections: u64,
    }

    impl Api {
        #[expect(
            clippy::disallowed_methods,
            reason = "a made-up clock has to start somewhere"
        )]
        fn new() -> Self {
            Self {
                lambda: Lambda::new("api:9001".to_owned(), "name".to_owned()),
                now: Instant::now(),
                connections: 0,
            }
        }

        fn registered() -> Self {
            let mut api = Self::new();
            api.connect();
            api.written();
            assert_eq!(api.answer(GRANTED), Some(Event::Registered));
            api
        }

        fn connect(&mut self) -> ConnId {
            assert!(self.lambda.is_connection_due(self.now));
            self.connections += 1;
            let id = ConnId(self.connections);
            self.lambda.connect(id);
            self.lambda.connected(id);
            id
        }

        /// Takes what is to be written.
        fn written(&mut self) -> String {
            let bytes = self.lambda.pending().to_vec();
            self.lambda.sent(bytes.len());
            String::from_utf8(bytes).unwrap()
        }

        fn answer(&mut self, bytes: &str) -> Option<Event> {
            let id = ConnId(self.connections);
            self.lambda.space()[..bytes.len()].copy_from_slice(bytes.as_bytes());
            self.lambda.received(id, bytes.len(), self.now);
            self.lambda.event()
        }

        fn next(&mut self, event: &str) -> Option<Event> {
            self.lambda.ask();
            assert!(
                self.written()
                    .starts_with("GET /2020-01-01/extension/event/next")
            );
            let length = event.len();
            self.answer(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{event}"
            ))
        }

        fn break_connection(&mut self) -> Option<Event> {
            self.lambda.ended(End::Eof, self.now);
            self.lambda.event()
        }
    }

    #[test]
    fn a_refusal_is_quoted() {
        let mut api = Api::new();
        api.connect();
        api.written();
        let refused = api.answer("HTTP/1.1 403 F\r\nContent-Length: 5\r\n\r\nother");
        assert_eq!(
            refused,
            Some(Event::Refused("status 403: other".to_owned()))
        );
    }

    #[test]
    fn a_connection_that_cannot_be_used_again_is_closed() {
        let keeps =
            "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: me\r\nContent-Length: 0\r\n\r\n";
        let closes = keeps.replace("Content", "Connection: close\r\nContent");
        let more = format!("{keeps}and more");
        for (answer, kept) in [(keeps, true), (&closes, false), (&more, false)] {
            let mut api = Api::new();
            let id = api.connect();
            api.written();
            api.lambda.space()[..answer.len()].copy_from_slice(answer.as_bytes());
            let given_up = api.lambda.received(id, answer.len(), api.now);
            assert_eq!(given_up, (!kept).then_some(id), "{answer}");
            assert_eq!(api.lambda.event(), Some(Event::Registered));
        }
    }

    #[test]
    fn an_answer_may_end_with_its_connection() {
        let mut api = Api::new();
        api.connect();
        api.written();
        let answer = "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: me\r\n\r\n{}";
        assert_eq!(api.answer(answer), None);
        assert_eq!(api.break_connection(), Some(Event::Registered));
    }

    /// A kept connection may have died before the request, which is then asked again at once. Not after part of an answer.
    #[test]
    fn only_a_connection_that_ends_without_a_byte_had_died() {
        for (part, had_died) in [
            ("", true),
            ("HTTP/1.1 2", false),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false),
        ] {
            let mut api = Api::registered();
            api.lambda.ask();
            api.written();
            assert_eq!(api.answer(part), None);
            assert_eq!(api.break_connection().is_none(), had_died, "{part}");
            assert_eq!(api.lambda.is_connection_due(api.now), had_died, "{part}");
        }
    }

    #[test]
    fn an_answer_that_is_too_long_is_none() {
        for (length, is_taken) in [(64 << 10, true), ((64 << 10) + 1, false), (66_000, false)] {
            let mut api = Api::registered();
            let event = r#"{"eventType":"INVOKE"}"#;
            let body = format!("{event}{}", " ".repeat(length - event.len()));
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            api.lambda.ask();
            api.written();
            let mut rest = answer.as_bytes();
            while !rest.is_empty() && api.lambda.wants() {
                let space = api.lambda.space();
                let n = space.len().min(rest.len());
                space[..n].copy_from_slice(&rest[..n]);
                rest = &rest[n..];
                api.lambda.received(ConnId(1), n, api.now);
            }
            let event = api.lambda.event();
            assert_eq!(
                matches!(event, Some(Event::Invoke { .. })),
                is_taken,
                "{length}: {event:?}"
            );
        }
    }

    #[test]
    fn registering_is_over_when_the_request_is_written_or_has_failed() {
        let mut api = Api::new();
        assert!(api.lambda.is_registering(), "no connection yet");
        api.connect();
        assert!(api.lambda.is_registering(), "connected, nothing written");
        api.lambda.sent(1);
        assert!(api.lambda.is_registering(), "one byte written");
        api.written();
        assert!(!api.lambda.is_registering(), "all written");
        api.answer(GRANTED);
        assert!(!api.lambda.is_registering(), "registered");
        api.lambda.ask();
        assert!(!api.lambda.is_registering(), "asking for an event");

        let mut api = Api::new();
        api.connect();
        api.break_connection();
        assert!(!api.lambda.is_registering(), "the first try has failed");
    }

    #[test]
    fn bytes_are_wanted_only_while_an_answer_is_awaited() {
        let mut api = Api::new();
        assert!(!api.lambda.wants());
        api.connect();
        assert!(api.lambda.wants());
        api.written();
        api.answer(GRANTED);
        assert!(!api.lambda.wants());
    }

    #[test]
    fn where_invocations_are_not_told_it_registers_for_shutdown_alone() {
        let mut api = Api::new();
        api.connect();
        assert!(
            api.written()
                .ends_with(r#"{"events":["INVOKE","SHUTDOWN"]}"#)
        );
        assert!(api.lambda.hears_of_invocations());
        assert_eq!(api.answer(NO_INVOKE), None);
        assert!(!api.lambda.hears_of_invocations());
        assert!(api.written().ends_with(r#"{"events":["SHUTDOWN"]}"#));
        let refused = api.answer(NO_INVOKE);
        assert!(matches!(refused, Some(Event::Refused(_))), "{refused:?}");
    }

    #[test]
    fn any_other_answer_refuses_the_registration() {
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 403 F\r\nContent-Length: 5\r\n\r\nother",
            "HTTP/1.1 500 I\r\nContent-Length: 26\r\n\r\nExtension.InvalidEventType",
        ] {
            let mut api = Api::new();
            api.connect();
            api.written();
            let refused = api.answer(answer);
            assert!(
                matches!(refused, Some(Event::Refused(_))),
                "{answer}: {refused:?}"
            );
            assert!(api.lambda.hears_of_invocations());
            assert!(!api.lambda.is_connection_due(api.now));
        }
    }

    #[test]
    fn failures_are_counted_until_one_try_succeeds() {
        let mut api = Api::new();
        for failed in 0..2 {
            assert_eq!(api.lambda.failures(), failed);
            api.connect();
            let odd = api.break_connection();
            assert!(matches!(odd, Some(Event::Odd(_))), "{odd:?}");
            api.now = api.lambda.deadline().unwrap();
        }
        assert_eq!(api.lambda.failures(), 2);
        api.connect();
        api.written();
        api.answer(GRANTED);
        assert_eq!(api.lambda.failures(), 0);
        api.next("{}");
        assert_eq!(api.lambda.failures(), 1);
        api.now = api.lambda.deadline().unwrap();
        api.connect();
        assert!(matches!(
            api.next(r#"{"eventType":"INVOKE"}"#),
            Some(Event::Invoke { .. })
        ));
        assert_eq!(api.lambda.failures(), 0);
    }

    #[test]
    fn pauses_grow_and_frozen_time_is_no_part_of_them() {
        let mut api = Api::registered();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            api.next("{}");
            let at = api.lambda.deadline().unwrap();
            let pause = at - api.now;
            pauses.push(pause);
            assert!(!api.lambda.is_connection_due(api.now));
            assert!(!api.lambda.is_connection_due(api.now + pause * 99 / 100));
            let frozen = Duration::from_secs(3);
            api.lambda.thawed(frozen);
            assert_eq!(api.lambda.deadline(), Some(at + frozen));
            api.now = at + frozen;
            api.connect();
            assert_eq!(api.lambda.deadline(), None);
        }
        let doubled = |n: u32| (PAUSE_MIN * 2_u32.pow(n + 1)).min(PAUSE_MAX);
        assert_eq!(pauses, (0..12).map(doubled).collect::<Vec<_>>());
    }

    #[test]
    fn registration_is_given_up_after_some_tries() {
        let mut api = Api::new();
        let mut last = None;
        for tried in 1..=REGISTER_TRIES {
            assert!(!matches!(last, Some(Event::Refused(_))), "after {tried}");
            api.connect();
            last = api.break_connection();
            api.now = api.lambda.deadline().unwrap_or(api.now);
        }
        let is_refused = matches!(&last, Some(Event::Refused(why)) if why.contains("api:9001 cannot be reached"));
        assert!(is_refused, "{last:?}");
    }

    #[test]
    fn events() {
        let mut api = Api::registered();
        let invoke = api.next(r#"{"eventType":"INVOKE","requestId":"r","deadlineMs":12}"#);
        let expected = Event::Invoke {
            request_id: "r".to_owned(),
            deadline_ms: Some(12),
        };
        assert_eq!(invoke, Some(expected));
        assert!(api.lambda.is_parked());
        for (event, odd) in [
            ("INVOKE", "an event that is not JSON"),
            (
                r#"{"eventType":"NEWS"}"#,
                "an event of unknown type \"NEWS\"",
            ),
            ("{}", "an event of unknown type \"\""),
        ] {
            assert_eq!(api.next(event), Some(Event::Odd(odd.to_owned())));
            assert!(!api.lambda.is_parked());
            api.now = api.lambda.deadline().unwrap();
            api.connect();
        }
        let shutdown =
            api.next(r#"{"eventType":"SHUTDOWN","shutdownReason":"timeout","deadlineMs":"7"}"#);
        let expected = Event::Shutdown {
            deadline_ms: Some(7),
            reason: "timeout".to_owned(),
        };
        assert_eq!(shutdown, Some(expected));
        assert!(
            !api.lambda.is_parked(),
            "nothing is to be asked for any more"
        );
        api.lambda.ended(End::Eof, api.now);
        assert!(!api.lambda.is_connection_due(api.now));
    }
}
