//! Does every payload reach the server, whatever the server does, and is each one that cannot counted?

mod support;

use std::time::Duration;

use nix::sys::signal::Signal;
use support::cases::side_by_side;
use support::client::{Client, post, with_length};
use support::extensions_api::ExtensionsApi;
use support::play::{Gate, Play, Step, response};
use support::pyroscope::{Pyroscope, Request};
use support::sandbox::{Extension, Sandbox, Totals};

fn bench() -> (Pyroscope, Extension) {
    let server = Pyroscope::http();
    let extension = Sandbox::relay_only(&server).listening();
    (server, extension)
}

/// Posts each body on one connection and sees that it is acknowledged.
#[track_caller]
fn post_all<'a>(extension: &Extension, bodies: impl IntoIterator<Item = &'a [u8]>) {
    let mut client = extension.client();
    for body in bodies {
        client.send(post("/ingest", body));
        client.expect_ok();
    }
}

/// Ends the extension as a user would, and returns its totals.
#[track_caller]
fn end(mut extension: Extension) -> Totals {
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    extension.totals()
}

/// The payloads that were answered with a 2xx, sorted: what a server would have stored.
fn stored(server: &Pyroscope) -> Vec<Vec<u8>> {
    let answered = server
        .requests()
        .into_iter()
        .filter(|request| request.complete && request.answered);
    let mut payloads: Vec<Vec<u8>> = answered.map(|request| request.payload().to_vec()).collect();
    payloads.sort();
    payloads
}

// Connections.

#[test]
fn no_more_connections_than_workers() {
    for (workers, connections) in [
        (None, 5),
        (Some("2"), 2),
        (Some("1"), 1),
        (Some("nonsense"), 5),
        (Some("0"), 5),
    ] {
        let (server, gate) = (Pyroscope::http(), Gate::new());
        server.always(Play::answer(200).unanswered_until(&gate));
        let mut sandbox = Sandbox::relay_only(&server);
        if let Some(workers) = workers {
            sandbox = sandbox.set("PYROSCOPE_NUM_WORKERS", workers);
        }
        let extension = sandbox.listening();
        post_all(&extension, [b"payload".as_slice(); 12]);
        server.wait_complete(connections);
        gate.open();
        server.wait_complete(12);
        assert_eq!(
            server.connections().len(),
            connections,
            "with {workers:?} workers"
        );
        end(extension).expect(12, 0);
    }
}

#[test]
fn one_connection_for_payloads_one_after_another() {
    let server = Pyroscope::http().quick();
    let extension = Sandbox::relay_only(&server).listening();
    for count in 1..=30 {
        post_all(&extension, [b"payload".as_slice()]);
        server.wait_answered(count);
        server.wait_read();
    }
    assert_eq!(server.connections().len(), 1);
    end(extension).expect(30, 0);
}

#[test]
fn an_attempt_has_a_timeout_and_the_payload_another_attempt() {
    let (server, never) = (Pyroscope::http().quick(), Gate::new());
    server.next(Play::answer(200).unanswered_until(&never));
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_TIMEOUT", "300ms")
        .listening();
    post_all(&extension, [b"payload".as_slice()]);
    let requests = server.wait_complete(2);
    assert_eq!(
        (requests[0].payload(), requests[1].payload()),
        (b"payload".as_slice(), b"payload".as_slice())
    );
    assert!(requests[1].head_at - requests[0].head_at >= Duration::from_millis(250));
    assert_ne!(requests[0].connection, requests[1].connection);
    server.wait_answered(1);
    end(extension).expect(1, 0);
}

/// The server takes nothing at all: the attempt ends all the same, in the middle of sending.
#[test]
fn an_attempt_that_cannot_send_has_a_timeout_too() {
    let (server, never) = (Pyroscope::http().quick(), Gate::new());
    server.next(Play::answer(200).unread_until(&never));
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_TIMEOUT", "300ms")
        .listening();
    post_all(&extension, [vec![7; 8 << 20].as_slice()]);
    server.wait_answered(1);
    assert_eq!(server.complete().len(), 1);
    end(extension).expect(1, 0);
}

/// The server answers, byte after byte, for ever: the timeout is for the whole of an attempt.
#[test]
fn an_attempt_that_is_answered_without_end_has_a_timeout() {
    let server = Pyroscope::http().quick();
    let endless = [
        b"HTTP/1.1 503 No\r\n".to_vec(),
        b"X-More: and more\r\n".repeat(1 << 16),
    ]
    .concat();
    server.next(Play::bytewise(endless));
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_TIMEOUT", "300ms")
        .listening();
    post_all(&extension, [b"payload".as_slice()]);
    server.wait_answered(1);
    assert_eq!(server.complete().len(), 2);
    end(extension).expect(1, 0);
}

/// The server closed the kept connection while nothing was going on.
#[test]
fn a_connection_that_died_while_idle_is_replaced() {
    let (server, extension) = bench();
    for count in 1..=5 {
        post_all(&extension, [b"payload".as_slice()]);
        server.wait_answered(count);
        server.wait_read();
        server.wait_idle(1);
        if count % 2 == 0 {
            server.close_idle()
        } else {
            server.reset_all()
        }
    }
    assert_eq!(server.connections().len(), 5);
    assert_eq!(server.requests().len(), 5, "each payload once");
    end(extension).expect(5, 0);
}

/// The server ends a kept connection just as a payload is sent on it, before any byte of an answer.
#[test]
fn a_payload_whose_reused_connection_dies_is_resent_once() {
    for death in [
        Play::close_unanswered(),
        Play::reset_unanswered(),
        Play::reset_in_body(),
        Play(vec![Step::Reset]),
    ] {
        let (server, extension) = bench();
        post_all(&extension, [b"first".as_slice()]);
        server.wait_answered(1);
        server.wait_read();
        server.next(death);
        let large = vec![7; 1 << 20];
        post_all(&extension, [large.as_slice()]);
        server.wait_answered(2);
        assert_eq!(stored(&server), [large, b"first".to_vec()], "each once");
        assert_eq!(server.connections().len(), 2);
        end(extension).expect(2, 0);
    }
}

#[test]
fn the_log_says_how_a_connection_ended() {
    for (death, cause) in [
        (Play::close_unanswered(), "cause=\"connection closed\""),
        (Play::reset_unanswered(), "cause=\"connection reset\""),
    ] {
        let server = Pyroscope::http();
        server.next(death);
        let extension = Sandbox::relay_only(&server)
            .set("PYROSCOPE_LOG_LEVEL", "debug")
            .listening();
        post_all(&extension, [b"payload".as_slice()]);
        let line = extension.wait_log("Connection to the server ended");
        assert!(line.contains(cause), "{line}");
    }
}

/// Where both are read in one go, no further event tells of the end.
#[test]
fn the_end_of_a_connection_is_seen_with_the_answer_before_it() {
    let (server, gate) = (Pyroscope::http(), Gate::new());
    // Its length is not said: it is whole at the connection's end.
    let answer = Play::raw("HTTP/1.1 200 OK\r\n\r\n").unanswered_until(&gate);
    server.next(answer.then_close());
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_TIMEOUT", "1h")
        .set("PYROSCOPE_LOG_LEVEL", "debug")
        .listening();
    post_all(&extension, [b"payload".as_slice()]);
    server.wait_complete(1);
    extension.wait_asleep();
    extension.freeze();
    gate.open();
    server.wait_ended(0);
    extension.thaw();
    extension.wait_log("Connection to the server ended");
    end(extension).expect(1, 0);
}

#[test]
fn a_connection_may_die_after_each_answer() {
    let server = Pyroscope::http();
    server.always(Play::answer(200).then_close());
    let extension = Sandbox::relay_only(&server).listening();
    post_all(&extension, [b"payload".as_slice(); 20]);
    server.wait_answered(20);
    end(extension).expect(20, 0);
}

/// In flight on five connections, frozen, reset by the server, thawed.
#[test]
fn payloads_in_flight_survive_a_freeze() {
    let (lambda, server, gate) = (ExtensionsApi::start(), Pyroscope::http(), Gate::new());
    let mut extension = Sandbox::with(&lambda, &server).listening();
    lambda.invoke_and_wait();
    for _ in 0..5 {
        server.next(Play::answer(200).unanswered_until(&gate));
    }
    let bodies: Vec<Vec<u8>> = (0..5).map(|n| vec![n; 65_536]).collect();
    post_all(&extension, bodies.iter().map(Vec::as_slice));
    server.wait_complete(5);
    extension.freeze();
    server.reset_all();
    extension.thaw();
    server.wait_answered(5);
    assert_eq!(stored(&server), bodies);
    lambda.shutdown(Duration::from_secs(2));
    extension.expect_exit(0);
    extension.totals().expect(5, 0);
}

// Answers.

#[test]
fn answers_of_every_framing() {
    let kept: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Type: application/proto\r\nContent-Length: 12\r\n\r\nhello world!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200\r\nContent-Length: 1\r\n\r\n!",
    ];
    let closing: &[&[u8]] = &[
        b"HTTP/1.1 200 OK\r\n\r\nup to the end",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ];
    let one = |answer: &[u8], bytewise: bool, connections: usize, last: fn(Play) -> Play| {
        let (server, extension) = bench();
        let play = if bytewise {
            Play::bytewise(answer)
        } else {
            Play::raw(answer)
        };
        server.next(last(play));
        for count in 1..=2 {
            post_all(&extension, [b"payload".as_slice()]);
            server.wait_answered(count);
            // What the relay thinks of its connection shows in the next payload, when it has read this answer.
            server.wait_read();
        }
        let shown = String::from_utf8_lossy(answer);
        assert_eq!(server.connections().len(), connections, "{shown}");
        assert_eq!(server.requests().len(), 2, "{shown}");
        end(extension).expect(2, 0);
    };
    let all = kept.iter().map(|&answer| (answer, 1));
    let all = all.chain(closing.iter().map(|&answer| (answer, 2)));
    let both = all.flat_map(|(answer, connections)| {
        [false, true].map(|bytewise| (answer, connections, bytewise))
    });
    side_by_side(both, |(answer, connections, bytewise)| {
        let last = if connections == 1 {
            |play| play
        } else {
            Play::then_close
        };
        one(answer, bytewise, connections, last);
    });
}

/// The final answer comes while the payload is still being sent: it counts, and nothing is sent again.
#[test]
fn an_early_answer_ends_the_attempt() {
    let (server, never) = (Pyroscope::http(), Gate::new());
    server.next(Play(vec![
        Step::ReadHead,
        Step::Write(response(413, &[], b"too large")),
        Step::Hold(never),
    ]));
    let extension = Sandbox::relay_only(&server).listening();
    post_all(&extension, [vec![7; 8 << 20].as_slice()]);
    extension.wait_complaint(&["413"]);
    post_all(&extension, [b"next".as_slice()]);
    assert_eq!(server.wait_complete(1)[0].payload(), b"next");
    end(extension).expect(1, 1);
}

/// As above, and the server closes at once with the payload unread: the answer is there to be read before the reset.
#[test]
fn an_early_answer_counts_though_a_reset_follows() {
    let server = Pyroscope::http();
    server.always(Play::early(response(401, &[], b"who are you")));
    let extension = Sandbox::relay_only(&server).listening();
    post_all(&extension, [vec![7; 1 << 20].as_slice()]);
    extension.wait_complaint(&["401"]);
    end(extension).expect(0, 1);
    assert_eq!(server.requests().len(), 1);
}

#[test]
fn an_answer_with_a_long_body_is_an_answer() {
    let (server, extension) = bench();
    server.next(Play::raw(response(200, &[], &vec![b'x'; 1 << 20])));
    post_all(&extension, [b"first".as_slice(), b"second"]);
    server.wait_answered(2);
    assert_eq!(stored(&server), [b"first".to_vec(), b"second".to_vec()]);
    end(extension).expect(2, 0);
}

#[test]
fn an_answer_that_is_no_http_is_no_answer() {
    let (server, extension) = bench();
    server.next(Play::raw("220 mail.example ESMTP\r\n\r\n").then_close());
    server.next(Play::raw("HTTP/1.1 503 No\r\nContent-Le").then_close());
    post_all(&extension, [b"payload".as_slice()]);
    server.wait_complete(3);
    end(extension).expect(1, 0);
}

// Refusals.

#[test]
fn what_the_server_refuses_for_good_is_lost_and_counted() {
    let all = [400, 401, 403, 404, 413, 415, 422, 301, 302, 307];
    side_by_side(all, |status| {
        let server = Pyroscope::http();
        let location = [("Location", "/elsewhere")];
        server.always(Play::raw(response(
            status,
            if status < 400 { &location } else { &[] },
            b"the reason",
        )));
        let extension = Sandbox::relay_only(&server).listening();
        post_all(&extension, [b"one".as_slice(), b"two"]);
        server.wait_answered(2);
        let line = extension.wait_complaint(&[&status.to_string()]);
        assert!(status >= 400 || line.contains("/elsewhere"), "{line}");
        end(extension).expect(0, 2);
        assert_eq!(server.requests().len(), 2, "{status} is final");
    });
}

#[test]
fn what_the_server_may_take_later_is_sent_again() {
    side_by_side([408, 429, 500, 502, 503, 504], |status| {
        let (server, extension) = bench();
        server.next(Play::answer(status));
        server.next(Play::answer(status));
        post_all(&extension, [b"payload".as_slice()]);
        let requests = server.wait_complete(3);
        assert!(
            requests
                .iter()
                .all(|request| request.payload() == b"payload"),
            "{status}"
        );
        end(extension).expect(1, 0);
        assert_eq!(server.requests().len(), 3, "{status}");
    });
}

#[test]
fn a_profile_that_nothing_else_overtakes_is_tried_until_it_gets_through() {
    let server = Pyroscope::http();
    server.always(Play::answer(503));
    let extension = Sandbox::relay_only(&server).listening();
    post_all(&extension, [b"payload".as_slice()]);
    server.wait_answered(6);
    extension.wait_complaint(&["503"]);
    server.always(Play::answer(200));
    end(extension).expect(1, 0);
}

#[test]
fn retry_after_is_heeded() {
    let (server, extension) = bench();
    server.next(Play::raw(response(503, &[("Retry-After", "1")], b"")));
    post_all(&extension, [b"payload".as_slice()]);
    let requests = server.wait_complete(2);
    assert!(requests[1].head_at - requests[0].head_at >= Duration::from_millis(950));
    end(extension).expect(1, 0);
}

#[test]
fn a_server_that_is_down_gets_everything_when_it_is_up() {
    let server = Pyroscope::refusing(None).quick();
    let extension = Sandbox::relay_only(&server).listening();
    let bodies: Vec<Vec<u8>> = (0..100).map(|n| vec![n; 65_536]).collect();
    post_all(&extension, bodies.iter().map(Vec::as_slice));
    server.accept();
    server.wait_answered(100);
    assert_eq!(stored(&server), bodies);
    end(extension).expect(100, 0);
    assert_eq!(server.requests().len(), 100, "none twice");
}

/// More than the ring holds, by number and by size: the oldest that wait give way, and every one is accounted for.
#[test]
fn what_the_ring_cannot_hold_is_lost_and_counted() {
    for (count, size) in [(300_u64, 100), (24, 1 << 20)] {
        let (server, gate) = (Pyroscope::http().quick(), Gate::new());
        server.always(Play::answer(200).unread_until(&gate));
        let extension = Sandbox::relay_only(&server).listening();
        let bodies: Vec<Vec<u8>> = (0..count)
            .map(|n| {
                let mut body = vec![7; size];
                body[..8].copy_from_slice(&n.to_be_bytes());
                body
            })
            .collect();
        post_all(&extension, bodies.iter().map(Vec::as_slice));
        server.wait_begun(5);
        gate.open();
        let totals = end(extension);
        // The extension may have read an answer, and left, before the stand-in has noted that it gave one.
        let relayed = usize::try_from(totals.count("relayed")).expect("a small number");
        server.wait_answered(relayed);
        let stored = stored(&server);
        let lost = count - stored.len() as u64;
        assert!(lost > 0 && lost < count / 2, "{lost} of {count} lost");
        totals.expect(stored.len() as u64, lost);
        let newest = &bodies[bodies.len() - 10..];
        assert!(
            newest.iter().all(|body| stored.contains(body)),
            "the newest stay"
        );
    }
}

#[test]
fn a_failing_server_does_not_write_a_line_for_each_payload() {
    let server = Pyroscope::http();
    server.always(Play::answer(401));
    let extension = Sandbox::relay_only(&server).listening();
    post_all(&extension, [b"payload".as_slice(); 40]);
    server.wait_answered(40);
    server.wait_read();
    let lines = extension.complaints();
    assert!(
        (1..=3).contains(&lines.len()),
        "{} lines for one and the same trouble: {lines:#?}",
        lines.len()
    );
    end(extension).expect(0, 40);
}

// Settings.

/// Sends one request with these header lines and returns what the server got.
#[track_caller]
fn relayed(settings: &[(&str, &str)], headers: &str) -> Request {
    let server = Pyroscope::http();
    let with_port = |value: &str| value.replace("SERVER", &server.host());
    let sandbox = settings
        .iter()
        .fold(Sandbox::relay_only(&server), |sandbox, (name, value)| {
            sandbox.set(name, with_port(value))
        });
    let extension = sandbox.listening();
    let mut client = extension.client();
    client.send(with_length(
        &format!("POST /ingest?x=1 HTTP/1.1\r\nHost: sdk.example:4040\r\n{headers}"),
        b"body",
    ));
    client.expect_ok();
    server.wait_only()
}

const TOKEN: (&str, &str) = ("PYROSCOPE_AUTH_TOKEN", "t0ken");
const USER: (&str, &str) = ("PYROSCOPE_BASIC_AUTH_USER", "user");
const PASSWORD: (&str, &str) = ("PYROSCOPE_BASIC_AUTH_PASSWORD", "pass:word");
const USERINFO: (&str, &str) = ("PYROSCOPE_REMOTE_ADDRESS", "http://me:p%40ss@SERVER");

#[test]
fn authorization() {
    let (bearer, basic) = ("Bearer t0ken", "Basic dXNlcjpwYXNzOndvcmQ=");
    let from_address = "Basic bWU6cEBzcw==";
    let sdk = "authorization: Basic c2Rr\r\n";
    let check = |settings: &[(&str, &str)], headers: &str, expected: Option<&str>| {
        let request = relayed(settings, headers);
        assert_eq!(
            request.header("Authorization").as_deref(),
            expected,
            "{settings:?} {headers:?}"
        );
    };
    check(&[], "", None);
    check(&[], sdk, Some("Basic c2Rr"));
    check(&[TOKEN], "", Some(bearer));
    check(&[TOKEN], sdk, Some(bearer));
    check(&[USER, PASSWORD], sdk, Some(basic));
    check(&[TOKEN, USER, PASSWORD], sdk, Some(bearer));
    check(&[USER], sdk, Some("Basic c2Rr"));
    check(&[PASSWORD], "", None);
    check(&[USERINFO], "", Some(from_address));
    check(&[USERINFO], sdk, Some("Basic c2Rr"));
    check(&[USERINFO, TOKEN], "", Some(bearer));
    check(&[("PYROSCOPE_AUTH_TOKEN", "")], sdk, Some("Basic c2Rr"));
}

#[test]
fn tenant() {
    let tenant = ("PYROSCOPE_TENANT_ID", "mine");
    for sdk in [
        "X-Scope-OrgID: theirs\r\n",
        "X-Scope-Orgid: theirs\r\n",
        "x-scope-orgid: theirs\r\n",
    ] {
        assert_eq!(
            relayed(&[tenant], sdk).header("X-Scope-OrgID").as_deref(),
            Some("mine")
        );
        assert_eq!(
            relayed(&[], sdk).header("X-Scope-OrgID").as_deref(),
            Some("theirs")
        );
    }
    assert_eq!(
        relayed(&[tenant], "").header("X-Scope-OrgID").as_deref(),
        Some("mine")
    );
    assert_eq!(relayed(&[], "").header("X-Scope-OrgID"), None);
}

#[test]
fn extra_headers_replace_what_is_there() {
    let extra = (
        "PYROSCOPE_HTTP_HEADERS",
        r#"{"X-Extra": "one \"two\" \u00e9", "x-scope-orgid":"from-extra", "User-Agent":"mine"}"#,
    );
    let request = relayed(
        &[extra, ("PYROSCOPE_TENANT_ID", "mine")],
        "User-Agent: sdk\r\nX-EXTRA: sdk\r\n",
    );
    assert_eq!(request.header("X-Extra").as_deref(), Some("one \"two\" é"));
    assert_eq!(
        request.header("X-Scope-OrgID").as_deref(),
        Some("from-extra")
    );
    assert_eq!(request.header("User-Agent").as_deref(), Some("mine"));
}

#[test]
fn extra_headers_that_are_not_json() {
    let server = Pyroscope::http();
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_HTTP_HEADERS", "X-Extra: one")
        .listening();
    extension.wait_complaint(&["PYROSCOPE_HTTP_HEADERS"]);
    post_all(&extension, [b"payload".as_slice()]);
    assert_eq!(server.wait_only().header("X-Extra"), None);
}

#[test]
fn what_is_between_two_neighbours_is_not_relayed() {
    let request = relayed(
        &[],
        "Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authorization: x\r\nProxy-Connection: x\r\nTE: trailers\r\nTrailer: X\r\nUpgrade: h2c\r\nAccept-Encoding: br\r\nX-Kept: yes\r\nX-Empty:\r\n",
    );
    let names: Vec<String> = request
        .head
        .headers()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(
        names,
        [
            "Host",
            "X-Kept",
            "X-Empty",
            "X-Forwarded-Host",
            "Content-Length"
        ]
    );
    assert_eq!(
        request.header("X-Forwarded-Host").as_deref(),
        Some("sdk.example:4040")
    );
}

#[test]
fn the_address_has_a_path() {
    for (address, path) in [
        ("http://SERVER/", "/ingest"),
        ("http://SERVER/base/", "/base/ingest"),
        ("http://SERVER/a/b", "/a/b/ingest"),
    ] {
        let request = relayed(&[("PYROSCOPE_REMOTE_ADDRESS", address)], "");
        assert_eq!(request.target(), format!("{path}?x=1"));
    }
}

#[test]
fn a_bad_timeout_is_said_and_does_no_harm() {
    let server = Pyroscope::http();
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_TIMEOUT", "soon")
        .listening();
    extension.wait_complaint(&["PYROSCOPE_TIMEOUT"]);
    post_all(&extension, [b"payload".as_slice()]);
    server.wait_answered(1);
    end(extension).expect(1, 0);
}

/// A client that connects and says nothing costs nobody anything.
#[test]
fn a_silent_client_does_not_hold_up_the_others() {
    let (server, extension) = bench();
    let silent: Vec<Client> = (0..70).map(|_| extension.client()).collect();
    post_all(&extension, [b"payload".as_slice()]);
    server.wait_answered(1);
    drop(silent);
    end(extension).expect(1, 0);
}
