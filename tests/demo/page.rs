//! What the reader sees: a timeline as it happens, a table of what arrived, a few totals. Colour on a terminal only.

use std::env;
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

pub struct Page {
    started: Instant,
    coloured: bool,
}

/// Who does something on the timeline.
#[derive(Clone, Copy)]
pub enum Who {
    Lambda,
    Function,
    Extension,
    Remote,
}

impl Page {
    pub fn new() -> Self {
        let coloured = stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self {
            started: Instant::now(),
            coloured,
        }
    }

    /// The timeline begins here.
    pub fn zero(&mut self, at: Instant) {
        self.started = at;
    }

    pub fn title(&self, text: &str) {
        println!("\n{}", self.painted("1", text));
    }

    pub fn fact(&self, name: &str, text: &str) {
        println!("  {} {text}", self.painted("2", &format!("{name:<16}")));
    }

    /// One line of the timeline, for something that happened at `at`.
    pub fn line(&self, at: Instant, who: Who, text: &str) {
        let ms = at.saturating_duration_since(self.started).as_secs_f64() * 1e3;
        let (name, colour) = match who {
            Who::Lambda => ("lambda", "33"),
            Who::Function => ("function", "36"),
            Who::Extension => ("extension", "32"),
            Who::Remote => ("remote", "35"),
        };
        let (time, name) = (
            self.painted("2", &format!("{ms:>9.1} ms")),
            self.painted(colour, &format!("{name:<9}")),
        );
        println!("  {time}  {name}  {text}");
    }

    /// A line for what happened just now.
    pub fn now(&self, who: Who, text: &str) {
        self.line(Instant::now(), who, text);
    }

    /// A table: a heading, then rows; columns marked in `right` are numbers.
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>], right: &[bool]) {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells
                .chain([heading[column].chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        let laid_out = |cells: &[String]| {
            let cells = cells.iter().enumerate().map(|(column, cell)| {
                let width = widths[column];
                if right[column] {
                    format!("{cell:>width$}")
                } else {
                    format!("{cell:<width$}")
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
        println!("  {}", self.painted("2", &laid_out(&heading)));
        rows.iter().for_each(|row| println!("  {}", laid_out(row)));
    }

    pub fn verdict(&self, good: bool, text: &str) {
        println!(
            "\n{}\n",
            self.painted(if good { "1;32" } else { "1;31" }, text)
        );
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.coloured {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A duration in the unit that suits it.
pub fn short(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        ..1_000_000.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// A size in the unit that suits it.
pub fn size(bytes: u64) -> String {
    let kib = bytes as f64 / 1024.0;
    if kib < 1024.0 {
        format!("{kib:.0} KiB")
    } else {
        format!("{:.1} MiB", kib / 1024.0)
    }
}

/// `12,345`
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}
