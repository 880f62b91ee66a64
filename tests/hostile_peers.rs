//! Does every payload end in a counter, in time, whatever the server does? And does the extension live on, without
//! spinning, whatever Lambda's API answers? The whole core under a made-up clock; clients that mean harm are in
//! `hostile.rs`, since they are about sockets.

#[path = "support/world.rs"]
mod world;

use std::time::Duration;

use pyroscope_lambda_extension::contract::{ConnId, End};
use world::{OK, World};

// The server.

/// Seven attempts of ten seconds, and the pauses between them.
const LONGEST: Duration = Duration::from_secs(90);

/// What is read of one answer at most: a head and a body of 64 KiB each, and what framing adds.
const READ_MAX: usize = 512 << 10;

/// Relays one payload, each attempt of which `answer` answers, among others that get through; says how it ended.
fn relay(mut answer: impl FnMut(&mut World, ConnId)) -> (World, &'static str) {
    let mut world = World::new(&[]);
    let began = world.now.mono;
    world.post("x");
    loop {
        let took = world.now.mono - began;
        assert!(took < LONGEST, "not at an end after {took:?}");
        let id = world.next_attempt();
        answer(&mut world, id);
        match (world.in_hand(), world.totals().lost_sum()) {
            (0, 0) => return (world, "relayed"),
            (0, _) => return (world, "lost"),
            _ => world.relay_another(),
        }
    }
}

fn is_open(world: &World, id: ConnId) -> bool {
    world.written.contains_key(&id)
}

/// Answers `start`, then `more` for as long as it is taken.
fn without_end(start: &str, more: &str) -> &'static str {
    let (_, end) = relay(|world, id| {
        let mut taken = world.offer(id, start.as_bytes(), usize::MAX);
        while is_open(world, id) {
            let n = world.offer(id, more.as_bytes(), usize::MAX);
            assert!(n > 0 || !is_open(world, id), "not wanted, and not closed");
            taken += n;
            assert!(taken <= READ_MAX, "{taken} bytes of an answer were read");
        }
    });
    end
}

#[test]
fn answers_without_end() {
    let kilobyte = "x".repeat(1000);
    for (start, more, end) in [
        ("", "\0\u{1}\u{2}garbage", "lost"),
        ("", &*kilobyte, "lost"),
        ("", "\r\n", "lost"),
        ("HTTP/1.1 200 ", &kilobyte, "lost"),
        ("HTTP/1.1 200 OK\r\n", "A: b\r\n", "relayed"),
        ("HTTP/1.1 200 OK\r\nA: ", &kilobyte, "relayed"),
        ("", "HTTP/1.1 100 Continue\r\n\r\n", "lost"),
        ("", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", "lost"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n",
            &kilobyte,
            "relayed",
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", &kilobyte, "relayed"),
        (
            "HTTP/1.1 403 No\r\nContent-Length: 10000000000\r\n\r\n",
            &kilobyte,
            "lost",
        ),
        (
            "HTTP/1.1 503 No\r\nContent-Length: 10000000000\r\n\r\n",
            &kilobyte,
            "lost",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "1\r\nx\r\n",
            "relayed",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
            "extension",
            "relayed",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
            "Trailer: x\r\n",
            "relayed",
        ),
    ] {
        assert_eq!(without_end(start, more), end, "{start:?}, then {more:.40?}");
    }
}

/// Not a byte, or one now and then: the attempt has its ten seconds, and no more.
#[test]
fn answers_byte_by_byte_and_not_at_all() {
    let slow = "HTTP/1.1 200 OK\r\nX-Slow: ".to_owned() + &"x".repeat(1000);
    for (answer, pause_ms, end) in [
        (slow.as_str(), 100, "relayed"),
        ("", 1000, "lost"),
        ("HTTP/1.1 100 Continue\r\n\r\n", 300, "lost"),
        // All said within the time.
        (OK, 200, "relayed"),
        // The status was, the body was not.
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nand so on",
            150,
            "relayed",
        ),
        (
            "HTTP/1.1 404 No\r\nContent-Length: 900\r\n\r\nand so on",
            150,
            "lost",
        ),
    ] {
        let (_, seen) = relay(|world, id| {
            let began = world.now.mono;
            let mut bytes = answer.bytes();
            while is_open(world, id) && world.in_hand() > 0 {
                if let Some(byte) = bytes.next() {
                    world.offer(id, &[byte], 1);
                }
                world.pass(Duration::from_millis(pause_ms));
                assert!(world.now.mono - began <= Duration::from_millis(10_000 + pause_ms));
            }
        });
        assert_eq!(seen, end, "{answer:.40?}");
    }
}

#[test]
fn answers_that_end_at_every_byte() {
    let refused = "HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nwhy\r\n0\r\n\r\n";
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\n{OK}");
    for (answer, whole) in [(OK, "relayed"), (refused, "lost"), (&*interim, "relayed")] {
        // A success is one as soon as its status line is there.
        let line = answer.find("200 OK\r\n").map_or(0, |at| at + 8);
        for why in [End::Eof, End::Io(std::io::ErrorKind::ConnectionReset)] {
            for cut in 0..=answer.len() {
                let mut attempts = 0;
                let (_, end) = relay(|world, id| {
                    attempts += 1;
                    world.offer(id, &answer.as_bytes()[..cut], usize::MAX);
                    if is_open(world, id) {
                        world.close(id, why);
                    }
                });
                if cut == answer.len() {
                    assert_eq!((end, attempts), (whole, 1), "{answer:?}");
                } else if whole == "relayed" && cut >= line {
                    assert_eq!((end, attempts), ("relayed", 1), "{cut} bytes of {answer:?}");
                } else if whole == "relayed" {
                    // Five that count after the first, before which nothing else got through; and one for free.
                    assert_eq!(end, "lost", "{cut} bytes of {answer:?}");
                    assert!((6..=7).contains(&attempts), "{attempts}: {cut} bytes");
                }
            }
        }
    }
}

/// The first byte of each is right, and then it is another's turn: none of them may learn what was meant for another.
#[test]
fn an_answer_that_nobody_waits_for_ends_the_connection() {
    let mut world = World::new(&[]);
    world.post("one");
    let id = world.connect();
    world.answer(id, OK);
    assert!(is_open(&world, id));
    world.offer(id, OK.as_bytes(), usize::MAX);
    assert!(!is_open(&world, id), "nothing had been asked");
    world.post("two");
    assert_eq!(world.totals().relayed, 1, "two has not been sent yet");
    let id = world.connect();
    assert!(world.seen(id).ends_with("two"));
}

// Lambda's API.

fn api() -> World {
    World::new(&[
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ])
}

const REGISTERED: &str =
    "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: id-1\r\nContent-Length: 2\r\n\r\n{}";

fn event(json: &str) -> String {
    let length = json.len();
    format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{json}")
}

/// Answers of which no event can be read, each with whether the API closes behind it.
fn odd_answers() -> Vec<(String, bool)> {
    let huge = format!(r#"{{"eventType":"INVOKE","x":"{}"}}"#, "x".repeat(70_000));
    let long = "A: b\r\n".repeat(12_000);
    let excuse = "\u{1}".repeat(60_000);
    vec![
        (
            format!("HTTP/1.1 500 No\r\nContent-Length: 60000\r\n\r\n{excuse}"),
            false,
        ),
        ("\0\u{1}garbage\r\n\r\n".to_owned(), false),
        ("SSH-2.0-OpenSSH\r\n\r\n".to_owned(), false),
        (String::new(), true),
        ("HTTP/1.1 200 OK\r\nConte".to_owned(), true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"event".to_owned(),
            true,
        ),
        (
            "HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops".to_owned(),
            false,
        ),
        (
            "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n".to_owned(),
            false,
        ),
        (
            "HTTP/1.1 301 No\r\nLocation: /\r\nContent-Length: 0\r\n\r\n".to_owned(),
            false,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 101 Switching\r\n\r\n".to_owned(), false),
        ("HTTP/1.1 100 Continue\r\n\r\n".repeat(9), false),
        (format!("HTTP/1.1 200 OK\r\n{long}"), false),
        (event(&huge), false),
        (event(""), false),
        (event("[]"), false),
        (event("{"), false),
        (event(r#"{"eventType":"NEWS"}"#), false),
        (event(r#"{"eventType":["INVOKE"]}"#), false),
    ]
}

/// The API answers like this for ten minutes: it is asked again after each, with pauses; the log stays small; and when it
/// makes sense again, so does everything.
#[test]
fn odd_answers_to_the_poll_are_outlived() {
    for (odd, closes) in odd_answers() {
        let mut world = api();
        let mut id = world.connect();
        world.seen(id);
        world.answer(id, REGISTERED);
        let mut asked = 0;
        let began = world.now.mono;
        while world.now.mono - began < Duration::from_mins(10) {
            assert!(
                world
                    .seen(id)
                    .starts_with("GET /2020-01-01/extension/event/next ")
            );
            asked += 1;
            assert!(asked < 700, "asked again and again: {odd:.60?}");
            world.offer(id, odd.as_bytes(), usize::MAX);
            if closes {
                world.close(id, End::Eof);
            }
            assert!(!is_open(&world, id), "{odd:.60?}");
            while world.connecting.is_empty() {
                world.pass_to_deadline();
            }
            id = world.connect();
        }
        assert!(asked > 500, "asked {asked} times: {odd:.60?}");
        let log = world.log();
        let lines = log.matches("Unexpected response from Lambda").count();
        assert!((1..=11).contains(&lines), "{lines} lines");
        let longest = log.lines().map(str::len).max();
        assert!(longest < Some(10_000), "a line of {longest:?} bytes");
        assert_eq!(world.exit, None);

        let next = event(r#"{"eventType":"INVOKE","requestId":"r","deadlineMs":1}"#);
        world.answer(id, &next);
        assert!(world.seen(id).ends_with("\r\n\r\n"), "asked for the next");
        let at = world.now.unix_ms + 2000;
        world.answer(
            id,
            &event(&format!(r#"{{"eventType":"SHUTDOWN","deadlineMs":{at}}}"#)),
        );
        assert_eq!(world.exit, Some(0));
    }
}

/// Registration is tried eight times in four seconds if the API cannot be understood, and once if it says no.
#[test]
fn odd_answers_to_the_registration_end_it() {
    for (odd, closes) in odd_answers() {
        let mut world = api();
        let began = world.now.mono;
        let mut asked = 0;
        while world.exit.is_none() {
            if world.connecting.is_empty() {
                world.pass_to_deadline();
                continue;
            }
            let id = world.connect();
            assert!(
                world
                    .seen(id)
                    .starts_with("POST /2020-01-01/extension/register ")
            );
            asked += 1;
            world.offer(id, odd.as_bytes(), usize::MAX);
            if closes && is_open(&world, id) {
                world.close(id, End::Eof);
            }
        }
        assert_eq!(world.exit, Some(1), "{odd:.60?}");
        assert!([1, 8].contains(&asked), "asked {asked} times: {odd:.60?}");
        assert!(world.now.mono - began < Duration::from_secs(8));
        let log = world.log();
        assert_eq!(
            log.matches("Lambda refused to register").count(),
            1,
            "{log}"
        );
        assert!(log.len() < 20_000, "{} bytes of log: {odd:.60?}", log.len());
    }
}

#[test]
fn interim_answers_of_the_api_are_skipped() {
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(8);
    let mut world = api();
    let id = world.connect();
    world.answer(id, &(interim.clone() + REGISTERED));
    assert!(world.seen(id).contains("GET "));
    world.answer(id, &(interim + &event(r#"{"eventType":"INVOKE"}"#)));
    assert!(world.seen(id).contains("GET "), "the next is asked for");
}

/// Two answers for one question: the second belongs to nothing.
#[test]
fn what_is_behind_an_answer_of_the_api_is_no_event() {
    let mut world = api();
    let id = world.connect();
    world.answer(id, REGISTERED);
    let shutdown = event(r#"{"eventType":"SHUTDOWN","deadlineMs":1}"#);
    world.offer(
        id,
        (event(r#"{"eventType":"INVOKE"}"#) + &shutdown).as_bytes(),
        usize::MAX,
    );
    assert_eq!(world.exit, None);
    assert!(
        !is_open(&world, id),
        "the connection is not trusted any further"
    );
    let id = world.connect();
    assert!(world.seen(id).contains("GET "));
    world.answer(id, &shutdown);
    assert_eq!(world.exit, Some(0));
}
