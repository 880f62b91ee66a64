//! A sandbox's start: how long until Lambda hears of it, and what it takes to be there. No client connects: to find
//! out where would put other things into the caches, and cost either of them a third of what it does by itself.

use crate::client::Client;
use crate::figures::{Judged, Row, Spread, Unit, micros};
use crate::lambda::Lambda;
use crate::pinned::Pinned;
use crate::server::Server;
use crate::subjects::{Subject, in_turn, wait_until};
use crate::{Effort, GUARD};

pub const GROUP: &str = "start and idle";

/// Starts of one round. Its figure is their lower quartile: a start is short, and one that had to wait for a CPU, behind
/// others on this machine, says nothing about the program.
const STARTS: usize = 12;

/// Of the one upload of which the log is counted.
const UPLOAD_BYTES: usize = 2000;

/// Invocations that belong to a start's CPU time.
const INVOCATIONS: usize = 5;

/// A look that finds no more CPU time used than the last so many looks did finds it idle.
const QUIET_LOOKS: usize = 200;

pub fn measure(subjects: &[Subject], effort: Effort) -> Vec<Row> {
    let _pinned = Pinned::start();
    let server = Server::http();
    let row = |what: &str, unit, judged| Row::new(GROUP, what, unit, judged);
    let mut rows = [
        row("exec → register", Unit::Micros, Judged::Ratio).promised(1.25),
        row("exec → first next", Unit::Micros, Judged::Ratio).promised(1.25),
        row("INVOKE → next", Unit::Micros, Judged::Ratio).promised(1.3),
        row(
            "CPU from exec to idle, 5 invocations",
            Unit::Micros,
            Judged::Ratio,
        )
        .promised(1.5),
        row("idle RSS", Unit::Kib, Judged::Itself).promised(600.0),
        row("idle private memory", Unit::Kib, Judged::Itself).promised(200.0),
        row("threads when idle", Unit::Count, Judged::Itself).promised(1.0),
        row("binary", Unit::Bytes, Judged::Itself),
    ];
    let (binary, measured) = rows.split_last_mut().expect("a row for it");
    let mut log = row(
        "log of a healthy sandbox, one upload",
        Unit::Bytes,
        Judged::Itself,
    );
    for (number, subject) in subjects.iter().enumerate() {
        binary.add(number, subject.bytes());
        log.add(number, logged_bytes(subject, &server));
    }
    for _ in 0..effort.rounds {
        let mut starts = vec![Vec::with_capacity(STARTS); subjects.len()];
        for time in 0..STARTS {
            for (number, subject) in in_turn(subjects, time) {
                starts[number].push(start_once(subject, &server));
            }
        }
        for (number, starts) in starts.iter().enumerate() {
            for (column, row) in measured.iter_mut().enumerate() {
                let figures: Vec<f64> = starts.iter().map(|start| start[column]).collect();
                row.add(number, Spread::of(&figures).low);
            }
        }
    }
    let mut rows = Vec::from(rows);
    rows.push(log);
    rows
}

/// What a sandbox writes that starts, relays one profile and ends.
fn logged_bytes(subject: &Subject, server: &Server) -> f64 {
    let log = tempfile::tempfile().expect("a temporary file");
    let mut lambda = Lambda::start();
    let mut running = subject.start_logging(&lambda, &server.url(), &log);
    lambda.register();
    lambda.wait_parked();
    let before = server.arrivals.count();
    let mut client = Client::connect(running.address(), UPLOAD_BYTES);
    assert_eq!(client.post().status, Some(200), "an upload refused");
    assert!(server.arrivals.wait(before + 1, GUARD), "it did not arrive");
    lambda.invoke();
    lambda.wait_parked();
    lambda.shut_down();
    running.wait_ended();
    let bytes = log.metadata().expect("a file").len();
    f64::from(u32::try_from(bytes).unwrap_or(u32::MAX))
}

fn start_once(subject: &Subject, server: &Server) -> [f64; 7] {
    let mut lambda = Lambda::start();
    let running = subject.start(&lambda, &server.url(), &[]);
    let registered = lambda.register();
    let parked = lambda.wait_parked();
    let turns = [(); INVOCATIONS].map(|()| {
        running.wait_asleep();
        let (invoked, _) = lambda.invoke();
        micros(lambda.wait_parked() - invoked)
    });
    let mut looks = 0;
    let mut cpu = running.cpu();
    wait_until("it to become idle", || {
        running.wait_asleep();
        let used = running.cpu();
        looks = if used == cpu { looks + 1 } else { 0 };
        cpu = used;
        (looks >= QUIET_LOOKS).then_some(())
    });
    let memory = running.memory();
    let threads = u32::try_from(running.threads()).unwrap_or(u32::MAX);
    [
        micros(registered - running.started),
        micros(parked - running.started),
        Spread::of(&turns).median,
        micros(cpu),
        memory.rss_kib,
        memory.private_kib,
        f64::from(threads),
    ]
}
