//! What a person reads, and what the next run compares itself with.

use std::fmt::Write;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::figures::{Judged, Row, Spread, Unit};
use crate::relay::{WHY_NO_PROMISE, is_saturated};
use crate::subjects::Subject;

/// A load above which the figures say more about the others than about the programs measured. A build before
/// this, which is as usual as can be, leaves less.
const BUSY: f64 = 3.0;

/// A line of the file of recorded figures.
pub struct Recorded {
    what: String,
    pub judged: f64,
}

pub fn table(rows: &[Row], subjects: &[Subject], recorded: &[Recorded]) -> String {
    let with_released = subjects.len() > 2;
    let mut out = String::new();
    let mut group = "";
    let mut worse = 0;
    for row in rows {
        if row.group != group {
            if is_saturated(row.group) && !is_saturated(group) {
                let _ = writeln!(out, "\n{WHY_NO_PROMISE}");
            }
            group = row.group;
            let released = if with_released {
                "         Go   Go ratio"
            } else {
                ""
            };
            let _ = writeln!(
                out,
                "\n{group:<56} {:>10} {:>10} {released} {:>7} {:>17} {:>9} {:>8}",
                "base", "ours", "judged", "quartiles", "recorded", "promise",
            );
        }
        let judged = row.judged();
        let before = find(recorded, &row.what);
        let mut remarks = Vec::from_iter(row.remark.as_deref());
        if let Some(promise) = row.promise
            && row.breaks(judged.median, promise)
        {
            remarks.push("over the promise");
        }
        if before.is_some_and(|before| row.is_worse(before)) {
            worse += 1;
            remarks.push("A QUARTER WORSE");
        }
        if row.released_is_better() {
            remarks.push("GO IS BETTER");
        }
        let released = if with_released {
            released_columns(row)
        } else {
            String::new()
        };
        let _ = writeln!(
            out,
            "  {:<54} {:>10} {:>10} {released} {:>7} {:>17} {:>9} {:>8}  {}",
            row.what
                .strip_prefix(row.group)
                .map_or(&*row.what, |rest| rest.trim_start_matches([':', ' '])),
            figure(&row.base, row.unit),
            figure(&row.ours, row.unit),
            told(row, judged.median),
            format!("{} to {}", told(row, judged.low), told(row, judged.high)),
            before.map_or_else(|| "-".to_owned(), |before| told(row, before)),
            promised(row),
            remarks.join(", "),
        );
    }
    let _ = writeln!(
        out,
        "\nbase: the floor; for TLS: CPU over plain, rustls encrypting in memory; for a dead server, a healthy one. \
         judged: ours / base, or ours itself.\n{worse} a quarter worse than recorded."
    );
    out
}

fn released_columns(row: &Row) -> String {
    let Some(ratio) = row.released() else {
        return format!("{:>10} {:>10}", "-", "-");
    };
    let beside = match row.judged {
        Judged::Itself => row
            .released_over_ours()
            .map_or_else(|| "-".to_owned(), |times| format!("{times:.1} × us")),
        Judged::Ratio | Judged::RatioOfMore => told(row, ratio.median),
    };
    format!("{:>10} {beside:>10}", figure(&row.released, row.unit))
}

/// The figure in the middle, with its unit.
fn figure(figures: &[f64], unit: Unit) -> String {
    if figures.is_empty() {
        return "-".to_owned();
    }
    let middle = Spread::of(figures).median;
    let is_whole = matches!(unit, Unit::Count | Unit::Kib | Unit::Bytes);
    let digits = if is_whole {
        0
    } else {
        usize::from(middle < 20.0)
    };
    format!("{middle:.digits$}{}", unit.word())
}

/// What is judged, as it is told: a ratio, or a figure.
fn told(row: &Row, judged: f64) -> String {
    match row.judged {
        _ if judged.is_nan() => "-".to_owned(),
        Judged::Ratio | Judged::RatioOfMore => format!("{judged:.2}"),
        Judged::Itself if row.unit == Unit::Millis => format!("{judged:.2}"),
        Judged::Itself => format!("{judged:.0}"),
    }
}

fn promised(row: &Row) -> String {
    let sign = if row.judged == Judged::RatioOfMore {
        "≥"
    } else {
        "≤"
    };
    row.promise
        .map_or_else(String::new, |promise| format!("{sign} {promise}"))
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::Micros => " µs",
            Self::Millis => " ms",
            Self::Kib => " KiB",
            Self::Bytes => " B",
            Self::PerSecond => " /s",
            Self::Count => "",
        }
    }
}

/// How many processes wanted a CPU during the last minute.
pub fn load() -> f64 {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let minute = load
        .split(' ')
        .next()
        .and_then(|minute| minute.parse().ok());
    minute.unwrap_or(f64::NAN)
}

/// What the figures depend on besides the code.
pub fn surroundings(took: Duration, load_before: f64) -> String {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let busy = if load_before > BUSY {
        "\nTHE MACHINE WAS BUSY: one thread of ours beside several of the floor's, so that others slow ours more."
    } else {
        ""
    };
    let seconds = took.as_secs_f64();
    format!(
        "measured in {seconds:.0} s, on {cores} cores; load before it began {load_before}{busy}"
    )
}

/// Every row, to be read by programs: tab-separated, medians and quartiles.
pub fn tsv(rows: &[Row]) -> String {
    let mut out =
        "what\tunit\tbase\tours\tjudged\tlower quartile\tupper quartile\tpromise\tGo\tGo judged\n"
            .to_owned();
    for row in rows {
        let judged = row.judged();
        let _ = write!(out, "{}\t{}\t", row.what, row.unit.word().trim());
        let cell = |figure: Option<f64>| {
            figure
                .filter(|f| f.is_finite())
                .map_or_else(String::new, |f| format!("{f:.3}"))
        };
        let cells = [
            Some(Spread::of(&row.base).median),
            Some(Spread::of(&row.ours).median),
            Some(judged.median),
            Some(judged.low),
            Some(judged.high),
            row.promise,
            Some(Spread::of(&row.released).median),
            row.released().map(|released| released.median),
        ];
        let _ = writeln!(out, "{}", cells.map(cell).join("\t"));
    }
    out
}

/// Reads what [`tsv`] wrote.
pub fn read_recorded(text: &str) -> Vec<Recorded> {
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| {
            let mut cells = line.split('\t');
            Some(Recorded {
                what: cells.next()?.to_owned(),
                judged: cells.nth(3)?.parse().ok()?,
            })
        })
        .collect()
}

pub fn find(recorded: &[Recorded], what: &str) -> Option<f64> {
    recorded
        .iter()
        .find(|line| line.what == what)
        .map(|line| line.judged)
}
