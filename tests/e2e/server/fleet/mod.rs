//! Fleets: many sandboxes of one service at once. Does the server show all that was relayed?
//!
//! Of profiles of one series with the same timestamp the server keeps one when it compacts, and SDKs write times of
//! whole seconds. So what passed the tap is decoded and added up, and compared with the flame graph's total when the
//! server has compacted: once for the extension as it is, and once for PYROSCOPE_UNIQUE_TIMES=false, which must show
//! the loss where times are coarse. Otherwise nothing would be proved.

mod compaction;
mod frozen;
mod runtime_api;
mod sandbox;
mod tap;
mod thousand;
mod times;
mod waking;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use super::query::Asker;
use crate::Stage;
use crate::report::table;
use crate::subjects::{Subject, subjects};
use sandbox::{Account, TENANTS};
use tap::Request;

/// What came of a fleet.
struct Fleet {
    name: String,
    service: String,
    sdk: String,
    sandboxes: usize,
    requests: Vec<Request>,
    accounts: [Account; 2],
    /// It stood still in between: not all of what was uploaded is worth relaying.
    is_paused: bool,
    /// What is not changed must not be all there.
    must_lose: bool,
    /// What is told of it beside the table.
    words: String,
    wrong: Vec<String>,
}

/// What the server keeps of a fleet, beside what was uploaded.
struct Kept {
    /// The server's name for what is counted.
    profile_type: String,
    uploaded: i64,
    kept: [i64; 2],
    resolution: String,
    /// Whole seconds: what is not changed must collide.
    is_coarse: bool,
}

/// Runs those fleets whose names are asked for, all of them if none is, and prints the table. Whether all is well.
pub fn run(stage: &Stage, only: &[String], all: bool) -> Result<bool, String> {
    let is_asked = |name: &str| only.is_empty() || only.iter().any(|asked| asked == name);
    let mut wrong = Vec::new();
    let mut fleets = gather(stage, is_asked, all, &mut wrong);
    let wakings = waking::NAMES.into_iter().filter(|name| is_asked(name));
    let wakings: Vec<&str> = wakings.collect();
    if fleets.is_empty() && wakings.is_empty() {
        return Err(format!("no fleet is called {}", only.join(" or ")));
    }
    for name in wakings {
        wrong.extend(waking::live(stage, name));
    }
    if !fleets.is_empty() {
        compare(stage, &mut fleets)?;
    }
    for fleet in &fleets {
        let of_fleet = fleet.wrong.iter();
        wrong.extend(of_fleet.map(|what| format!("fleet {}: {what}", fleet.name)));
    }
    for what in &wrong {
        println!("{what}");
    }
    let failed = fleets.iter().filter(|fleet| !fleet.wrong.is_empty());
    let failed = failed.count();
    println!(
        "e2e: {} fleets passed, {failed} failed",
        fleets.len() - failed
    );
    Ok(wrong.is_empty())
}

/// Runs them; what may not be left out and is goes to `wrong`.
fn gather(
    stage: &Stage,
    is_asked: impl Fn(&str) -> bool + Copy,
    all: bool,
    wrong: &mut Vec<String>,
) -> Vec<Fleet> {
    let mut fleets = Vec::new();
    for subject in subjects(&stage.parts) {
        if !FLEETS.contains(&subject.name) || !is_asked(subject.name) {
            continue;
        }
        match &subject.missing {
            None => {
                eprintln!("e2e: a fleet of {SANDBOXES} with {} …", subject.name);
                fleets.push(live(stage, &subject));
            }
            Some(missing) => {
                println!("the fleet {} is skipped: {}", subject.name, missing.reason);
                if all && !missing.is_excused {
                    wrong.push(format!(
                        "the fleet {} may not be skipped here",
                        subject.name
                    ));
                }
            }
        }
    }
    for name in thousand::names().filter(|name| is_asked(name)) {
        eprintln!("e2e: {} sandboxes, {name} …", thousand::SANDBOXES);
        fleets.push(thousand::live(stage, &name));
    }
    fleets.extend(frozen::live(stage, is_asked));
    fleets
}

/// Has the server compact, asks what it has of each fleet, and prints that beside what was relayed.
fn compare(stage: &Stage, fleets: &mut [Fleet]) -> Result<(), String> {
    let askers = [
        Asker::new(&stage.authority, Some(TENANTS[0]))?,
        Asker::new(&stage.authority, Some(TENANTS[1]))?,
    ];
    eprintln!("e2e: until the server has compacted …");
    let services: BTreeSet<String> = fleets.iter().map(|fleet| fleet.service.clone()).collect();
    let compaction = compaction::force(&askers, &services)?;
    println!(
        "the server has compacted {} segments into {} blocks within {:.0} s",
        compaction.segments,
        compaction.blocks,
        compaction.took.as_secs_f64()
    );
    let mut lines = vec![COLUMNS.map(str::to_owned).to_vec()];
    for fleet in fleets.iter_mut() {
        lines.push(fleet.line(&askers));
    }
    table(&lines);
    for fleet in fleets.iter().filter(|fleet| fleet.is_paused) {
        let [changed, unchanged] = &fleet.accounts;
        println!("{}: {}", fleet.name, fleet.words);
        println!("{}: relayed {changed}; unchanged {unchanged}", fleet.name);
    }
    Ok(())
}

/// All sandboxes at once, each until it has uploaded some CPU profiles.
fn live(stage: &Stage, subject: &Subject) -> Fleet {
    let certificate = stage.authority.pem_file();
    let mut fleet = Fleet::of(subject.name, format!("fleet.{}", subject.name));
    fleet.sdk.clone_from(&subject.sdk);
    fleet.sandboxes = usize::from(SANDBOXES);
    let service = fleet.service.clone();
    let ended: Vec<_> = thread::scope(|scope| {
        let sandboxes: Vec<_> = (1..=SANDBOXES)
            .map(|number| {
                let (service, certificate) = (&service, certificate.path());
                scope.spawn(move || {
                    let is_enough = |requests: &[Request]| has_enough(requests);
                    sandbox::live(subject, service, certificate, number, is_enough)
                })
            })
            .collect();
        sandboxes
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect()
    });
    for (number, lived) in ended.into_iter().enumerate() {
        match lived.unwrap_or_else(|_| Err("it panicked".to_owned())) {
            Ok(lived) => {
                fleet.requests.extend(lived.requests);
                for (sum, account) in fleet.accounts.iter_mut().zip(lived.accounts) {
                    sum.add(account);
                }
            }
            Err(error) => fleet.wrong.push(format!("sandbox {}: {error}", number + 1)),
        }
    }
    fleet
}

/// Whether a sandbox has uploaded as many profiles of CPU as it is to.
fn has_enough(requests: &[Request]) -> bool {
    let has_cpu = |request: &&Request| {
        let Ok(profiles) = request.profiles() else {
            // What cannot be read is found wrong afterwards.
            return true;
        };
        profiles
            .iter()
            .any(|profile| cpu_total(profile).is_some_and(|(_, value)| value > 0))
    };
    requests.iter().filter(has_cpu).count() >= UPLOADS_MIN
}

/// The type and the sum of what is counted here, in a profile that has it: one of CPU, or of wall time for Node.js.
fn cpu_total(profile: &crate::decode::Decoded) -> Option<(&'static str, i64)> {
    CPU_TYPES.iter().find_map(|(decoded, stored)| {
        let mut types = profile.sample_types.iter();
        let index = types.position(|kind| kind == decoded)?;
        Some((*stored, *profile.totals.get(index)?))
    })
}

impl Fleet {
    fn of(name: &str, service: String) -> Self {
        Self {
            name: name.to_owned(),
            service,
            sdk: String::new(),
            sandboxes: 0,
            requests: Vec::new(),
            accounts: Default::default(),
            is_paused: false,
            must_lose: false,
            words: String::new(),
            wrong: Vec::new(),
        }
    }

    /// Its line of the table; what is wrong is noted.
    fn line(&mut self, askers: &[Asker; 2]) -> Vec<String> {
        let sent = self.requests.len();
        for (account, tenant) in self.accounts.iter().zip(TENANTS) {
            if !self.is_paused && !account.is_all(sent) {
                self.wrong.push(format!(
                    "of {sent} uploads the extension of {tenant} has relayed {account}"
                ));
            }
        }
        let mut line = vec![
            self.name.clone(),
            self.sdk.clone(),
            self.sandboxes.to_string(),
        ];
        line.push(sent.to_string());
        match self.kept(askers) {
            Ok(kept) => {
                self.wrong.extend(kept.wrong());
                self.must_lose |= kept.is_coarse && self.sandboxes > 1;
                if self.must_lose && kept.kept[1] >= kept.uploaded {
                    let what = "all is kept with unchanged times too, so nothing is proved";
                    self.wrong.push(what.to_owned());
                }
                line.extend([
                    kept.resolution.clone(),
                    super::amount(kept.uploaded, "nanoseconds"),
                    kept.percent(0),
                    kept.percent(1),
                    kept.profile_type.clone(),
                ]);
            }
            Err(error) => self.wrong.push(error),
        }
        line
    }

    fn kept(&self, askers: &[Asker; 2]) -> Result<Kept, String> {
        let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
        let mut written = Vec::new();
        let mut seen = BTreeSet::new();
        for request in &self.requests {
            // An SDK whose answer came while it stood still sends the same again, and it is to count once.
            if self.is_paused && !seen.insert(request.body.decoded.as_slice()) {
                continue;
            }
            for profile in request.profiles()? {
                if profile.app != self.service {
                    return Err(format!("a profile of {}", profile.app));
                }
                if let Some((kind, value)) = cpu_total(&profile) {
                    *sums.entry(kind).or_default() += value * in_nanoseconds(request, &profile)?;
                    written.extend(times::times(request)?);
                }
            }
        }
        let mut sums = sums.into_iter();
        let (Some((kind, uploaded)), None) = (sums.next(), sums.next()) else {
            return Err("not one type of profile to compare".to_owned());
        };
        let (resolution, is_coarse) = times::resolution(&written);
        let mut kept = Kept {
            profile_type: String::new(),
            uploaded,
            kept: [0; 2],
            resolution,
            is_coarse,
        };
        for (which, asker) in askers.iter().enumerate() {
            let types = asker.services()?.remove(&self.service).unwrap_or_default();
            let counted = |one: &String| {
                one.split_once(':')
                    .is_some_and(|(_, rest)| rest.starts_with(kind))
            };
            let profile_type = types.into_iter().find(counted);
            // It has none of which it took nothing.
            let Some(profile_type) = profile_type else {
                continue;
            };
            let graph =
                asker.flame_graph_without(&self.service, &profile_type, compaction::FILLER)?;
            kept.kept[which] = super::Flames::read(&graph)?.total();
            kept.profile_type = profile_type;
        }
        Ok(kept)
    }
}

impl Kept {
    fn wrong(&self) -> Option<String> {
        if self.kept[0] != self.uploaded {
            return Some(format!(
                "of {} the server keeps {}",
                super::amount(self.uploaded, "nanoseconds"),
                super::amount(self.kept[0], "nanoseconds"),
            ));
        }
        None
    }

    /// Rounded down: all is 100 %, and nothing else is.
    fn percent(&self, which: usize) -> String {
        let thousandths = i128::from(self.kept[which]) * 1000 / i128::from(self.uploaded.max(1));
        if thousandths % 10 == 0 {
            format!("{} %", thousandths / 10)
        } else {
            format!("{}.{} %", thousandths / 10, thousandths % 10)
        }
    }
}

/// How much time one of what is counted stands for: a JFR counts samples, of which the server makes time.
fn in_nanoseconds(request: &Request, profile: &crate::decode::Decoded) -> Result<i64, String> {
    if !profile.sample_types[0].starts_with("jdk.") {
        return Ok(1);
    }
    let target = request.target();
    let (_, rest) = target.split_once("sampleRate=").ok_or("no sampleRate")?;
    let rate = rest.split('&').next().unwrap_or_default();
    let rate: i64 = rate
        .parse()
        .map_err(|error| format!("sampleRate={rate}: {error}"))?;
    Ok(1_000_000_000 / rate)
}

const COLUMNS: [&str; 9] = [
    "fleet",
    "SDK",
    "sandboxes",
    "uploads",
    "resolution",
    "relayed",
    "kept",
    "kept, unchanged",
    "of",
];

/// What is counted, as it is decoded and as the server has it.
const CPU_TYPES: [(&str, &str); 3] = [
    ("cpu:nanoseconds", "cpu:nanoseconds"),
    ("wall:nanoseconds", "wall:nanoseconds"),
    ("jdk.ExecutionSample:count", "cpu:nanoseconds"),
];

/// The subjects that are run as fleets too.
const FLEETS: [&str; 9] = [
    "rust",
    "python",
    "python-ingest",
    "java",
    "nodejs",
    "nodejs-multipart",
    "go",
    "ruby",
    "dotnet",
];

const SANDBOXES: u8 = 12;

/// Of each sandbox.
const UPLOADS_MIN: usize = 3;
