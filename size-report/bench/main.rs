//! `make bench`: what the extension costs and how long it takes, beside the least a relay can do.
//!
//! ```text
//!   Client ──▶ the extension measured (Running) ──▶ Server
//!   (an SDK)        │
//!                   ▼
//!                Lambda     the Extensions API, on the thread that measures
//! ```
//!
//! Each is driven through a sandbox's life from outside, in turn: floor, ours, ours, floor, all in one run with
//! the same surroundings and the same load. Times move from machine to machine and from minute to minute; the
//! ratio within a round holds better, so ratios are what is told, with their median and quartiles over the
//! rounds. They inform and fail nothing.
//!
//! Nothing here sleeps: what must have happened is waited for, and every wait has a guard.

#![allow(
    clippy::disallowed_methods,
    reason = "the bans on clocks, threads and the environment are for the extension, not for what measures it"
)]

mod client;
mod cold;
mod dead;
mod figures;
mod first;
mod lambda;
mod losses;
mod page;
mod picture;
mod pinned;
mod relay;
mod server;
mod subjects;
mod throttled;
mod tls;

#[path = "../../tests/support/certificates.rs"]
#[allow(dead_code, reason = "one authority and one server are all there is")]
mod certificates;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use figures::Row;
use subjects::{OURS, Subject};

/// How long anything may take before the bench gives up: far above what it takes on a busy machine.
pub const GUARD: Duration = Duration::from_secs(30);

/// Where the figures kept for comparison are.
const RECORDED: &str = "size-report/latency.tsv";

/// How much is measured.
#[derive(Clone, Copy)]
pub struct Effort {
    rounds: usize,
    /// Payloads of one round are divided by this.
    shortened: usize,
    /// Rounds with a freeze, which takes a second.
    thaws: usize,
}

const FULL: Effort = Effort {
    rounds: 31,
    shortened: 1,
    thaws: 15,
};

/// For continuous integration: well under a minute.
const QUICK: Effort = Effort {
    rounds: 15,
    shortened: 4,
    thaws: 5,
};

struct Arguments {
    subjects: Vec<Subject>,
    effort: Effort,
    record: bool,
    /// The one part to measure, by what its name begins with.
    only: Option<String>,
    /// Where the results go.
    folder: PathBuf,
}

fn main() -> ExitCode {
    let Some(arguments) = Arguments::read(env::args().skip(1)) else {
        eprintln!(
            "usage: latency [--quick] [--record | --only PART] FOLDER FLOOR OURS [GO]; GO is needed to record"
        );
        return ExitCode::FAILURE;
    };
    let (began, load) = (Instant::now(), page::load());
    let recorded = fs::read_to_string(RECORDED).unwrap_or_default();
    let recorded = page::read_recorded(&recorded);
    let rows = measure(&arguments);
    print!("{}", page::table(&rows, &arguments.subjects, &recorded));
    println!("{}", page::surroundings(began.elapsed(), load));
    let written =
        write(&arguments.folder, &rows, &recorded).and_then(|()| match arguments.record {
            true => write(Path::new("size-report"), &rows, &[]),
            false => Ok(()),
        });
    if let Err(error) = written {
        eprintln!("bench: cannot write the results: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Arguments {
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut effort = FULL;
        let mut record = false;
        let mut only = None;
        let mut paths = Vec::new();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--quick" => effort = QUICK,
                "--record" => record = true,
                "--only" => only = Some(arguments.next()?),
                // What `cargo bench` says to every bench.
                "--bench" => {}
                path => paths.push(PathBuf::from(path)),
            }
        }
        let mut paths = paths.into_iter();
        let folder = paths.next()?;
        let mut subjects = vec![Subject::floor(paths.next()?), Subject::ours(paths.next()?)];
        subjects.extend(paths.next().map(Subject::released));
        // What is recorded is what the pages show and the next run compares itself with: all of it, beside the Go extension.
        if record && (only.is_some() || subjects.len() <= OURS + 1) {
            return None;
        }
        Some(Self {
            subjects,
            effort,
            record,
            only,
            folder,
        })
    }
}

fn measure(arguments: &Arguments) -> Vec<Row> {
    let (subjects, effort) = (&arguments.subjects, arguments.effort);
    let ours = &subjects[OURS];
    let mut rows = Vec::new();
    let mut part = |name: &str, measured: &dyn Fn() -> Vec<Row>| {
        let only = arguments.only.as_deref();
        if only.is_none_or(|only| name.starts_with(only)) {
            rows.extend(measured());
            eprintln!("bench: {name} measured");
        }
    };
    part(first::GROUP, &|| first::measure(subjects, effort));
    part(losses::GROUP, &|| losses::measure(subjects));
    part(cold::GROUP, &|| cold::measure(subjects, effort));
    for load in relay::LOADS {
        part(load.name, &|| relay::measure(load, subjects, effort));
    }
    part(tls::GROUP, &|| tls::measure(ours, effort));
    part(dead::GROUP, &|| dead::measure(ours, effort));
    for load in relay::SATURATED {
        part(load.name, &|| relay::measure(load, subjects, effort));
    }
    rows
}

fn write(folder: &Path, rows: &[Row], recorded: &[page::Recorded]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("latency.tsv"), page::tsv(rows))?;
    fs::write(folder.join("latency.svg"), picture::draw(rows, recorded))
}
