//! What has got its 200 and does not arrive: when the sandbox ends, when it freezes, when the server was away.

use std::time::Duration;

use crate::client::Client;
use crate::figures::{Judged, Row, Unit};
use crate::lambda::Lambda;
use crate::server::{Refusing, Server};
use crate::subjects::{FLOOR, Running, Subject};

pub const GROUP: &str = "lost of what got its 200";

/// Enough to see that it is always so.
const ROUNDS: usize = 5;

const PAYLOAD_BYTES: usize = 64 << 10;

/// What waits as the sandbox ends; the server takes this long for each, as one in production does (467 to 532 ms).
const AT_SHUTDOWN: u32 = 60;
const SLOW: Duration = Duration::from_millis(500);

/// What is under way as the sandbox freezes: each on a connection of its own.
const AT_FREEZE: u32 = 5;

/// What comes while the server refuses connections. It fits the ring.
const IN_OUTAGE: u32 = 200;

/// What has not arrived by then will not arrive: longer than any pause between two tries.
const LOST_AFTER: Duration = Duration::from_secs(4);

pub fn measure(subjects: &[Subject]) -> Vec<Row> {
    let row = |what: String| Row::new(GROUP, what, Unit::Count, Judged::Itself).promised(0.0);
    let mut rows = [
        row(format!(
            "of {AT_SHUTDOWN} waiting at SHUTDOWN, server takes 500 ms"
        )),
        row(format!(
            "of {AT_FREEZE} under way at a freeze that drops them"
        )),
        row(format!("of {IN_OUTAGE} while the server refuses")),
    ];
    for _ in 0..ROUNDS {
        // The floor promises nothing.
        for (number, subject) in subjects.iter().enumerate().filter(|(n, _)| *n != FLOOR) {
            let lost = [at_shutdown, at_freeze, in_outage].map(|run| run(subject));
            for (row, lost) in rows.iter_mut().zip(lost) {
                row.add(number, lost);
            }
        }
    }
    rows.into()
}

fn at_shutdown(subject: &Subject) -> f64 {
    let server = Server::slow(SLOW);
    let (mut lambda, mut running) = begin(subject, &server.url());
    post(&running, AT_SHUTDOWN);
    lambda.shut_down();
    running.wait_ended();
    lost(&server, AT_SHUTDOWN)
}

fn at_freeze(subject: &Subject) -> f64 {
    let (server, hold) = Server::holding(AT_FREEZE as usize);
    let (mut lambda, running) = begin(subject, &server.url());
    // With a server that is known to be there, all go out at once.
    post(&running, 1);
    assert!(
        server.arrivals.wait(1, LOST_AFTER),
        "the first did not arrive"
    );
    post(&running, AT_FREEZE);
    assert!(
        hold.held.wait(AT_FREEZE as usize, LOST_AFTER),
        "they are not under way"
    );
    running.freeze();
    hold.drop_all();
    running.thaw();
    lambda.invoke();
    lost(&server, 1 + AT_FREEZE)
}

fn in_outage(subject: &Subject) -> f64 {
    let refusing = Refusing::start();
    let (_lambda, running) = begin(subject, &refusing.url());
    post(&running, IN_OUTAGE);
    // Whatever it does about them, it has done.
    running.wait_asleep();
    let server = refusing.recover();
    lost(&server, IN_OUTAGE)
}

fn begin(subject: &Subject, server: &str) -> (Lambda, Running) {
    let mut lambda = Lambda::start();
    let running = subject.start(&lambda, server, &[]);
    lambda.register();
    lambda.wait_parked();
    (lambda, running)
}

fn post(running: &Running, payloads: u32) {
    let mut client = Client::connect(running.address(), PAYLOAD_BYTES);
    for _ in 0..payloads {
        assert_eq!(client.post().status, Some(200), "an upload refused");
    }
}

fn lost(server: &Server, acknowledged: u32) -> f64 {
    server.arrivals.wait(acknowledged as usize, LOST_AFTER);
    f64::from(acknowledged) - f64::from(u32::try_from(server.arrivals.count()).unwrap_or(u32::MAX))
}
