//! The rows as a picture. First what a user feels, as it is, ours beside the Go extension; then the ratios to the least
//! there can be, each row's median and quartiles; all on logarithmic scales, with what was promised. It can be read on a
//! light page and on a dark one.

use std::fmt::Write;

use crate::figures::{Judged, Row, Spread, Unit};
use crate::page::{Recorded, find};
use crate::relay::is_saturated;
use crate::{first, losses};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 380.0;
const RIGHT: f64 = 900.0;
const LINE: f64 = 26.0;

/// Of a panel's title, down to its scale.
const TITLE: f64 = 52.0;

/// What the parts look like on a light page, and what is different on a dark one. Not by variables, which some programs
/// that draw SVG do not know.
const STYLE: &str = "text{font:13px sans-serif;fill:#24292f}.head{font-size:17px;font-weight:600}.page{fill:#ffffff}\
    .small{font-size:11px;fill:#57606a;stroke:#ffffff;stroke-width:3;paint-order:stroke}.grid{stroke:#d8dee4}.one{stroke:#57606a}\
    .kept{fill:#1a7f37;stroke:#1a7f37}.broken{fill:#cf222e;stroke:#cf222e}.free{fill:#0969da;stroke:#0969da}\
    .go{fill:#9a6700}.promise{stroke:#24292f;stroke-width:2}.recorded{fill:none;stroke:#57606a}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.page{fill:#0d1117}.small{fill:#9198a1;stroke:#0d1117}\
    .grid{stroke:#30363d}.one{stroke:#9198a1}.kept{fill:#3fb950;stroke:#3fb950}.broken{fill:#f85149;stroke:#f85149}\
    .free{fill:#58a6ff;stroke:#58a6ff}.go{fill:#d29922}.promise{stroke:#e6edf3}.recorded{stroke:#9198a1}}";

/// A logarithmic scale, and what is written along it.
struct Scale {
    least: f64,
    most: f64,
    marks: &'static [(f64, &'static str)],
}

/// In microseconds.
const TIMES: Scale = Scale {
    least: 10.0,
    most: 1e6,
    marks: &[
        (10.0, "10 µs"),
        (100.0, "100 µs"),
        (1e3, "1 ms"),
        (1e4, "10 ms"),
        (1e5, "100 ms"),
        (1e6, "1 s"),
    ],
};

const RATIOS: Scale = Scale {
    least: 0.125,
    most: 32.0,
    marks: &[
        (0.125, "0.125 ×"),
        (0.25, "0.25 ×"),
        (0.5, "0.5 ×"),
        (1.0, "1 ×"),
        (2.0, "2 ×"),
        (4.0, "4 ×"),
        (8.0, "8 ×"),
        (16.0, "16 ×"),
        (32.0, "32 ×"),
    ],
};

impl Scale {
    /// Where a figure is; what is off the scale, at its end.
    fn x(&self, figure: f64) -> f64 {
        let figure = figure.clamp(self.least, self.most);
        let share = (figure / self.least).ln() / (self.most / self.least).ln();
        LEFT + share * (RIGHT - LEFT)
    }

    fn is_beyond(&self, figure: f64) -> bool {
        figure < self.least || figure > self.most
    }
}

pub fn draw(rows: &[Row], recorded: &[Recorded]) -> String {
    let of =
        |wanted: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| wanted(row)).collect::<Vec<_>>();
    let mut svg = String::new();
    let mut y = 28.0;
    let felt = of(&|row| row.group == first::GROUP);
    draw_panel(
        &mut svg,
        &mut y,
        "What a user feels, over TLS",
        &felt,
        &TIMES,
        recorded,
    );
    draw_losses(&mut svg, &mut y, &of(&|row| row.group == losses::GROUP));
    let ratios = |row: &Row| row.judged != Judged::Itself;
    let beside = of(&|row| ratios(row) && !is_saturated(row.group));
    draw_panel(
        &mut svg,
        &mut y,
        "Beside the least there can be",
        &beside,
        &RATIOS,
        recorded,
    );
    let saturated = of(&|row| ratios(row) && is_saturated(row.group));
    let title =
        "A saturated machine, without a promise: its scheduler decides, and no sandbox is so busy";
    draw_panel(&mut svg, &mut y, title, &saturated, &RATIOS, recorded);
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"20\" y=\"{y:.1}\">dot: ours, median, or its ratio to the base; bar: quartiles; tick: promise \
         (green kept, red not, blue none); ring: recorded before; square: Grafana's extension in Go</text>"
    );
    let height = y + 22.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\">\n\
         <style>{STYLE}</style>\n<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n{svg}</svg>\n"
    )
}

/// Rows on one scale. `y` is where its title goes, and where that of the next one would, afterwards.
fn draw_panel(
    svg: &mut String,
    y: &mut f64,
    title: &str,
    rows: &[&Row],
    scale: &Scale,
    recorded: &[Recorded],
) {
    if rows.is_empty() {
        return;
    }
    let lines = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let top = *y + TITLE - 10.0;
    let bottom = top + LINE * f64::from(lines);
    let _ = writeln!(
        svg,
        "<text class=\"head\" x=\"20\" y=\"{y:.1}\">{title}</text>"
    );
    for &(mark, text) in scale.marks {
        let (x, class) = (scale.x(mark), if text == "1 ×" { "one" } else { "grid" });
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
            top - 8.0
        );
    }
    let mut at = top + LINE / 2.0;
    for row in rows {
        draw_row(svg, row, scale, find(recorded, &row.what), at);
        at += LINE;
    }
    *y = bottom + 40.0;
}

fn draw_row(svg: &mut String, row: &Row, scale: &Scale, recorded: Option<f64>, y: f64) {
    let text = y + 4.0;
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{text:.1}\" text-anchor=\"end\">{}</text>",
        LEFT - 14.0,
        row.what
    );
    let judged = row.judged();
    if judged.median.is_nan() {
        let remark = row.remark.as_deref().unwrap_or("not measured");
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{LEFT:.1}\" y=\"{text:.1}\">{remark}</text>"
        );
        return;
    }
    let class = match row.promise {
        Some(promise) if row.breaks(judged.median, promise) => "broken",
        Some(_) => "kept",
        None => "free",
    };
    let _ = writeln!(
        svg,
        "<line class=\"{class}\" stroke-width=\"6\" x1=\"{:.1}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" opacity=\".35\"/>\
         <circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
         <text class=\"small\" x=\"{:.1}\" y=\"{text:.1}\">{}</text>",
        scale.x(judged.low),
        scale.x(judged.high),
        scale.x(judged.median),
        RIGHT + 12.0,
        words(row, judged.median),
    );
    if let Some(promise) = row.promise {
        let (x, top, end) = (scale.x(promise), y - 9.0, y + 9.0);
        let _ = writeln!(
            svg,
            "<line class=\"promise\" x1=\"{x:.1}\" y1=\"{top:.1}\" x2=\"{x:.1}\" y2=\"{end:.1}\"/>"
        );
    }
    if let Some(recorded) = recorded {
        let x = scale.x(recorded);
        let _ = writeln!(
            svg,
            "<circle class=\"recorded\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"8\"/>"
        );
    }
    if let Some(released) = row.released() {
        draw_released(svg, row, scale, released.median, y);
    }
}

/// The Go extension's mark; with its figure where the scale has none for it, or where it says how long something takes.
fn draw_released(svg: &mut String, row: &Row, scale: &Scale, figure: f64, y: f64) {
    let (x, top) = (scale.x(figure), y - 4.0);
    let _ = writeln!(
        svg,
        "<rect class=\"go\" x=\"{:.1}\" y=\"{top:.1}\" width=\"8\" height=\"8\"/>",
        x - 4.0
    );
    if row.judged == Judged::Itself || scale.is_beyond(figure) {
        let arrow = match scale.is_beyond(figure) {
            true if figure > scale.most => " →",
            true => " ←",
            false => "",
        };
        let is_right = x > RIGHT - 90.0;
        let (x, anchor) = if is_right {
            (x - 9.0, "end")
        } else {
            (x + 9.0, "start")
        };
        let _ = writeln!(
            svg,
            "<text class=\"small\" x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}{arrow}</text>",
            y + 4.0,
            words(row, figure)
        );
    }
}

/// How many arrive of those that got their 200: no scale has nothing on it.
fn draw_losses(svg: &mut String, y: &mut f64, rows: &[&Row]) {
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(
        svg,
        "<text class=\"head\" x=\"20\" y=\"{y:.1}\">Lost of what got its 200</text>"
    );
    let mut at = *y + 26.0;
    for row in rows {
        let lost = |figures: &[f64]| Spread::of(figures).median;
        let class = if row.promise.is_some_and(|promise| lost(&row.ours) > promise) {
            "broken"
        } else {
            "kept"
        };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{at:.1}\" text-anchor=\"end\">{}</text>\
             <circle class=\"{class}\" cx=\"{LEFT:.1}\" cy=\"{:.1}\" r=\"5\"/><text x=\"{:.1}\" y=\"{at:.1}\">{:.0}</text>",
            LEFT - 14.0,
            row.what,
            at - 4.0,
            LEFT + 12.0,
            lost(&row.ours),
        );
        if !row.released.is_empty() {
            let _ = writeln!(
                svg,
                "<rect class=\"go\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/><text x=\"{:.1}\" y=\"{at:.1}\">{:.0}</text>",
                LEFT + 56.0,
                at - 8.0,
                LEFT + 72.0,
                lost(&row.released),
            );
        }
        at += LINE;
    }
    *y = at + 18.0;
}

/// A figure as it is written beside its mark.
fn words(row: &Row, figure: f64) -> String {
    match (row.judged, row.unit) {
        (Judged::Itself, Unit::Micros) if figure >= 9_950.0 => format!("{:.0} ms", figure / 1e3),
        (Judged::Itself, Unit::Micros) if figure >= 1e3 => format!("{:.1} ms", figure / 1e3),
        (Judged::Itself, Unit::Micros) => format!("{figure:.0} µs"),
        _ => format!("{figure:.2}"),
    }
}
