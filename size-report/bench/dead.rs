//! A server that is dead: the function must not notice.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::client::Client;
use crate::figures::{Judged, Row, Spread, Unit, micros};
use crate::lambda::Lambda;
use crate::pinned::Pinned;
use crate::server::{Refusing, Server, Silent};
use crate::subjects::Subject;
use crate::{Effort, GUARD};

pub const GROUP: &str = "a dead server, beside a healthy one";

/// Invocations of one round, each with one upload. All payloads together fit the ring.
const INVOCATIONS: usize = 60;

const PAYLOAD_BYTES: usize = 2000;

/// What an invocation of the function took, at the median.
struct Turn {
    next: f64,
    post: f64,
}

pub fn measure(ours: &Subject, effort: Effort) -> Vec<Row> {
    let _pinned = Pinned::start();
    let (healthy, refusing, silent) = (Server::http(), Refusing::start(), Silent::start());
    let row = |what, unit, judged| Row::new(GROUP, what, unit, judged);
    let mut rows = [
        row("refusing: INVOKE → next", Unit::Micros, Judged::Ratio),
        row("refusing: 200 back", Unit::Micros, Judged::Ratio),
        row("silent: INVOKE → next", Unit::Micros, Judged::Ratio),
        row("silent: 200 back", Unit::Micros, Judged::Ratio),
        row(
            "refusing, flush mode end: INVOKE → next",
            Unit::Millis,
            Judged::Itself,
        )
        .promised(5.0),
    ];
    for _ in 0..effort.rounds {
        let base = live(ours, &healthy.url());
        let dead = [live(ours, &refusing.url()), live(ours, &silent.url())];
        for (pair, turn) in rows.chunks_mut(2).zip(dead) {
            pair[0].base.push(base.next);
            pair[0].ours.push(turn.next);
            pair[1].base.push(base.post);
            pair[1].ours.push(turn.post);
        }
        rows[4]
            .ours
            .push(live_flushing(ours, &refusing.url()) / 1e3);
    }
    rows.into()
}

fn live(ours: &Subject, server: &str) -> Turn {
    let mut lambda = Lambda::start();
    let running = ours.start(&lambda, server, &[]);
    lambda.register();
    lambda.wait_parked();
    let mut client = Client::connect(running.address(), PAYLOAD_BYTES);
    let mut nexts = Vec::with_capacity(INVOCATIONS);
    let mut posts = Vec::with_capacity(INVOCATIONS);
    for _ in 0..INVOCATIONS {
        running.wait_asleep();
        let (invoked, _) = lambda.invoke();
        nexts.push(micros(lambda.wait_parked() - invoked));
        running.wait_asleep();
        let posted = client.post();
        assert_eq!(posted.status, Some(200), "an upload refused");
        posts.push(micros(posted.took));
    }
    Turn {
        next: Spread::of(&nexts).median,
        post: Spread::of(&posts).median,
    }
}

/// In flush mode `end`: the function uploads and is done at once. At the median, until the next event is asked for.
fn live_flushing(ours: &Subject, server: &str) -> f64 {
    let mut lambda = Lambda::start();
    let running = ours.start(&lambda, server, &[("PYROSCOPE_FLUSH_MODE", "end")]);
    lambda.register();
    let deliveries = lambda.subscribe();
    lambda.wait_parked();
    let mut client = Client::connect(running.address(), PAYLOAD_BYTES);
    let turns = [(); INVOCATIONS].map(|()| {
        let (invoked, request) = lambda.invoke();
        assert_eq!(client.post().status, Some(200), "an upload refused");
        deliver_done(deliveries, &request);
        micros(lambda.wait_parked() - invoked)
    });
    Spread::of(&turns).median
}

/// Telemetry's word that the function is done with this request.
fn deliver_done(deliveries: SocketAddr, request: &str) {
    let batch = format!(
        r#"[{{"time":"2026-11-20T18:46:00.000Z","type":"platform.runtimeDone","record":{{"requestId":"{request}","status":"success","metrics":{{"durationMs":1.5}}}}}}]"#
    );
    let message = format!(
        "POST / HTTP/1.1\r\nHost: sandbox.localdomain:{}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{batch}",
        deliveries.port(),
        batch.len()
    );
    let mut connection = TcpStream::connect(deliveries).expect("telemetry to be listened for");
    connection.set_read_timeout(Some(GUARD)).expect("a guard");
    connection
        .write_all(message.as_bytes())
        .expect("telemetry delivered");
    let answered = connection
        .read(&mut [0; 512])
        .expect("an answer to telemetry");
    assert!(answered > 0, "telemetry was not answered");
}
