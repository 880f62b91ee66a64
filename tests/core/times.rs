//! The core makes the times of profiles unique, moves starts that the server would refuse, and leaves out uploads of
//! nothing.

use std::io::{Read as _, Write as _};
use std::time::Duration;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::world::{OK, World, status};
use pyroscope_lambda_extension::contract::{ConnId, End};

/// Milliseconds since 1970 as the world begins.
const BEGIN_MS: u64 = 1_800_000_000_000;
const BEGIN: u64 = BEGIN_MS / 1000;

const JFR: &str = "format=jfr&name=a";

/// A recording that covers this time, in seconds.
fn upload_seconds(world: &mut World, from: u64, until: u64) {
    let target = format!("/ingest?{JFR}&from={from}&until={until}");
    world.upload(&target, b"recording");
}

/// The times in the target of the last request on that connection.
fn times(request: &str) -> (u64, u64) {
    let value = |name: &str| {
        let (_, rest) = request.rsplit_once(name).expect(name);
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
        digits.unwrap_or_default().parse().expect(name)
    };
    (value("&from="), value("&until="))
}

#[test]
fn the_times_of_a_query_are_unique_and_the_same_in_each_attempt() {
    let mut world = World::new(&[]);
    upload_seconds(&mut world, BEGIN - 10, BEGIN);
    let first = world.connect();
    let request = world.seen(first);
    let (from, until) = times(&request);
    assert_eq!(until - from, 10_000_000_000);
    let filling = from - (BEGIN - 10) * 1_000_000_000;
    assert!(filling > 0 && filling < 1_000_000_000, "{from}");

    world.answer(first, &status(503));
    world.pass_to_deadline();
    assert_eq!(world.seen(first), request, "the second attempt");
    world.answer(first, OK);
    upload_seconds(&mut world, BEGIN, BEGIN + 10);
    assert_eq!(
        times(&world.seen(first)),
        (until, until + 10_000_000_000),
        "one sandbox, one filling"
    );

    let mut other = World::new(&[]);
    upload_seconds(&mut other, BEGIN - 10, BEGIN);
    let connection = other.connect();
    assert_ne!(times(&other.seen(connection)).0, from, "another sandbox");
}

/// A Push request with one series, one sample and a pprof that has nothing but this time.
fn push(time: u64) -> Vec<u8> {
    let mut pprof = vec![9 << 3];
    let mut rest = time;
    while rest > 0x7f {
        pprof.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    pprof.push(rest as u8);
    let mut body = pprof;
    for field in [1, 2, 1] {
        body = [&[field << 3 | 2, body.len() as u8], &body[..]].concat();
    }
    body
}

/// The body of the last request on that connection.
fn body(world: &World, on: ConnId) -> Vec<u8> {
    let written = &world.written[&on];
    let mut windows = written.windows(4).rev();
    let after = windows.position(|w| w == b"\r\n\r\n").expect("a head");
    written[written.len() - after..].to_vec()
}

#[test]
fn the_times_in_a_body_are_unique_and_the_same_in_each_attempt() {
    let mut world = World::new(&[]);
    let time = BEGIN * 1_000_000_000;
    world.upload("/push.v1.PusherService/Push", &push(time));
    let first = world.connect();
    let sent = body(&world, first);
    let same_fill = (1..1_000_000_000).contains(&(time_in(&sent) - time));
    assert!(same_fill, "{}", time_in(&sent));
    assert_eq!(sent, push(time_in(&sent)), "nothing else changes");
    let head = String::from_utf8_lossy(&world.written[&first]).into_owned();
    assert!(head.contains("\r\nContent-Length: 16\r\n"), "{head}");

    world.answer(first, &status(503));
    world.pass_to_deadline();
    assert_eq!(body(&world, first), sent, "the second attempt");
    world.answer(first, OK);
    assert_eq!(world.totals().relayed, 1);
}

fn time_in(push: &[u8]) -> u64 {
    let digits = push[7..].iter().rev();
    digits.fold(0, |time, byte| time << 7 | u64::from(byte & 0x7f))
}

#[test]
fn a_body_that_grows_has_its_new_length_in_the_head() {
    let mut world = World::new(&[]);
    let pprof = push(BEGIN * 1_000_000_000)[6..].to_vec();
    world.upload("/ingest?format=pprof&name=a", &pprof);
    let connection = world.connect();
    let sent = body(&world, connection);
    assert_eq!(sent[..pprof.len()], pprof[..]);
    assert_eq!(sent.len(), pprof.len() + 10, "the field once more");
    let head = String::from_utf8_lossy(&world.written[&connection]).into_owned();
    assert!(head.contains("\r\nContent-Length: 20\r\n"), "{head}");
    world.answer(connection, OK);
    assert_eq!(world.totals().relayed_bytes, 20);
}

/// All of it is one block, of which only the end is written anew: its beginning must no longer say that it is the last.
#[test]
fn the_time_in_a_compressed_body_is_unique_and_it_can_still_be_read() {
    // A series, its sample and its pprof, with a long text before the time.
    let long_push = |time: u64| {
        let field = |number: u8, body: &[u8]| {
            let length = [body.len(), body.len() >> 7, body.len() >> 14];
            let [low, middle, high] = length.map(|bits| bits as u8 & 0x7f);
            [&[number << 3 | 2, low | 0x80, middle | 0x80, high], body].concat()
        };
        let pprof = [&field(6, &[b'x'; 200_000])[..], &push(time)[6..]].concat();
        field(1, &field(2, &field(1, &pprof)))
    };
    let mut world = World::new(&[]);
    let time = BEGIN * 1_000_000_000;
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&long_push(time)).expect("written to memory");
    let gzip = gzip.finish().expect("written to memory");
    world.upload("/push.v1.PusherService/Push", &gzip);
    let connection = world.connect();
    let sent = body(&world, connection);
    assert_ne!(sent, gzip);
    let mut read = Vec::new();
    let mut decoder = GzDecoder::new(&sent[..]);
    decoder.read_to_end(&mut read).expect("gzip");
    let unique = time_in(&[&[0; 6], &read[read.len() - 10..]].concat());
    assert!((1..1_000_000_000).contains(&(unique - time)), "{unique}");
    assert!(read == long_push(unique), "nothing else changes");
}

#[test]
fn nothing_changes_if_that_is_wanted() {
    let mut world = World::new(&[("PYROSCOPE_UNIQUE_TIMES", "false")]);
    upload_seconds(&mut world, BEGIN, BEGIN);
    let connection = world.connect();
    assert_eq!(times(&world.seen(connection)), (BEGIN, BEGIN));
    world.answer(connection, OK);
    upload_seconds(&mut world, BEGIN, BEGIN);
    assert_eq!(times(&world.seen(connection)), (BEGIN, BEGIN), "once more");
    world.answer(connection, OK);
    let push = push(BEGIN * 1_000_000_000);
    world.upload("/push.v1.PusherService/Push", &push);
    assert_eq!(body(&world, connection), push);
}

/// The sandbox is frozen for that long, as its wall clock shows.
fn freeze(world: &mut World, time: Duration) {
    world.now.unix_ms += time.as_millis() as u64;
    world.relay.thawed(time, world.now);
    world.settle();
}

#[test]
fn a_profile_that_spans_a_freeze_begins_at_its_end() {
    let mut world = World::new(&[]);
    let hours = Duration::from_hours(2);
    freeze(&mut world, hours);
    world.pass(Duration::from_secs(3));
    let until = BEGIN + hours.as_secs() + 3;
    upload_seconds(&mut world, BEGIN - 5, until);
    let connection = world.connect();
    let (from, _) = times(&world.seen(connection));
    let thaw = BEGIN * 1_000_000_000 + hours.as_nanos() as u64;
    assert!(from > thaw && from - thaw < 1_000_000, "{from}, not {thaw}");
    world.answer(connection, OK);

    upload_seconds(&mut world, BEGIN - 20, BEGIN - 10);
    let (from, _) = times(&world.seen(connection));
    assert_eq!(
        from / 1_000_000_000,
        BEGIN - 20,
        "it ended before the freeze, and stays for the server to judge"
    );
}

#[test]
fn a_profile_that_waited_here_for_long_keeps_its_start() {
    let mut world = World::new(&[]);
    upload_seconds(&mut world, BEGIN - 10, BEGIN);
    world.refuse();
    freeze(&mut world, Duration::from_hours(2));
    world.pass_to_deadline();
    let connection = world.connect();
    let (from, _) = times(&world.seen(connection));
    assert_eq!(from / 1_000_000_000, BEGIN - 10);
}

/// After a thaw Java's SDK makes up for each interval that it missed.
#[test]
fn of_uploads_of_nothing_one_is_sent_and_the_others_are_counted() {
    let mut world = World::new(&[]);
    upload_seconds(&mut world, BEGIN - 40, BEGIN);
    for _ in 0..30 {
        upload_seconds(&mut world, BEGIN, BEGIN);
    }
    upload_seconds(&mut world, BEGIN, BEGIN + 10);
    let other = format!("/ingest?format=jfr&name=b&from={BEGIN}&until={BEGIN}");
    world.upload(&other, b"recording");
    world.upload(&other, b"recording");
    let mut targets = Vec::new();
    while !world.connecting.is_empty() || world.in_hand() > 0 {
        let connection = world.connect();
        while !world.written[&connection].is_empty() {
            targets.push(world.seen(connection));
            world.answer(connection, OK);
        }
    }
    assert_eq!(targets.len(), 4, "{targets:#?}");
    let begun = |length: u64| {
        let mut times = targets.iter().map(|target| times(target));
        let found = times.find(|(from, until)| until - from == length * 1_000_000_000);
        found.expect("it was sent").0
    };
    assert!(begun(0) < begun(10), "both began in one second");
    let totals = world.totals();
    assert_eq!((totals.relayed, totals.left_out), (4, [30, 0]));
    assert_eq!(totals.acknowledged, 34);

    world.pass(Duration::from_secs(1));
    upload_seconds(&mut world, BEGIN + 1, BEGIN + 1);
    assert_eq!(world.in_hand(), 1, "of the next second");
    let open: Vec<ConnId> = world.written.keys().copied().collect();
    open.into_iter().for_each(|id| world.answer(id, OK));
    assert_eq!(world.in_hand(), 0);
    world.relay.terminated(world.now);
    world.settle();
    assert!(world.log().contains(" empty_left_out=30 "), "the last line");
}

/// Only an upload that was acknowledged stands for those that repeat it.
#[test]
fn an_upload_of_nothing_that_breaks_off_does_not_stand_for_the_next_one() {
    let mut world = World::new(&[]);
    let client = world.client();
    let head = format!(
        "POST /ingest?{JFR}&from={BEGIN}&until={BEGIN} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
    );
    world.arrive(client, format!("{head}reco").as_bytes(), usize::MAX);
    let reset = End::Io(std::io::ErrorKind::ConnectionReset);
    world.relay.ended(client, reset, world.now);
    world.settle();
    for left_out in [0, 1] {
        upload_seconds(&mut world, BEGIN, BEGIN);
        assert_eq!(world.in_hand(), 1, "one is sent");
        assert_eq!(world.totals().left_out, [left_out, 0]);
    }
}

/// Both the sandbox's monotonic clock and the SDK's stand still while it is frozen.
#[test]
fn a_length_by_a_clock_that_stood_still_in_the_freeze_counts_with_the_freeze() {
    let mut world = World::new(&[]);
    let hours = Duration::from_hours(2);
    world.now.unix_ms += hours.as_millis() as u64;
    world.relay.thawed(Duration::ZERO, world.now);
    world.settle();
    let start = (BEGIN - 5) * 1_000_000_000;
    let mut body = push(start)[6..].to_vec();
    body.extend_from_slice(b"\x50\x80\xe4\x97\xd0\x12"); // five seconds
    world.upload("/ingest?format=pprof&name=a", &body);
    let connection = world.connect();
    let sent = self::body(&world, connection);
    let time = time_in(&[&[0; 7], &sent[body.len() + 1..]].concat());
    let thaw = BEGIN * 1_000_000_000 + hours.as_nanos() as u64;
    assert!(time > thaw && time - thaw < 1_000_000, "{time}, not {thaw}");
}
