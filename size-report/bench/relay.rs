//! A function that profiles: how long it waits for its 200, and what each payload costs.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Posted};
use crate::figures::{Judged, Row, Unit, micros, quantile};
use crate::lambda::Lambda;
use crate::server::Server;
use crate::subjects::{Running, Subject, in_turn};
use crate::{Effort, GUARD};

/// What is uploaded, and what is promised of it.
#[derive(Clone, Copy)]
pub struct Load {
    pub name: &'static str,
    pub payload_bytes: usize,
    pub connections: usize,
    /// Of one round.
    pub payloads: usize,
    pub promises: Promises,
}

/// By what each is multiplied, at most; the rate at least. The peak is in KiB.
#[derive(Clone, Copy)]
pub struct Promises {
    median: Option<f64>,
    slowest: Option<f64>,
    cpu: Option<f64>,
    rate: Option<f64>,
    peak_kib: Option<f64>,
}

const SMALL: Promises = Promises {
    median: None,
    slowest: None,
    cpu: Some(1.7),
    rate: None,
    peak_kib: None,
};
const MIDDLE: Promises = Promises {
    median: Some(1.3),
    slowest: Some(3.0),
    cpu: Some(1.5),
    rate: Some(0.6),
    peak_kib: Some(2048.0),
};
const LARGE: Promises = Promises {
    median: None,
    slowest: None,
    cpu: Some(1.5),
    rate: None,
    peak_kib: Some(20480.0),
};

pub const LOADS: [Load; 3] = [
    load("2,000 B, 1 connection", 2000, 1, 4000, SMALL),
    load("64 KiB, 1 connection", 64 << 10, 1, 1000, MIDDLE),
    load("1 MB, 1 connection", 1_000_000, 1, 200, LARGE),
];

/// These say more about the system's scheduler than about the extension: [`WHY_NO_PROMISE`].
pub const SATURATED: [Load; 3] = [
    load("2,000 B, 2 connections", 2000, 2, 4000, SMALL.saturated()),
    load(
        "64 KiB, 2 connections",
        64 << 10,
        2,
        1000,
        MIDDLE.saturated(),
    ),
    load("1 MB, 4 connections", 1_000_000, 4, 200, LARGE.saturated()),
];

pub const WHY_NO_PROMISE: &str = "Without a promise of time: two and four clients send without a pause, and the floor has \
    a thread for each of them.\nWith every processor busy the scheduler decides these figures. No SDK sends like that, and \
    no sandbox is so busy.";

/// Whether the rows of this group are such.
pub fn is_saturated(group: &str) -> bool {
    SATURATED.iter().any(|load| load.name == group)
}

impl Promises {
    /// Without those of time. Memory does not depend on who runs when.
    const fn saturated(self) -> Self {
        Self {
            median: None,
            slowest: None,
            cpu: None,
            rate: None,
            peak_kib: self.peak_kib,
        }
    }
}

const fn load(
    name: &'static str,
    payload_bytes: usize,
    connections: usize,
    payloads: usize,
    promises: Promises,
) -> Load {
    Load {
        name,
        payload_bytes,
        connections,
        payloads,
        promises,
    }
}

/// Payloads that are not measured: the first ones open connections and fill caches.
const WARM_UP: usize = 5;

/// How far the clients may be ahead of the server: what is measured is no queue. The Go extension's holds 20, our
/// ring 16 MiB, and what the server has taken is still in it until its answer has been read.
const AHEAD_MAX: usize = 12;
const AHEAD_BYTES_MAX: usize = 6 << 20;

/// What has not arrived by then will not arrive.
const LOST_AFTER: Duration = Duration::from_secs(3);

pub fn measure(load: Load, subjects: &[Subject], effort: Effort) -> Vec<Row> {
    let server = Server::http();
    let row = |what: &str, unit, judged| {
        Row::new(load.name, format!("{}: {what}", load.name), unit, judged)
    };
    let promises = load.promises;
    let mut rows = [
        row("200 back, p50", Unit::Micros, Judged::Ratio).promised(promises.median),
        row("200 back, p99", Unit::Micros, Judged::Ratio).promised(promises.slowest),
        row("CPU per payload", Unit::Micros, Judged::Ratio).promised(promises.cpu),
        row("payloads a second", Unit::PerSecond, Judged::RatioOfMore).promised(promises.rate),
        row("peak RSS", Unit::Kib, Judged::Itself).promised(promises.peak_kib),
        row("lost, of all rounds", Unit::Count, Judged::Itself).promised(0.0),
        row("not 200, of all rounds", Unit::Count, Judged::Itself).promised(0.0),
    ];
    let payloads = load.payloads / effort.shortened;
    for round in 0..effort.rounds {
        for (number, subject) in in_turn(subjects, round) {
            let figures = run(load, payloads, subject, &server);
            for (row, figure) in rows.iter_mut().zip(figures) {
                row.add(number, figure);
            }
        }
    }
    for row in &mut rows[5..] {
        for figures in [&mut row.base, &mut row.ours, &mut row.released] {
            if !figures.is_empty() {
                *figures = vec![figures.iter().sum()];
            }
        }
    }
    rows.into()
}

fn run(load: Load, payloads: usize, subject: &Subject, server: &Server) -> [f64; 7] {
    let mut lambda = Lambda::start();
    let running = subject.start(&lambda, &server.url(), &[]);
    lambda.register();
    lambda.wait_parked();
    let address = running.address();
    let mut clients: Vec<Client> = (0..load.connections)
        .map(|_| Client::connect(address, load.payload_bytes))
        .collect();
    warm_up(&mut clients, server);

    let (from, before) = (Instant::now(), server.arrivals.count());
    let cpu = running.cpu();
    let ahead = AHEAD_MAX.min(AHEAD_BYTES_MAX / load.payload_bytes);
    let wait_turn = |number: usize| {
        let arrived = before + number.saturating_sub(ahead);
        if server.arrivals.count() < arrived {
            server.arrivals.wait(arrived, LOST_AFTER);
        }
    };
    let posted = post_all(&mut clients, payloads, &wait_turn);
    server.arrivals.wait(before + payloads, LOST_AFTER);
    let took = from.elapsed().as_secs_f64();
    let arrived = server.arrivals.count() - before;
    // The clients are still connected: nothing has ended that would be cleared away.
    let cpu = micros(running.cpu() - cpu);
    summary(&posted, payloads, arrived, took, cpu, &running)
}

fn warm_up(clients: &mut [Client], server: &Server) {
    let before = server.arrivals.count();
    for client in clients.iter_mut() {
        for _ in 0..WARM_UP {
            client.post();
        }
    }
    let all = before + clients.len() * WARM_UP;
    assert!(
        server.arrivals.wait(all, GUARD),
        "what was to warm up did not arrive"
    );
}

/// All clients at once, each with its connection, until all is posted.
fn post_all(
    clients: &mut [Client],
    payloads: usize,
    wait_turn: &(dyn Fn(usize) + Sync),
) -> Vec<Posted> {
    let next = &AtomicUsize::new(0);
    let post = |client: &mut Client| {
        let mut posted = Vec::with_capacity(payloads);
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= payloads {
                return posted;
            }
            wait_turn(number);
            posted.push(client.post());
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .map(|client| scope.spawn(move || post(client)))
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("a client"))
            .collect()
    })
}

fn summary(
    posted: &[Posted],
    payloads: usize,
    arrived: usize,
    took: f64,
    cpu: f64,
    running: &Running,
) -> [f64; 7] {
    let mut answered: Vec<f64> = posted
        .iter()
        .filter(|posted| posted.status.is_some())
        .map(|posted| micros(posted.took))
        .collect();
    answered.sort_by(f64::total_cmp);
    let other = posted
        .iter()
        .filter(|posted| posted.status != Some(200))
        .count();
    [
        quantile(&answered, 1, 2),
        quantile(&answered, 99, 100),
        cpu / number(payloads),
        number(arrived) / took,
        running.peak_kib(),
        number(payloads.saturating_sub(arrived)),
        number(other),
    ]
}

fn number(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}
