//! The whole core in a made-up world: one seed is one run, the same on every machine.
//!
//! ```text
//!  clients ──▶ ┌──────────────────────────┐ ──▶ server    well, slow, down, silent, failing, nameless
//!              │ Relay, as the shell runs │
//!  clock  ───▶ │ it: act, sleep, report   │ ◀─▶ lambda    register, INVOKE, freezes, SHUTDOWN
//!              └────────────┬─────────────┘     telemetry subscribed, refused, late, lost
//!                        ledger                           what must have become of every payload
//! ```
//!
//! Nothing here has a socket, a thread or the real time; everything is drawn from the seed.
//!
//! | file | what it plays |
//! |---|---|
//! | `chance` | the dice |
//! | `clock` | the two times, of the sandbox and of the world, and what is to happen when |
//! | `world` | the shell: one turn is act, check, sleep, report |
//! | `clients` | the SDKs: any framing and any cut, pipelined, half-closed, broken off, frozen, too large, too many |
//! | `profiles` | what the SDKs upload: pprof, Push, JFR, and the times in them; Java's uploads of nothing after a thaw |
//! | `weather` | how the server and the network are; connections that die without a word |
//! | `server` | connections to the server: refused, silent, reused, closed |
//! | `answers` | answers of every kind, early, late, cut off, lost, or none |
//! | `lambda` | the Extensions API, invocations, freezes seen and unseen, and the end |
//! | `telemetry` | the Telemetry API, for flush mode `end` |
//!
//! The shadow model says what must become of everything. It is written from what is promised, not from the code:
//!
//! | file | what it knows |
//! |---|---|
//! | `ledger` | every payload: its fate, its attempts, when it may go out |
//! | `attempts` | which connections are for one payload, and which attempts a freeze has made suspect |
//! | `endings` | how attempts end: answered, broken, unreached, or killed by a freeze |
//! | `opinion` | what the core thinks of the server: whether it is down, and until when it asked to be left alone |
//! | `holds` | when the next event may be asked for, and when we must be gone |
//! | `promises` | that nothing arrives later than it must |
//! | `times` | what the times of profiles become, and which uploads are left out |
//!
//! By hand: `SIM_SEEDS=100000 cargo test --test sim` runs more of them (from `SIM_FROM` on), `SIM_SEED=7 cargo test
//! --test sim -- --nocapture` replays one and prints what happened. `CARGO_PROFILE_TEST_OPT_LEVEL=2` before
//! it makes many of them five times as fast, with all assertions.
//!
//! Each thousand seeds end with a digest of all that the core did. A change that only moves code leaves them as they are.

#[path = "sim/answers.rs"]
mod answers;
#[path = "sim/attempts.rs"]
mod attempts;
#[path = "sim/chance.rs"]
mod chance;
#[path = "sim/clients.rs"]
mod clients;
#[path = "sim/clock.rs"]
mod clock;
#[path = "sim/endings.rs"]
mod endings;
#[path = "sim/holds.rs"]
mod holds;
#[path = "sim/lambda.rs"]
mod lambda;
#[path = "sim/ledger.rs"]
mod ledger;
#[path = "sim/opinion.rs"]
mod opinion;
#[path = "sim/profiles.rs"]
mod profiles;
#[path = "sim/promises.rs"]
mod promises;
#[path = "support/decode/schema.rs"]
mod schema;
#[path = "sim/server.rs"]
mod server;
#[path = "sim/telemetry.rs"]
mod telemetry;
#[path = "sim/times.rs"]
mod times;
#[path = "sim/weather.rs"]
mod weather;
#[path = "sim/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicU64, Ordering};

use world::World;

/// Seeds in an ordinary run of the tests.
const SEEDS: u64 = 256;

/// Seeds that fail before the run is given up: the first is the one to look at.
const FAILED_MAX: usize = 5;

/// Seeds with one digest.
const DIGESTED: u64 = 1000;

type Seen = BTreeMap<&'static str, u64>;

/// The sum of what the core did in so many thousand seeds, by the first of them.
type Digests = BTreeMap<u64, u64>;

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = number("SIM_SEED") {
        let mut world = World::new(seed, true);
        world.live();
        if world.set.copied {
            println!("and another copy");
            let mut other = World::other_copy(seed);
            other.live();
            world.check_copies(&other);
        }
        return;
    }
    let (from, seeds) = (
        number("SIM_FROM").unwrap_or(0),
        number("SIM_SEEDS").unwrap_or(SEEDS),
    );
    let (seen, digests, failed) = run(from, seeds);
    for (what, times) in &seen {
        println!("{times:>10}  {what}");
    }
    for (first, digest) in &digests {
        println!("digest of the seeds from {first} on: {digest:016x}");
    }
    assert!(failed.is_empty(), "seeds that fail: {failed:?}");
    println!("{seeds} seeds, none fails");
    if seeds >= SEEDS {
        let missing: Vec<_> = MUST_HAPPEN
            .iter()
            .filter(|what| !seen.contains_key(**what))
            .collect();
        assert!(missing.is_empty(), "never happened: {missing:?}");
    }
}

/// Runs the seeds on all processors. What was seen, and which failed.
fn run(from: u64, seeds: u64) -> (Seen, Digests, Vec<u64>) {
    let next = AtomicU64::new(from);
    let (mut seen, mut digests, mut failed) = (Seen::new(), Digests::new(), Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let work = || some(&next, from + seeds);
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in running {
            let (more, digested, bad) = thread.join().unwrap();
            failed.extend(bad);
            for (first, digest) in digested {
                let sum: &mut u64 = digests.entry(first).or_default();
                *sum = sum.wrapping_add(digest);
            }
            for (what, times) in more {
                *seen.entry(what).or_default() += times;
            }
        }
    });
    failed.sort_unstable();
    (seen, digests, failed)
}

fn some(next: &AtomicU64, end: u64) -> (Seen, Digests, Vec<u64>) {
    let (mut seen, mut digests, mut failed) = (Seen::new(), Digests::new(), Vec::new());
    while failed.len() < FAILED_MAX {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            break;
        }
        let lived = catch_unwind(|| {
            let mut world = World::new(seed, false);
            world.live();
            if world.set.copied {
                let mut other = World::other_copy(seed);
                other.live();
                world.check_copies(&other);
            }
            (world.digest(), world.seen)
        });
        let Ok((digest, more)) = lived else {
            eprintln!(
                "SEED {seed} FAILS. Replay: SIM_SEED={seed} cargo test --test sim -- --nocapture"
            );
            failed.push(seed);
            continue;
        };
        for what in more.into_keys() {
            *seen.entry(what).or_default() += 1;
        }
        let sum = digests.entry(seed - seed % DIGESTED).or_default();
        *sum = sum.wrapping_add(digest);
    }
    (seen, digests, failed)
}

#[expect(clippy::disallowed_methods, reason = "how many, is said by hand")]
fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// What has to happen at least once in [`SEEDS`] runs, or they prove less than they say.
const MUST_HAPPEN: [&str; 103] = [
    // Clients.
    "413",
    "Expect: 100-continue",
    "client broke off in its body",
    "client frozen in its request",
    "client gave way",
    "half-closed behind the last answer",
    "half-closed client waits for its answer",
    "partial write",
    // The server.
    "accepted, then gone",
    "address too late",
    "another address",
    "answer cut short",
    "answered",
    "answered, then cut off",
    "answered, then time was up",
    "attempt timed out",
    "connection given up",
    "early answer",
    "early success",
    "garbage",
    "half a second for an answer",
    "no address",
    "odd success",
    "refused",
    "spoke without being asked",
    "the first of several connections",
    "a yes at the last moment",
    // A server that fails.
    "Retry-After",
    "Retry-After cut to 30 s",
    "a minute of failing, then good",
    "limit of the day",
    "order checked",
    "order of probes checked",
    "probe",
    "sent again",
    "server down",
    "tried five times, and kept",
    // Connections that die without a word.
    "fresh payloads beside suspects",
    "killed by a freeze, sent again at once",
    "silent connection given up after a wake",
    "silent death in an exchange",
    "silent death while connecting",
    "silent death while idle",
    "silent exchange given up after a wake",
    "suspect, but alive",
    // Lambda.
    "INVOKE",
    "Lambda closes without an answer",
    "SHUTDOWN",
    "copied with connections",
    "deadline of the end not believed",
    "five minutes frozen",
    "freeze",
    "freeze too short to see",
    "frozen while connecting",
    "registration refused",
    "signal",
    "thaw",
    "thaw after the clock stood still",
    // What the next event is held back for.
    "end becomes invoke",
    "held for an upload that is half read",
    "held for the queue",
    "held to the end",
    "hold cut off by its time",
    "odd telemetry",
    "runtimeDone",
    "runtimeDone lost",
    "subscription without an answer",
    "telemetry dropped",
    "telemetry never came",
    // The times of profiles.
    "a damaged body passes",
    "a filling of its own, before the first invocation",
    "a time far from now stays",
    "a time in a Push",
    "a time in a Push in gzip",
    "a time in a pprof",
    "a time in a pprof in gzip",
    "empty_left_out",
    "milliseconds filled",
    "moved to 10 s before it came",
    "moved to the end of a freeze",
    "nanoseconds stay",
    "no times are changed",
    "one of them sent, others left out",
    "sent again with the same times",
    "the end of what is moved is moved, too",
    "the order of times checked",
    "the same bytes from two copies",
    "two fillings: before the first invocation, and after",
    "waited for an hour, and was not moved",
    "whole seconds filled",
    // How it ends.
    "all delivered at the end, half a second away",
    "came at the last moment",
    "came to rest",
    "drain cut off by its deadline",
    "left before the deadline",
    "lost_attempts",
    "lost_full",
    "lost_refused",
    "lost_shutdown",
    "lost_unusable_address",
    "more connections than workers",
    "nothing waits for longer than it must",
    "who has just come is waited for",
];
