//! The report: a table with one row per SDK and per fate, and the line that counts them.

use std::path::PathBuf;
use std::time::Duration;

use crate::Outcome;
use crate::decode::Decoded;
use crate::fates::Ended;
use crate::subjects::{Missing, Subject};
use crate::support::pyroscope::Pyroscope;

/// One run's place in the table.
pub struct Row {
    cells: [String; COLUMNS.len()],
    /// What was to be found and was: each in a line of its own, beside the cells.
    found: Vec<String>,
    verdict: Verdict,
    log_file: PathBuf,
}

enum Verdict {
    Passed,
    Failed(Vec<String>),
    Skipped { reason: String, is_excused: bool },
}

const COLUMNS: [&str; 8] = [
    "run", "SDK", "runtime", "sent as", "calls", "payloads", "bytes", "seconds",
];

/// In the place of an SDK, where a function has none.
const NO_SDK: &str = "none";

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
        Self {
            cells: [
                subject.name.to_owned(),
                subject.sdk.clone(),
                runtime(subject, &profiles),
                sent_as(outcome),
                outcome.answers.len().to_string(),
                outcome.arrived.len().to_string(),
                bytes.to_string(),
                seconds(took),
            ],
            found: found(subject, &profiles),
            verdict: Verdict::on(wrong),
            log_file: subject.log_file.clone(),
        }
    }

    /// A sandbox that is not the usual one.
    pub fn fate(
        name: &str,
        ended: Result<Ended, String>,
        server: &Pyroscope,
        took: Duration,
        log_file: PathBuf,
    ) -> Self {
        let arrived = server.complete();
        let bytes: usize = arrived.iter().map(|request| request.payload().len()).sum();
        let (calls, found, wrong) = match ended {
            Ok(ended) => (ended.answers.len(), vec![ended.found], ended.wrong),
            Err(error) => (0, Vec::new(), vec![error]),
        };
        Self {
            cells: [
                name.to_owned(),
                NO_SDK.to_owned(),
                "python".to_owned(),
                String::new(),
                calls.to_string(),
                arrived.len().to_string(),
                bytes.to_string(),
                seconds(took),
            ],
            found,
            verdict: Verdict::on(wrong),
            log_file,
        }
    }

    pub fn failed(subject: &Subject, took: Duration, error: String) -> Self {
        let mut row = Self::without_outcome(subject, Verdict::Failed(vec![error]));
        row.cells[COLUMNS.len() - 1] = seconds(took);
        row
    }

    pub fn skipped(subject: &Subject, missing: &Missing) -> Self {
        let verdict = Verdict::Skipped {
            reason: missing.reason.clone(),
            is_excused: missing.is_excused,
        };
        Self::without_outcome(subject, verdict)
    }

    fn without_outcome(subject: &Subject, verdict: Verdict) -> Self {
        let mut cells: [String; COLUMNS.len()] = Default::default();
        subject.name.clone_into(&mut cells[0]);
        cells[1].clone_from(&subject.sdk);
        Self {
            cells,
            found: Vec::new(),
            verdict,
            log_file: subject.log_file.clone(),
        }
    }

    /// Its lines in the table: cells, verdict, and what was found or why it was skipped.
    fn lines(&self) -> Vec<Vec<String>> {
        let (verdict, beside) = match &self.verdict {
            Verdict::Passed => ("ok", self.found.clone()),
            Verdict::Failed(_) => ("FAILED", self.found.clone()),
            Verdict::Skipped { reason, .. } => ("skipped", vec![reason.clone()]),
        };
        let mut lines = vec![[&self.cells[..], &[verdict.to_owned()]].concat()];
        for (number, found) in beside.into_iter().enumerate() {
            if number > 0 {
                lines.push(vec![String::new(); COLUMNS.len() + 1]);
            }
            lines[number].push(found);
        }
        lines
    }
}

impl Verdict {
    fn on(wrong: Vec<String>) -> Self {
        if wrong.is_empty() {
            Self::Passed
        } else {
            Self::Failed(wrong)
        }
    }
}

/// Prints the table and says whether all is well: nothing failed, something ran, and with `all` nothing was
/// left out without an excuse.
pub fn print(rows: &[Row], all: bool) -> bool {
    let head = [&COLUMNS[..], &["", "found"]].concat();
    let mut lines = vec![head.into_iter().map(str::to_owned).collect()];
    lines.extend(rows.iter().flat_map(Row::lines));
    table(&lines);
    print_wrongs(rows);
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
    // A sandbox's fate says nothing of what an SDK sends.
    let carried = |row: &Row| matches!(row.verdict, Verdict::Passed) && row.cells[1] != NO_SDK;
    if !rows.iter().any(carried) {
        println!("e2e: no SDK was run");
        return false;
    }
    failed == 0
}

/// What is wrong with those that failed, and where to read on.
fn print_wrongs(rows: &[Row]) {
    for row in rows {
        let Verdict::Failed(wrong) = &row.verdict else {
            continue;
        };
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

/// Prints lines of cells, those of one column below each other, numbers to the right; the first line is the head.
pub fn table(lines: &[Vec<String>]) {
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let shapes: Vec<(usize, bool)> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            let width = cells.clone().map(|cell| cell.chars().count()).max();
            let is_number = cells.clone().any(|cell| cell.parse::<f64>().is_ok());
            (width.unwrap_or_default(), is_number)
        })
        .collect();
    for line in lines {
        let padded = line.iter().zip(&shapes).map(|(cell, &(width, is_number))| {
            if is_number {
                format!("{cell:>width$}")
            } else {
                format!("{cell:width$}")
            }
        });
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
    // Java's ends in +6-Debian, Go's begins with go, Rust's is "rustc 1.95.0 (…".
    let version = label("process.runtime.version").unwrap_or_default();
    let version = version.split([' ', '+']).find(|word| word.contains('.'));
    let version = version.unwrap_or_default().trim_start_matches(name);
    format!("{name} {version}").trim_end().to_owned()
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
fn found(subject: &Subject, profiles: &[&Decoded]) -> Vec<String> {
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
            seen.push(format!("{}: {}", sight.function, amount(value, unit)));
        }
    }
    seen
}

/// A value of a type, such as `cpu:nanoseconds`, as one says it.
#[expect(clippy::cast_precision_loss, reason = "two digits of it are shown")]
fn amount(value: i64, kind: &str) -> String {
    match kind.split_once(':') {
        Some((name, "nanoseconds" | "ns")) => format!("{:.2} s {name}", value as f64 / 1e9),
        Some((name, "count")) => format!("{value} {name}"),
        _ => format!("{value} {kind}"),
    }
}

fn seconds(took: Duration) -> String {
    format!("{:.1}", took.as_secs_f64())
}
