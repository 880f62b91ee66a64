//! Figures beside Grafana's extension, read from what was recorded: nothing here was measured in the demo's run.

use std::time::Duration;

use super::super::units::{grouped, short, size};

/// One figure of both.
pub struct Compared {
    pub name: &'static str,
    pub ours: String,
    pub grafana: String,
    /// Ours as a part of Grafana's; `None` where Grafana's is nothing.
    pub part: Option<f64>,
}

const LATENCY: &str = include_str!("../../../size-report/latency.tsv");
const INIT: &str = include_str!("../../../size-report/init.tsv");

/// What is shown: the table, its row, what the page calls it.
const SHOWN: [(&str, &str, &str); 8] = [
    (LATENCY, "binary", "size of the binary, x86_64"),
    (LATENCY, "idle RSS", "memory when idle"),
    (INIT, "init", "a function's init is longer by"),
    (LATENCY, "exec → register", "from exec to registered"),
    (
        LATENCY,
        "64 KiB, 1 connection: CPU per payload",
        "CPU for a profile of 64 KiB",
    ),
    (
        LATENCY,
        "of 60 waiting at SHUTDOWN, server takes 500 ms",
        "lost, of 60 that wait at shutdown (the server takes half a second for each)",
    ),
    (
        LATENCY,
        "of 5 under way at a freeze that drops them",
        "lost, of 5 under way at a freeze (the server closes their connections)",
    ),
    (
        LATENCY,
        "of 200 while the server refuses",
        "lost, of 200 while the server refuses connections",
    ),
];

/// Both extensions' figures.
pub fn figures() -> Vec<Compared> {
    let compared = SHOWN.iter().map(|&(table, row, name)| {
        let unit = cell(table, row, "unit");
        let [ours, grafana] = ["ours", "Go"].map(|column| {
            let text = cell(table, row, column);
            text.parse::<f64>()
                .unwrap_or_else(|_| panic!("{row}, {column}: {text:?} is no number"))
        });
        Compared {
            name,
            ours: shown(ours, unit),
            grafana: shown(grafana, unit),
            part: (grafana > 0.0).then(|| ours / grafana),
        }
    });
    compared.collect()
}

/// The text in a table's row and column, both by name.
fn cell(table: &'static str, row: &str, column: &str) -> &'static str {
    let mut lines = table.lines().map(|line| line.split('\t'));
    let place = lines
        .next()
        .and_then(|mut names| names.position(|name| name == column));
    let place = place.unwrap_or_else(|| panic!("no recorded column {column:?}"));
    lines
        .find_map(|mut cells| (cells.next() == Some(row)).then(|| cells.nth(place - 1)))
        .flatten()
        .unwrap_or_else(|| panic!("no recorded figure {row:?}, {column:?}"))
}

fn shown(value: f64, unit: &str) -> String {
    match unit {
        "B" => format!("{} bytes", grouped(value as u64)),
        "KiB" => size((value * 1024.0) as u64),
        "µs" => short(Duration::from_secs_f64(value / 1e6)),
        "ms" => format!("{value:.2} ms"),
        _ if value == 0.0 => "none".to_owned(),
        _ => format!("{value:.0}"),
    }
}
