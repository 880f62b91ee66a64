//! Credentials by reference: when they are read, what waits for them, and what is lost without them.

use std::time::Duration;

use pyroscope_lambda_extension::relay::ring::LossReason;

use super::stores::{SECRET, expect_token, kept, store};
use super::world::{OK, World, event, invoke, sandbox_with, status};

/// A file, read by the shell at once.
const FILE: (&str, &str) = ("PYROSCOPE_AUTH_TOKEN", "file:///run/secrets/token");

fn shutdown(world: &World, ms: u64) -> String {
    let at = world.now.unix_ms + ms;
    event(&format!(
        r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{at}}}"#
    ))
}

fn tell_file(world: &mut World, text: &str) {
    world.file = Ok(text.as_bytes().to_vec());
}

#[test]
fn nothing_is_read_before_lambda_was_asked_and_the_function_runs() {
    let (mut world, api) = sandbox_with(&SECRET);
    assert!(world.connecting.is_empty(), "the init goes on");
    world.answer(api, &invoke(&world, 3000));
    let asked = world.seen(api);
    assert!(asked.starts_with("GET "), "{asked}");
    let id = store(&mut world);
    world.answer(id, &kept("t0ken"));
    assert!(
        !world.written.contains_key(&id),
        "one secret, one connection"
    );
    world.post("x");
    let server = world.connect();
    expect_token(&world.seen(server), "t0ken");
    world.answer(server, OK);
    world.post("x");
    expect_token(&world.seen(server), "t0ken");
    assert_eq!(world.connecting, []);
}

#[test]
fn an_upload_in_the_init_has_them_read_then() {
    let (mut world, _) = sandbox_with(&SECRET);
    world.post("x");
    let id = store(&mut world);
    assert_eq!(world.connecting, [], "the payload waits");
    world.answer(id, &kept("t0ken"));
    let server = world.connect();
    expect_token(&world.seen(server), "t0ken");
}

/// Neither the request to register nor the first one for an event waits for anything of it.
#[test]
fn an_upload_before_lambda_was_asked_waits_for_that() {
    let lambda = [
        ("PYROSCOPE_DEV_MODE", ""),
        ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ];
    let mut world = World::new(&[&SECRET[..], &lambda].concat());
    world.post("x");
    assert_eq!(world.connecting.len(), 1, "Lambda's alone");
    let api = world.connect();
    assert!(world.seen(api).starts_with("POST "));
    assert_eq!(world.connecting, []);
    world.room.insert(api, 10);
    world.answer(
        api,
        "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: id-1\r\nContent-Length: 2\r\n\r\n{}",
    );
    assert_eq!(world.seen(api), "GET /2020-");
    assert_eq!(world.connecting, [], "the request is not written yet");
    world.room.remove(&api);
    world.settle();
    assert!(world.seen(api).ends_with("\r\n\r\n"));
    store(&mut world);
}

#[test]
fn in_a_sandbox_that_is_copied_they_are_read_by_each_copy() {
    let snap_start = [("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start")];
    let (mut world, api) = sandbox_with(&[&SECRET[..], &snap_start].concat());
    world.post("x");
    assert_eq!(world.connecting, [], "no secret is in the snapshot");
    world.answer(api, &invoke(&world, 3000));
    let id = store(&mut world);
    world.answer(id, &kept("t0ken"));
    let server = world.connect();
    expect_token(&world.seen(server), "t0ken");
}

#[test]
fn a_file_is_read_and_read_again_when_the_server_refuses_what_was_in_it() {
    let mut world = World::new(&[FILE]);
    assert_eq!(world.files, ["/run/secrets/token"]);
    tell_file(&mut world, "old\n");
    world.post("x");
    world.pass_to_deadline();
    let server = world.connect();
    expect_token(&world.seen(server), "old");
    world.answer(server, OK);

    world.pass(Duration::from_mins(10));
    tell_file(&mut world, "new");
    world.post("x");
    let server = world.connect();
    expect_token(&world.seen(server), "old");
    world.answer(server, &status(401));
    assert_eq!(world.files.len(), 3);
    expect_token(&world.seen(server), "new");
    world.answer(server, OK);
    assert_eq!((world.totals().relayed, world.totals().lost_sum()), (2, 0));
    let log = world.log();
    assert!(log.contains("they are read again"), "{log}");
}

#[test]
fn credentials_that_are_refused_again_are_read_once_a_minute_and_the_payload_waits() {
    for code in [401, 403] {
        let mut world = World::new(&[FILE]);
        tell_file(&mut world, "token");
        world.post("x");
        world.pass_to_deadline();
        let reads = world.files.len();
        let server = world.next_attempt();
        world.answer(server, &status(code));
        assert_eq!(world.files.len(), reads + 1, "at once, the first time");
        let mut reads = world.files.len();
        for minute in 0..5 {
            let server = world.next_attempt();
            world.answer(server, &status(code));
            assert_eq!(world.files.len(), reads, "not at once");
            world.pass(Duration::from_secs(59));
            assert_eq!(world.files.len(), reads, "{code} {minute}");
            world.pass(Duration::from_secs(1));
            reads += 1;
            assert_eq!(world.files.len(), reads, "{code} {minute}");
        }
        let server = world.next_attempt();
        world.answer(server, OK);
        assert_eq!((world.totals().relayed, world.totals().lost_sum()), (1, 0));
        let log = world.log();
        let line = "The server refuses the credentials, profiles wait";
        assert_eq!(log.matches(line).count(), 5, "{log}");
        assert!(log.contains("The server accepts profiles again"), "{log}");
    }
}

/// What was on its way as the credentials changed says nothing about the new ones.
#[test]
fn a_refusal_of_older_credentials_is_not_one_of_those_there_are() {
    let mut world = World::new(&[FILE]);
    tell_file(&mut world, "old");
    world.post("x");
    world.pass_to_deadline();
    let server = world.connect();
    world.answer(server, OK);
    world.pass(Duration::from_mins(2));
    world.post("x");
    world.post("x");
    let (one, two) = (world.connect(), world.connect());
    expect_token(&world.seen(one), "old");
    expect_token(&world.seen(two), "old");
    tell_file(&mut world, "new");
    let reads = world.files.len();
    world.answer(one, &status(401));
    assert_eq!(world.files.len(), reads + 1);
    expect_token(&world.seen(one), "new");
    world.answer(two, &status(401));
    assert_eq!(world.files.len(), reads + 1, "that was the old token");
    expect_token(&world.seen(two), "new");
    world.answer(one, OK);
    world.answer(two, OK);
    assert_eq!((world.totals().relayed, world.totals().lost_sum()), (3, 0));
}

#[test]
fn what_cannot_be_read_is_logged_once_and_tried_again() {
    let mut world = World::new(&[FILE]);
    world.post("x");
    for _ in 0..5 {
        world.pass_to_deadline();
    }
    let log = world.log();
    assert_eq!(log.matches("level=error").count(), 1, "{log}");
    assert!(
        log.contains("msg=\"Cannot read a credential, profiles wait\" cause=\"not found\" failures=1 place=/run/secrets/token svc=pyroscope-lambda-ext-main variable=PYROSCOPE_AUTH_TOKEN\n"),
        "{log}"
    );
    let reads = world.files.len();
    assert!(reads >= 4, "{reads}");
    tell_file(&mut world, "token");
    world.pass_to_deadline();
    let server = world.connect();
    expect_token(&world.seen(server), "token");
    assert!(
        world
            .log()
            .contains("level=info msg=\"The credentials were read\"")
    );
}

#[test]
fn pauses_grow_to_half_a_minute_and_nothing_is_read_for_nobody() {
    let mut world = World::new(&[FILE]);
    assert_eq!(world.files.len(), 1);
    world.pass(Duration::from_mins(5));
    assert_eq!(world.files.len(), 1, "nothing waits for it");
    world.post("x");
    assert_eq!(world.files.len(), 2);
    let mut last = Duration::ZERO;
    for _ in 0..10 {
        last = world.pass_to_deadline();
        assert!(last <= Duration::from_secs(30), "{last:?}");
    }
    assert!(last >= Duration::from_millis(22_500), "{last:?}");
}

#[test]
fn no_invocation_is_held_for_credentials_that_cannot_be_read() {
    let (mut world, api) = sandbox_with(&[FILE, ("PYROSCOPE_FLUSH_MODE", "invoke")]);
    world.post("x");
    assert_eq!(world.files.len(), 1);
    world.answer(api, &invoke(&world, 3000));
    assert!(world.seen(api).starts_with("GET "), "at once");
}

#[test]
fn nor_is_one_held_while_what_failed_is_read_again() {
    let flush = [("PYROSCOPE_FLUSH_MODE", "invoke")];
    let (mut world, api) = sandbox_with(&[&SECRET[..], &flush].concat());
    world.post("x");
    world.refuse();
    world.pass_to_deadline();
    store(&mut world);
    world.answer(api, &invoke(&world, 60_000));
    assert!(world.seen(api).starts_with("GET "), "at once");
}

#[test]
fn an_invocation_is_held_while_they_are_read_within_the_budget() {
    let flush = [("PYROSCOPE_FLUSH_MODE", "invoke")];
    let (mut world, api) = sandbox_with(&[&SECRET[..], &flush].concat());
    world.post("x");
    let id = store(&mut world);
    world.answer(api, &invoke(&world, 60_000));
    assert_eq!(world.seen(api), "", "the store answers any moment");
    world.answer(id, &kept("t0ken"));
    let server = world.connect();
    expect_token(&world.seen(server), "t0ken");
    assert_eq!(world.seen(api), "");
    world.answer(server, OK);
    assert!(world.seen(api).starts_with("GET "));
}

#[test]
fn what_is_left_at_the_end_is_counted_under_its_own_reason() {
    let (mut world, api) = sandbox_with(&[FILE]);
    world.post("x");
    world.post("x");
    let reads = world.files.len();
    world.answer(api, &shutdown(&world, 2000));
    assert!(world.files.len() > reads, "tried at once");
    for _ in 0..50 {
        if world.exit.is_none() {
            world.pass_to_deadline();
        }
    }
    assert_eq!(world.exit, Some(0));
    assert_eq!(world.lost(LossReason::Credentials), 2);
    let log = world.log();
    assert!(log.contains(" lost=2 lost_credentials=2 "), "{log}");
}

#[test]
fn what_can_be_read_at_the_end_is_sent() {
    let (mut world, api) = sandbox_with(&[FILE]);
    world.post("x");
    tell_file(&mut world, "token");
    world.answer(api, &shutdown(&world, 2000));
    let server = world.connect();
    expect_token(&world.seen(server), "token");
    world.answer(server, OK);
    assert_eq!((world.exit, world.totals().relayed), (Some(0), 1));
}

#[test]
fn what_was_just_read_and_is_refused_is_not_read_again_to_leave() {
    let (mut world, api) = sandbox_with(&[FILE]);
    tell_file(&mut world, "token");
    world.post("x");
    let server = world.connect();
    world.answer(server, &status(401));
    let reads = world.files.len();
    let server = world.next_attempt();
    world.answer(server, &status(401));
    world.answer(api, &shutdown(&world, 2000));
    assert_eq!(world.files.len(), reads, "not a minute has passed");
    for _ in 0..50 {
        if world.exit.is_none() {
            world.pass_to_deadline();
        }
    }
    assert_eq!(world.exit, Some(0));
    assert_eq!(world.files.len(), reads);
    assert_eq!(world.lost(LossReason::Credentials), 1);
}
