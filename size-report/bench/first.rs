//! What a user feels: the profiles of a sandbox over TLS, from the first one on.
//!
//! The server shows a chain as public servers do, of which the client has the root: all of it is checked. Its answers
//! come at once, so what is measured is the extension's own part. Over the network each flight takes longer, for all alike.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
use rustls::ServerConfig;
use tempfile::NamedTempFile;

use crate::Effort;
use crate::certificates::{Authority, OUR_NAMES};
use crate::client::Client;
use crate::figures::{Judged, Row, Unit, micros};
use crate::lambda::Lambda;
use crate::losses;
use crate::pinned::Pinned;
use crate::server::{Server, server_config};
use crate::subjects::{FLOOR, OURS, Running, Subject, in_turn};
use crate::throttled::{Group, NONE_HERE};

pub const GROUP: &str = "what a user feels, over TLS";

const PAYLOAD_BYTES: usize = 10_000;

/// The profile by which everything is warm.
const TENTH: u32 = 10;

/// A freeze is noticed from one second on; the processor is somebody else's meanwhile.
const FREEZE: Duration = Duration::from_millis(1200);

/// What has not arrived by then will not arrive.
const LOST_AFTER: Duration = Duration::from_secs(5);

/// Between the sandbox's start and its first profile: a function has worked for that long when its SDK uploads, and
/// what the start took of the processor's time has been made up for.
const WORK: Duration = Duration::from_millis(100);

const RSA_2048: &str = include_str!("../../tests/support/keys/rsa2048.pem");
const RSA_4096: &str = include_str!("../../tests/support/keys/rsa4096.pem");

/// A server, and the root that its chain ends at.
struct World {
    server: Server,
    root: NamedTempFile,
}

/// What a profile took, in µs: CPU, and from the function's upload until all of it had arrived.
struct Taken {
    cpu: f64,
    arrived: f64,
}

pub fn measure(subjects: &[Subject], effort: Effort) -> Vec<Row> {
    let group = Group::make();
    let mut rows = WHAT.map(|(what, promise)| {
        Row::new(GROUP, what, Unit::Micros, Judged::Itself).promised(promise)
    });
    if group.is_none() {
        rows[THROTTLED].remark = Some(NONE_HERE.to_owned());
    }
    let mut lost = vec![0.0; subjects.len()];
    let _pinned = Pinned::start();
    let (elliptic, rsa) = (World::elliptic(), World::rsa());
    for round in 0..effort.rounds {
        // The floor has no TLS.
        for (number, subject) in in_turn(subjects, round).filter(|(number, _)| *number != FLOOR) {
            let mut add = |at: usize, taken: Option<&Taken>| match taken {
                Some(taken) => {
                    rows[at].add(number, taken.cpu);
                    rows[at + 1].add(number, taken.arrived);
                }
                None => lost[number] += 1.0,
            };
            let is_to_thaw = round < effort.thaws;
            let life = live(subject, &elliptic, is_to_thaw, number == OURS);
            add(0, life.first.as_ref());
            add(TENTH_AT, life.tenth.as_ref());
            if is_to_thaw {
                add(THAWED, life.thawed.as_ref());
            }
            add(RSA, live_once(subject, &rsa).as_ref());
            if let Some(group) = &group {
                match live_throttled(subject, &elliptic, group) {
                    Some(taken) => rows[THROTTLED].add(number, taken.arrived),
                    None => lost[number] += 1.0,
                }
            }
        }
    }
    let mut lost_row = Row::new(losses::GROUP, LOST, Unit::Count, Judged::Itself).promised(0.0);
    for (number, _) in subjects.iter().enumerate().filter(|(n, _)| *n != FLOOR) {
        lost_row.add(number, lost[number]);
    }
    let mut rows = Vec::from(rows);
    rows.push(lost_row);
    rows
}

/// What is measured, and what is promised of it.
const WHAT: [(&str, Option<f64>); 9] = [
    (
        "first profile, chain of P-384: CPU since exec",
        Some(3000.0),
    ),
    ("first profile, chain of P-384: arrives after", None),
    (
        "the same at 7.2 % of a processor: arrives after",
        Some(6000.0),
    ),
    ("first profile, chain of RSA: CPU since exec", None),
    ("first profile, chain of RSA: arrives after", None),
    ("tenth profile: CPU", None),
    ("tenth profile: arrives after", None),
    ("first profile after a thaw, TLS resumed: CPU", None),
    (
        "first profile after a thaw, TLS resumed: arrives after",
        None,
    ),
];

/// What did not arrive of all the profiles above.
const LOST: &str = "of the profiles above";

/// Where among the rows.
const THROTTLED: usize = 2;
const RSA: usize = 3;
const TENTH_AT: usize = 5;
const THAWED: usize = 7;

/// `None`: it did not arrive, or was not tried.
struct Life {
    first: Option<Taken>,
    tenth: Option<Taken>,
    thawed: Option<Taken>,
}

fn live(subject: &Subject, world: &World, thaws: bool, is_ours: bool) -> Life {
    let mut lambda = Lambda::start();
    let running = subject.start(&lambda, &world.server.url(), &world.settings());
    let mut client = begin(&mut lambda, &running);
    let first = taken(&running, &mut client, world, Duration::ZERO);
    for _ in 2..TENTH {
        let _ = taken(&running, &mut client, world, running.cpu());
    }
    let tenth = taken(&running, &mut client, world, running.cpu());
    let thawed = thaws.then(|| {
        lambda.wait_parked();
        running.freeze();
        world.server.hang_up();
        thread::sleep(FREEZE);
        let cpu = running.cpu();
        let before = world.server.resumed();
        running.thaw();
        lambda.invoke();
        let thawed = taken(&running, &mut client, world, cpu);
        world.server.hang_up();
        let resumed = world.server.resumed() - before;
        assert!(!is_ours || resumed == 1, "the session was not taken up");
        thawed
    });
    drop(running);
    world.server.hang_up();
    let thawed = thawed.flatten();
    Life {
        first,
        tenth,
        thawed,
    }
}

fn live_once(subject: &Subject, world: &World) -> Option<Taken> {
    let mut lambda = Lambda::start();
    let running = subject.start(&lambda, &world.server.url(), &world.settings());
    let mut client = begin(&mut lambda, &running);
    let first = taken(&running, &mut client, world, Duration::ZERO);
    drop(running);
    world.server.hang_up();
    first
}

fn live_throttled(subject: &Subject, world: &World, group: &Group) -> Option<Taken> {
    let mut lambda = Lambda::start();
    let (url, settings) = (world.server.url(), world.settings());
    let running = subject.start_within(group, &lambda, &url, &settings);
    let mut client = begin(&mut lambda, &running);
    thread::sleep(WORK);
    let first = taken(&running, &mut client, world, Duration::ZERO);
    drop(running);
    world.server.hang_up();
    first
}

/// The sandbox is initialized and the function invoked; it is about to upload.
fn begin(lambda: &mut Lambda, running: &Running) -> Client {
    lambda.register();
    lambda.wait_parked();
    let client = Client::connect(running.address(), PAYLOAD_BYTES);
    lambda.invoke();
    running.wait_asleep();
    client
}

/// Uploads a profile, and waits until it was answered and the extension rests; `None` if it does not arrive. `cpu` is
/// what was used up before.
fn taken(running: &Running, client: &mut Client, world: &World, cpu: Duration) -> Option<Taken> {
    let arrivals = &world.server.arrivals;
    let before = arrivals.count();
    let posted = client.post();
    assert_eq!(posted.status, Some(200), "an upload refused");
    if !arrivals.wait(before + 1, LOST_AFTER) {
        return None;
    }
    running.wait_asleep();
    Some(Taken {
        cpu: micros(running.cpu() - cpu),
        arrived: micros(arrivals.last() - posted.from),
    })
}

impl World {
    /// As Let's Encrypt's: a P-256 leaf, by a P-384 intermediate, by a P-384 root.
    fn elliptic() -> Self {
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("a key pair");
        let leaf = KeyPair::generate().expect("a key pair");
        Self::new([key(), key()], &leaf)
    }

    /// The same with RSA: 2048 bits, by 2048 bits, by a root of 4096.
    fn rsa() -> Self {
        let keys = [rsa(RSA_4096), rsa(RSA_2048)];
        Self::new(keys, &rsa(RSA_2048))
    }

    fn new([root, intermediate]: [KeyPair; 2], leaf: &KeyPair) -> Self {
        let root = Authority::keyed("the bench's root", root, |_| {});
        let authority = root.intermediate_keyed("the bench's authority", intermediate, |_| {});
        let config: Arc<ServerConfig> = server_config(authority.issue(&OUR_NAMES, leaf, |_| {}));
        Self {
            server: Server::https_as(config),
            root: root.pem_file(),
        }
    }

    fn settings(&self) -> [(&str, &str); 1] {
        let root = self.root.path().to_str();
        [("SSL_CERT_FILE", root.expect("a path of our own making"))]
    }
}

/// What [`KeyPair`] reads of a file that begins with a remark.
fn rsa(file: &str) -> KeyPair {
    let at = file.find("-----BEGIN").expect("PEM");
    KeyPair::from_pem(&file[at..]).expect("an RSA key")
}
