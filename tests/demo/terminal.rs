//! What the terminal shows: a timeline as it happens, a table of what arrived, a few totals. Colour on a terminal only.

use std::env;
use std::io::{IsTerminal, stdout};
use std::time::{Duration, Instant};

use super::story::{Line, Who};

pub struct Terminal {
    started: Instant,
    coloured: bool,
    /// The timeline so far, for the page.
    lines: Vec<Line>,
}

impl Terminal {
    pub fn new() -> Self {
        let coloured = stdout().is_terminal() && env::var_os("NO_COLOR").is_none();
        Self {
            started: Instant::now(),
            coloured,
            lines: Vec::new(),
        }
    }

    /// The timeline begins here.
    pub fn zero(&mut self, at: Instant) {
        self.started = at;
    }

    /// How long after the timeline's beginning `at` was.
    pub fn time(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.started)
    }

    /// The timeline as it was shown.
    pub fn take_lines(&mut self) -> Vec<Line> {
        std::mem::take(&mut self.lines)
    }

    /// A chapter of the timeline.
    pub fn chapter(&mut self, text: &str) {
        self.title(text);
        self.lines.push(Line {
            at: None,
            text: text.to_owned(),
        });
    }

    pub fn title(&self, text: &str) {
        println!("\n{}", self.painted("1", text));
    }

    pub fn fact(&self, name: &str, text: &str) {
        println!("  {} {text}", self.painted("2", &format!("{name:<16}")));
    }

    /// One line of the timeline, for something that happened at `at`.
    pub fn line(&mut self, at: Instant, who: Who, text: &str) {
        let at = self.time(at);
        let ms = at.as_secs_f64() * 1e3;
        let colour = match who {
            Who::Lambda => "33",
            Who::Function => "36",
            Who::Extension => "32",
            Who::Server => "35",
        };
        let (time, name) = (
            self.painted("2", &format!("{ms:>9.1} ms")),
            self.painted(colour, &format!("{:<9}", who.name())),
        );
        println!("  {time}  {name}  {text}");
        self.lines.push(Line {
            at: Some((at, who)),
            text: text.to_owned(),
        });
    }

    /// A line for what happened just now.
    pub fn now(&mut self, who: Who, text: &str) {
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
