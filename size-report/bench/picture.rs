//! The ratios as a picture: each row's median and quartiles on one logarithmic scale, with what was promised.

use std::fmt::Write;

use crate::figures::{Judged, Row};
use crate::page::{Recorded, find};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 380.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 70.0;
const LINE: f64 = 26.0;

/// The scale's ends and what is written along it.
const LEAST: f64 = 0.25;
const MOST: f64 = 16.0;
const MARKS: [f64; 7] = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

const STYLE: &str = "text{font:13px sans-serif;fill:#24292f}.head{font-size:17px;font-weight:600}\
    .small{font-size:11px;fill:#57606a}.grid{stroke:#d8dee4}.one{stroke:#57606a}\
    .kept{fill:#1a7f37;stroke:#1a7f37}.broken{fill:#cf222e;stroke:#cf222e}.free{fill:#0969da;stroke:#0969da}\
    .go{fill:#9a6700}.promise{stroke:#24292f;stroke-width:2}.recorded{fill:none;stroke:#57606a}";

pub fn draw(rows: &[Row], recorded: &[Recorded]) -> String {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| row.judged != Judged::Itself)
        .collect();
    let lines = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let bottom = TOP + LINE * f64::from(lines);
    let height = bottom + 50.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text class=\"head\" x=\"20\" y=\"28\">The extension beside the least there can be</text>\n"
    );
    for mark in MARKS {
        let (x, class) = (x(mark), if mark == 1.0 { "one" } else { "grid" });
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{mark} ×</text>",
            TOP - 8.0
        );
    }
    let mut y = TOP + LINE / 2.0;
    for row in rows {
        draw_row(&mut svg, row, find(recorded, &row.what), y);
        y += LINE;
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"20\" y=\"{:.1}\">dot: median of ours / base; bar: quartiles; black tick: promise \
         (green kept, red not, blue none); ring: recorded; square: the released Go extension</text>\n</svg>",
        bottom + 28.0
    );
    svg
}

fn draw_row(svg: &mut String, row: &Row, recorded: Option<f64>, y: f64) {
    let judged = row.judged();
    let class = match row.promise {
        Some(promise) if row.breaks(judged.median, promise) => "broken",
        Some(_) => "kept",
        None => "free",
    };
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
         <line class=\"{class}\" stroke-width=\"6\" x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" opacity=\".35\"/>\
         <circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
         <text class=\"small\" x=\"{:.1}\" y=\"{:.1}\">{:.2}</text>",
        LEFT - 14.0,
        y + 4.0,
        row.what,
        x(judged.low),
        x(judged.high),
        x(judged.median),
        RIGHT + 12.0,
        y + 4.0,
        judged.median,
    );
    if let Some(promise) = row.promise {
        let (x, top, end) = (x(promise), y - 9.0, y + 9.0);
        let _ = writeln!(
            svg,
            "<line class=\"promise\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{end:.1}\"/>"
        );
    }
    if let Some(recorded) = recorded {
        let x = x(recorded);
        let _ = writeln!(
            svg,
            "<circle class=\"recorded\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\"/>"
        );
    }
    if let Some(released) = row.released() {
        let (x, top) = (x(released.median) - 4.0, y - 4.0);
        let _ = writeln!(
            svg,
            "<rect class=\"go\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"8\" height=\"8\"/>"
        );
    }
}

/// Where a ratio is, on a logarithmic scale; what is off it, at its ends.
fn x(ratio: f64) -> f64 {
    let share = (ratio.clamp(LEAST, MOST) / LEAST).ln() / (MOST / LEAST).ln();
    LEFT + share * (RIGHT - LEFT)
}
