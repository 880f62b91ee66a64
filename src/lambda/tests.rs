use super::*;

const GRANTED: &str =
    "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: me\r\nContent-Length: 2\r\n\r\n{}";
const NO_INVOKE: &str = "HTTP/1.1 403 F\r\nContent-Length: 26\r\n\r\nExtension.InvalidEventType";

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

    /// Takes the bytes to be written.
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
    let keeps = "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: me\r\nContent-Length: 0\r\n\r\n";
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

/// A kept connection may have died before the request, which is then sent again at once; but not after a part of an
/// answer.
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
fn where_invocations_are_not_announced_it_registers_for_shutdown_alone() {
    let mut api = Api::new();
    api.connect();
    assert!(
        api.written()
            .ends_with(r#"{"events":["INVOKE","SHUTDOWN"]}"#)
    );
    assert!(api.lambda.receives_invocations());
    assert_eq!(api.answer(NO_INVOKE), None);
    assert!(!api.lambda.receives_invocations());
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
        assert!(api.lambda.receives_invocations());
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
        assert!(matches!(odd, Some(Event::Unexpected(_))), "{odd:?}");
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
    let is_refused =
        matches!(&last, Some(Event::Refused(why)) if why.contains("api:9001 cannot be reached"));
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
        assert_eq!(api.next(event), Some(Event::Unexpected(odd.to_owned())));
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
