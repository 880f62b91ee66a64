//! The core gives profiles the labels of the settings, and takes them away again if the server does not want them.

use super::world::{OK, World, draw_anew, status};

const LABELS: (&str, &str) = ("PYROSCOPE_LABELS", r#"{"env": "prod", "team": "a b"}"#);

fn first_request(world: &mut World) -> Vec<u8> {
    let connection = world.connect();
    std::mem::take(world.written.get_mut(&connection).unwrap())
}

fn sent(vars: &[(&str, &str)], target: &str, body: &[u8]) -> (World, Vec<u8>) {
    draw_anew();
    let mut world = World::new(vars);
    world.upload(target, body);
    let request = first_request(&mut world);
    (world, request)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn labels_join_the_name_and_those_of_the_sdk_win() {
    for (target, name) in [
        (
            "/ingest?name=app",
            "app%7B__session_id__%3D0123456789abcdef%2Cenv%3Dprod%2Cteam%3Da+b%7D",
        ),
        (
            "/ingest?name=app%7Benv%3Ddev%7D",
            "app%7B__session_id__%3D0123456789abcdef%2Cenv%3Ddev%2Cteam%3Da+b%7D",
        ),
        (
            "/ingest?name=app%7B__session_id__%3D1%2Cenv%3D2%2Cteam%3D3%7D",
            "app%7B__session_id__%3D1%2Cenv%3D2%2Cteam%3D3%7D HTTP",
        ),
    ] {
        let (_, request) = sent(&[LABELS], target, b"stacks");
        let request = text(&request);
        let expected = format!("POST /ingest?name={name}");
        assert!(request.starts_with(&expected), "{request}");
    }
}

/// A Push request of these series, each with a label and a pprof without a time.
fn push(series: usize) -> Vec<u8> {
    let one = b"\x0a\x13\x0a\x0b\x0a\x03env\x12\x04test\x12\x04\x0a\x02\x30\x01";
    one.repeat(series)
}

#[test]
fn a_push_of_one_series_is_put_between_a_new_beginning_and_its_labels() {
    let target = "/push.v1.PusherService/Push";
    let (_, request) = sent(&[LABELS], target, &push(1));
    let end = [
        &b"\xc2\x3e\x02"[..],
        &push(1),
        b"\x0a\x0b\x0a\x04team\x12\x03a b",
    ]
    .concat();
    assert!(request.ends_with(&end), "{}", text(&request));
    let before = &request[..request.len() - end.len()];
    let length = end.len() as u8;
    assert!(before.ends_with(&[0x0a, length]), "{}", text(&request));
    let said = format!("Content-Length: {}\r\n\r\n", end.len() + 2);
    assert!(text(before).contains(&said), "{}", text(&request));

    let without_times = [LABELS, ("PYROSCOPE_UNIQUE_TIMES", "false")];
    let (_, request) = sent(&without_times, target, &push(1));
    assert!(request.ends_with(&end), "{}", text(&request));

    let (_, request) = sent(&[LABELS], target, &push(2));
    let all = [b"\r\n\r\n", &push(2)[..]].concat();
    assert!(request.ends_with(&all), "of two series neither gets any");
}

#[test]
fn a_labelled_profile_that_is_refused_is_sent_as_it_would_be_without_labels() {
    for (target, body) in [
        (
            "/ingest?name=app&from=1800000000&format=jfr",
            b"jfr".to_vec(),
        ),
        ("/push.v1.PusherService/Push", push(1)),
    ] {
        for refusal in [400, 422] {
            let (_, plain) = sent(&[], target, &body);
            let (mut world, labelled) = sent(&[LABELS], target, &body);
            assert_ne!(plain, labelled);
            let connection = *world.written.keys().next().unwrap();
            world.answer(connection, &status(refusal));
            let again = std::mem::take(world.written.get_mut(&connection).unwrap());
            assert_eq!(text(&again), text(&plain));
            let log = world.log();
            let line = "The server refuses labelled profiles, they are sent without labels";
            assert_eq!(log.matches(line).count(), 1, "{log}");
            world.answer(connection, OK);
            let totals = world.totals();
            assert_eq!(
                (totals.relayed, totals.resent, totals.lost_sum()),
                (1, 1, 0)
            );
        }
    }
}

#[test]
fn what_is_refused_without_labels_too_is_lost() {
    let (mut world, _) = sent(&[LABELS], "/ingest?name=app", b"stacks");
    let connection = *world.written.keys().next().unwrap();
    world.answer(connection, &status(400));
    world.answer(connection, &status(400));
    assert_eq!((world.in_hand(), world.totals().lost_sum()), (0, 1));

    let (mut world, _) = sent(&[LABELS], "/other", b"x");
    let connection = *world.written.keys().next().unwrap();
    world.answer(connection, &status(400));
    assert_eq!(world.totals().lost_sum(), 1, "it had no labels");
}
