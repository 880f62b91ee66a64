//! The report: a table with one row per SDK and per fate, and the line that counts them.

use std::path::PathBuf;
use std::time::Duration;

use crate::Outcome;
use crate::decode::Decoded;
use crate::fates::Ended;
use crate::subjects::{Missing, Subject};
use crate::support::pyroscope::Pyroscope;

/// One run's line in the table.
pub struct Row {
    cells: [String; COLUMNS.len()],
    verdict: Verdict,
    log_file: PathBuf,
}

enum Verdict {
    Passed,
    Failed(Vec<String>),
    Skipped { reason: String, is_excused: bool },
}

const COLUMNS: [&str; 9] = [
    "run", "runtime", "SDK", "sent as", "calls", "payloads", "bytes", "time", "found",
];

impl Row {
    pub fn ran(subject: &Subject, outcome: &Outcome, took: Duration, wrong: Vec<String>) -> Self {
        let profiles: Vec<&Decoded> = outcome
            .arrived
            .iter()
            .filter_map(|(_, profiles)| profiles.as_ref().ok())
            .flatten()
            .collect();
        let bytes: usize = outcome
            .arrived
            .iter()
            .map(|(request, _)| request.payload().len())
            .sum();
        let cells = [
            subject.name.to_owned(),
            runtime(subject, &profiles),
            subject.sdk.clone(),
            sent_as(outcome),
            outcome.answers.len().to_string(),
            outcome.arrived.len().to_string(),
            bytes.to_string(),
            seconds(took),
            found(subject, &profiles),
        ];
        let verdict = if wrong.is_empty() {
            Verdict::Passed
        } else {
            Verdict::Failed(wrong)
        };
        Self {
            cells,
            verdict,
            log_file: subject.log_file.clone(),
        }
    }

    /// A sandbox that is not the usual one.
    pub fn fate(
        name: &str,
        ended: Result<Ended, String>,
        remote: &Pyroscope,
        took: Duration,
        log_file: PathBuf,
    ) -> Self {
        let mut cells: [String; COLUMNS.len()] = Default::default();
        let arrived = remote.complete();
        let bytes: usize = arrived.iter().map(|request| request.payload().len()).sum();
        cells[0] = name.to_owned();
        cells[2] = "none".to_owned();
        cells[5] = arrived.len().to_string();
        cells[6] = bytes.to_string();
        cells[7] = seconds(took);
        let wrong = match ended {
            Ok(ended) => {
                cells[4] = ended.answers.len().to_string();
                cells[8] = ended.found;
                ended.wrong
            }
            Err(error) => vec![error],
        };
        let verdict = if wrong.is_empty() {
            Verdict::Passed
        } else {
            Verdict::Failed(wrong)
        };
        Self {
            cells,
            verdict,
            log_file,
        }
    }

    pub fn failed(subject: &Subject, took: Duration, error: String) -> Self {
        let mut cells: [String; COLUMNS.len()] = Default::default();
        cells[0] = subject.name.to_owned();
        cells[2] = subject.sdk.clone();
        cells[7] = seconds(took);
        Self {
            cells,
            verdict: Verdict::Failed(vec![error]),
            log_file: subject.log_file.clone(),
        }
    }

    pub fn skipped(subject: &Subject, missing: &Missing) -> Self {
        let mut cells: [String; COLUMNS.len()] = Default::default();
        cells[0] = subject.name.to_owned();
        cells[2] = subject.sdk.clone();
        Self {
            cells,
            verdict: Verdict::Skipped {
                reason: missing.reason.clone(),
                is_excused: missing.is_excused,
            },
            log_file: subject.log_file.clone(),
        }
    }
}

/// Prints the table and says whether all is well: nothing failed, something ran, and with `all` nothing was
/// left out without an excuse.
pub fn print(rows: &[Row], all: bool) -> bool {
    let mut lines = vec![COLUMNS.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let end = match &row.verdict {
            Verdict::Passed => "ok".to_owned(),
            Verdict::Failed(_) => "FAILED".to_owned(),
            Verdict::Skipped { reason, .. } => format!("skipped: {reason}"),
        };
        [&row.cells[..], &[end]].concat()
    }));
    table(&lines);
    for row in rows {
        if let Verdict::Failed(wrong) = &row.verdict {
            for (what, times) in counted(wrong) {
                let times = if times > 1 {
                    format!(" ({times} times)")
                } else {
                    String::new()
                };
                println!("{}: {what}{times}", row.cells[0]);
            }
            println!("{}: the log is {}", row.cells[0], row.log_file.display());
        }
    }
    let count =
        |wanted: fn(&Verdict) -> bool| rows.iter().filter(|row| wanted(&row.verdict)).count();
    let passed = count(|verdict| matches!(verdict, Verdict::Passed));
    let failed = count(|verdict| matches!(verdict, Verdict::Failed(_)));
    let skipped = count(|verdict| matches!(verdict, Verdict::Skipped { .. }));
    let unexcused = count(|verdict| {
        matches!(
            verdict,
            Verdict::Skipped {
                is_excused: false,
                ..
            }
        )
    });
    println!("e2e: {passed} passed, {failed} failed, {skipped} skipped");
    if all && unexcused > 0 {
        println!(
            "e2e: what was skipped, but for a language that the machine lacks, may not be skipped here"
        );
        return false;
    }
    failed == 0 && passed > 0
}

/// Prints lines of cells, those of one column below each other.
pub fn table(lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in lines {
        let padded = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"));
        println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
    }
}

/// What is wrong is usually wrong with each payload: each thing once, and how often.
fn counted(wrong: &[String]) -> Vec<(&str, usize)> {
    let mut counted: Vec<(&str, usize)> = Vec::new();
    for what in wrong {
        match counted.iter_mut().find(|(known, _)| known == what) {
            Some((_, times)) => *times += 1,
            None => counted.push((what, 1)),
        }
    }
    counted
}

/// As the profiles name it, without what a version says of its build.
fn runtime(subject: &Subject, profiles: &[&Decoded]) -> String {
    if subject.is_replay {
        return "a replay".to_owned();
    }
    let label = |name| Some(profiles.first()?.labels.get(name)?.as_str());
    let name = label("process.runtime.name").unwrap_or(subject.runtime);
    let name = name.split(' ').next().unwrap_or_default();
    // Java's ends in +6-Debian, Rust's is "rustc 1.95.0 (…".
    let version = label("process.runtime.version").unwrap_or_default();
    let version = version.split([' ', '+']).find(|word| word.contains('.'));
    format!("{name} {}", version.unwrap_or_default())
        .trim_end()
        .to_owned()
}

/// How the SDK spoke, by its last request and by what else was seen: the end of the path, the kind of body, manners.
fn sent_as(outcome: &Outcome) -> String {
    let Some((request, _)) = outcome.arrived.last() else {
        return String::new();
    };
    let path = request.path();
    let kind = request.head.all("Content-Type").concat();
    let coding = request.head.all("Content-Encoding").concat();
    let mut words = vec![
        path.rsplit('/').next().unwrap_or_default(),
        kind.split(';').next().unwrap_or_default(),
        &coding,
    ];
    words.extend(&outcome.manners);
    words.retain(|word| !word.is_empty());
    words.join(" ")
}

/// What each function that was to be seen used, in the unit of its profiles.
fn found(subject: &Subject, profiles: &[&Decoded]) -> String {
    let mut seen = Vec::new();
    for sight in &subject.shows {
        let with: Vec<(i64, &str)> = profiles
            .iter()
            .filter_map(|profile| {
                Some((
                    sight.value_in(profile)?,
                    profile.sample_types.first()?.as_str(),
                ))
            })
            .collect();
        if let Some((_, unit)) = with.first() {
            let value: i64 = with.iter().map(|(value, _)| value).sum();
            let unit = unit.trim_end_matches(":count");
            seen.push(format!("{} ({value} {unit})", sight.function));
        }
    }
    seen.join(", ")
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}
