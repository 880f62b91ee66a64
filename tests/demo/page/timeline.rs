//! The sandbox's life as a timeline, lying for wide screens and standing for narrow ones.
//!
//! ```text
//!   lambda      ▏init  ▬ invocation      freeze            ▬▬      the events
//!   function    ▮▮ CPU, │ uploads        ░░░░░░  ▮▮▮               stopped in a freeze
//!   extension   ▟▙ profiles it holds ▟▀▀▀▀▀▀▀▀▀▀▙                  acknowledged, not yet answered
//!   server      ▬▬▬ one bar a request    ▬▬▬▬    ░░ away ░░        with time going on in a freeze
//! ```

use std::time::Duration;

use super::super::story::{Note, Span, Story, Who};
use super::super::units::short;
use super::svg::{Anchor, Rect, Svg, width_of};

/// The timeline and its height.
pub struct Picture {
    pub svg: Svg,
    pub height: f64,
}

/// How many profiles the extension holds from a moment on: acknowledged, and not yet answered by the server.
pub struct Step {
    pub at: f64,
    pub held: usize,
}

pub fn held(story: &Story) -> Vec<Step> {
    let mut changes: Vec<(f64, bool)> = Vec::new();
    let end = seconds(story.shutdown.until);
    for profile in &story.profiles {
        changes.push((seconds(profile.acknowledged), true));
        // What was never answered was held to the end.
        changes.push((profile.answered.map_or(end, seconds), false));
    }
    changes.sort_by(|(a, a_more), (b, b_more)| a.total_cmp(b).then(b_more.cmp(a_more)));
    let mut held = 0_usize;
    let step = |(at, more): (f64, bool)| {
        held = if more { held + 1 } else { held - 1 };
        Step { at, held }
    };
    changes.into_iter().map(step).collect()
}

/// The most that was held between two times of nothing held.
fn hills(story: &Story) -> Vec<Step> {
    let steps = held(story);
    let mut hills = Vec::new();
    for hill in steps.split_inclusive(|step| step.held == 0) {
        let most = hill.iter().map(|step| step.held).max().unwrap_or_default();
        // When that was reached.
        let first = hill.iter().find(|step| step.held == most && most > 0);
        hills.extend(first.map(|step| Step { ..*step }));
    }
    hills
}

/// For wide screens: time goes to the right.
pub fn lying(story: &Story, width: f64) -> Picture {
    let mut picture = Lying {
        svg: Svg::default(),
        width,
        total: seconds(story.shutdown.until) * 1.004,
        y: 0.0,
    };
    let of = |who| -> Vec<&Note> {
        let notes = story.notes.iter();
        let mut notes: Vec<&Note> = notes.filter(|note| note.who == who).collect();
        notes.sort_by_key(|note| note.at);
        notes
    };
    let rows = |who| picture.placed(&of(who)).1 as f64 * ROW;
    let rows_of_server = rows(Who::Server);
    let heights = [
        PAD + rows(Who::Lambda) + BAR + PAD,
        PAD + rows(Who::Function) + BAR + PAD,
        PAD + rows(Who::Extension) + HILL + PAD,
        PAD + rows_of_server + SERVER + PAD,
    ];
    // The panels: Lambda, the sandbox with its two processes, the server.
    let tops = [
        0.0,
        heights[0] + GAP,
        heights[0] + GAP + heights[1],
        heights[0] + heights[1] + heights[2] + 2.0 * GAP,
    ];
    let bottom = tops[3] + heights[3];
    for (top, height) in [
        (tops[0], heights[0]),
        (tops[1], heights[1] + heights[2]),
        (tops[3], heights[3]),
    ] {
        picture.panel(top, height);
    }
    picture.axis(bottom);
    for freeze in &story.freezes {
        let band = picture.across(freeze, tops[1], heights[1] + heights[2]);
        let middle = [band.x + band.width / 2.0, tops[1] + heights[1] - PAD - 2.0];
        let text = format!("frozen, {}", short(freeze.length()));
        picture
            .svg
            .rect(&band, "ice", 0.0, &format!("{text}: both are stopped"));
        picture.svg.text(middle, "ice-text", Anchor::Middle, &text);
    }
    for outage in &story.outages {
        let labels = PAD + rows_of_server;
        let band = picture.across(outage, tops[3] + labels, heights[3] - labels);
        let middle = [band.x + band.width / 2.0, bottom - SERVER / 2.0 - PAD];
        picture
            .svg
            .rect(&band, "out", 0.0, "the server refuses connections");
        picture.svg.text(
            middle,
            "out-text",
            Anchor::Middle,
            &format!("down, {}", short(outage.length())),
        );
    }
    for (place, who) in Who::ALL.into_iter().enumerate() {
        picture.name(who, tops[place]);
        picture.y = tops[place];
        picture.labels(&of(who));
        match who {
            Who::Lambda => picture.lambda(story),
            Who::Function => picture.function(story),
            Who::Extension => picture.extension(story),
            Who::Server => picture.server(story),
        }
    }
    Picture {
        svg: picture.svg,
        height: bottom + AXIS,
    }
}

const LEFT: f64 = 118.0;
const RIGHT: f64 = 14.0;
const PAD: f64 = 11.0;
const GAP: f64 = 8.0;
const ROW: f64 = 17.0;
const BAR: f64 = 13.0;
const HILL: f64 = 58.0;
const SERVER: f64 = 132.0;
const AXIS: f64 = 24.0;

struct Lying {
    svg: Svg,
    width: f64,
    total: f64,
    /// Where what is drawn next begins.
    y: f64,
}

/// A label, at its place.
struct Placed {
    x: f64,
    row: usize,
    anchor: Anchor,
}

impl Lying {
    fn x(&self, at: Duration) -> f64 {
        self.x_of(seconds(at))
    }

    fn x_of(&self, at: f64) -> f64 {
        LEFT + at / self.total * (self.width - LEFT - RIGHT)
    }

    fn panel(&mut self, y: f64, height: f64) {
        let panel = Rect {
            x: 0.0,
            y,
            width: self.width,
            height,
        };
        self.svg.rect(&panel, "panel", 8.0, "");
    }

    fn axis(&mut self, bottom: f64) {
        let mut second = 0.0;
        while second <= self.total {
            let x = self.x_of(second);
            self.svg.line([x, 0.0], [x, bottom], "grid");
            let text = format!("{second:.0} s");
            self.svg
                .text([x, bottom + 17.0], "tick", Anchor::Middle, &text);
            second += 1.0;
        }
    }

    /// A span over the whole height of a panel.
    fn across(&self, span: &Span, y: f64, height: f64) -> Rect {
        let x = self.x(span.from);
        Rect {
            x,
            y,
            width: self.x(span.until) - x,
            height,
        }
    }

    fn name(&mut self, who: Who, top: f64) {
        let class = who.name();
        self.svg.circle([18.0, top + PAD + 8.0], 5.0, class);
        self.svg.text(
            [30.0, top + PAD + 12.5],
            "lane",
            Anchor::Start,
            title_of(who),
        );
        self.svg.text(
            [30.0, top + PAD + 28.0],
            "sub",
            Anchor::Start,
            meaning_of(who),
        );
    }

    /// Where labels go, and how many rows that takes: the later ones lie lower, so that the line from a label down to
    /// its moment crosses no other.
    fn placed(&self, notes: &[&Note]) -> (Vec<Placed>, usize) {
        let mut placed: Vec<Placed> = Vec::new();
        let mut taken: Vec<(usize, f64, f64)> = Vec::new();
        for note in notes.iter().rev() {
            let length = width_of(&note.text);
            let begin = self.x(note.at) + 1.0;
            let limit = self.width - RIGHT;
            // What would pass the right edge ends there.
            let (from, x, anchor) = if begin + length > limit {
                (limit - length, limit, Anchor::End)
            } else {
                (begin, begin, Anchor::Start)
            };
            let is_free = |row: usize| {
                taken.iter().all(|&(other, from, until)| {
                    other != row || x + length + 8.0 < from || until < x
                })
            };
            let row = (0..).find(|&row| is_free(row)).unwrap_or_default();
            taken.push((row, from, from + length));
            placed.push(Placed { x, row, anchor });
        }
        placed.reverse();
        let rows = placed.iter().map(|label| label.row + 1).max();
        (placed, rows.unwrap_or_default())
    }

    fn labels(&mut self, notes: &[&Note]) {
        let (placed, rows) = self.placed(notes);
        let bottom = self.y + PAD + rows as f64 * ROW;
        for (note, label) in notes.iter().zip(&placed) {
            let base = bottom - label.row as f64 * ROW - 5.0;
            if label.row > 0 {
                let x = self.x(note.at) + 0.5;
                self.svg.line([x, base + 3.0], [x, bottom], "leader");
            }
            self.svg
                .text([label.x, base], "label", label.anchor, &note.text);
        }
        self.y = bottom;
    }

    fn bar(&mut self, span: &Span, class: &str, tip: &str) {
        let x = self.x(span.from);
        let bar = Rect {
            x,
            y: self.y,
            width: (self.x(span.until) - x).max(2.0),
            height: BAR,
        };
        self.svg.rect(&bar, class, 2.0, tip);
    }

    fn lambda(&mut self, story: &Story) {
        let middle = self.y + BAR / 2.0;
        for freeze in &story.freezes {
            let [from, until] = [freeze.from, freeze.until].map(|at| self.x(at));
            self.svg.line([from, middle], [until, middle], "asleep");
            for x in [from, until] {
                self.svg.line([x, self.y], [x, self.y + BAR], "lambda-line");
            }
        }
        for (text, span) in lambda_spans(story) {
            let tip = format!("{text}, {}", short(span.length()));
            self.bar(&span, "lambda", &tip);
        }
    }

    fn function(&mut self, story: &Story) {
        for burned in &story.burned {
            self.bar(&burned.span, "function", &burned.text);
        }
        // Each upload, on its way to the lane below.
        let bottom = self.y + BAR;
        for profile in &story.profiles {
            let arrow = Rect {
                x: self.x(profile.sent) - 0.5,
                y: self.y,
                width: 1.0,
                height: bottom + PAD - self.y,
            };
            self.svg.rect(&arrow, "upload", 0.0, &profile.text);
        }
    }

    fn extension(&mut self, story: &Story) {
        let base = self.y + HILL;
        let steps = held(story);
        let most = steps.iter().map(|step| step.held).max().unwrap_or(1);
        let height = |held: usize| HILL * (held as f64 / most as f64).sqrt();
        let mut points = vec![[self.x_of(0.0), base]];
        let mut before = 0;
        for step in &steps {
            let x = self.x_of(step.at);
            points.push([x, base - height(before)]);
            points.push([x, base - height(step.held)]);
            before = step.held;
        }
        self.svg.path(
            &points,
            "extension hill",
            &format!("profiles that the extension holds, {most} at most"),
        );
        let life = [self.x_of(0.0), self.x(story.shutdown.until)];
        self.svg
            .line([life[0], base], [life[1], base], "extension-line");
        for hill in hills(story) {
            let (x, top) = (self.x_of(hill.at), base - height(hill.held));
            let text = format!("holds {}", hill.held);
            // Above its hill; beside it where the lane's other labels are.
            if height(hill.held) < HILL - ROW {
                self.svg
                    .text([x + 2.0, top - 6.0], "label", Anchor::Start, &text);
            } else {
                self.svg
                    .text([x - 7.0, top + 11.0], "label", Anchor::End, &text);
            }
        }
    }

    fn server(&mut self, story: &Story) {
        for (request, place) in story.requests.iter().zip(rows_of(story)) {
            let thick = (SERVER / place.rows as f64).min(13.0);
            let x = self.x(request.span.from);
            let bar = Rect {
                x,
                y: self.y + place.row as f64 * thick,
                width: (self.x(request.span.until) - x).max(2.0),
                height: thick * if thick > 5.0 { 0.78 } else { 0.7 },
            };
            let class = if request.answered { "server" } else { "cut" };
            let tip = format!("{}, {}", request.text, short(request.span.length()));
            self.svg
                .rect(&bar, class, if thick > 5.0 { 2.0 } else { 0.0 }, &tip);
        }
    }
}

/// In which of how many rows a bar lies, so that no two overlap.
#[derive(Clone, Copy, Default)]
struct Place {
    row: usize,
    rows: usize,
}

/// Bars that overlap, directly or through others, share the height of the lane.
fn rows_of(story: &Story) -> Vec<Place> {
    let mut order: Vec<usize> = (0..story.requests.len()).collect();
    order.sort_by_key(|&index| story.requests[index].span.from);
    let mut places = vec![Place::default(); order.len()];
    let mut cluster: Vec<usize> = Vec::new();
    let mut ends: Vec<Duration> = Vec::new();
    let close = |cluster: &mut Vec<usize>, places: &mut Vec<Place>, rows: usize| {
        for index in cluster.drain(..) {
            places[index].rows = rows;
        }
    };
    for index in order {
        let span = story.requests[index].span;
        if ends.iter().all(|end| *end <= span.from) {
            close(&mut cluster, &mut places, ends.len());
            ends.clear();
        }
        let free = ends.iter().position(|end| *end <= span.from);
        let row = free.unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(span.until);
        } else {
            ends[row] = span.until;
        }
        places[index].row = row;
        cluster.push(index);
    }
    close(&mut cluster, &mut places, ends.len());
    places
}

fn lambda_spans(story: &Story) -> Vec<(String, Span)> {
    let mut spans = vec![("init".to_owned(), story.init)];
    for (place, &span) in story.invocations.iter().enumerate() {
        spans.push((format!("invocation {}", place + 1), span));
    }
    spans.push(("shutdown".to_owned(), story.shutdown));
    spans
}

/// For narrow screens: time goes down, and what is said stands beside it.
pub fn standing(story: &Story, width: f64) -> Picture {
    let total = seconds(story.shutdown.until);
    let mut picture = Standing {
        svg: Svg::default(),
        width,
    };
    let end = TOP + total * SECOND;
    picture.ground(story, end);
    picture.bars(story);
    picture.words_of_bands(story);
    let hills = hills(story).into_iter().map(|hill| Note {
        at: Duration::from_secs_f64(hill.at),
        who: Who::Extension,
        text: format!("holds {}", hill.held),
    });
    let mut notes: Vec<Note> = hills.chain(story.notes.iter().cloned()).collect();
    notes.sort_by_key(|note| note.at);
    let last = picture.notes(&notes);
    Picture {
        svg: picture.svg,
        height: last.max(end) + 10.0,
    }
}

const TOP: f64 = 74.0;
const SECOND: f64 = 124.0;
/// Where each column begins, and how wide it is.
const COLUMNS: [(f64, f64); 4] = [(30.0, 12.0), (50.0, 14.0), (70.0, 46.0), (124.0, 70.0)];
const WORDS: f64 = 212.0;

struct Standing {
    svg: Svg,
    width: f64,
}

impl Standing {
    fn y(at: Duration) -> f64 {
        TOP + seconds(at) * SECOND
    }

    /// Panels, seconds, names of the columns, and the spans in which a panel stands still or is away.
    fn ground(&mut self, story: &Story, end: f64) {
        for (from, until) in [(0, 0), (1, 2), (3, 3)] {
            let x = COLUMNS[from].0 - 3.0;
            let panel = Rect {
                x,
                y: TOP - 6.0,
                width: COLUMNS[until].0 + COLUMNS[until].1 + 3.0 - x,
                height: end - TOP + 12.0,
            };
            self.svg.rect(&panel, "panel", 6.0, "");
        }
        let mut second = 0;
        while Self::y(Duration::from_secs(second)) <= end {
            let y = Self::y(Duration::from_secs(second));
            self.svg.line([26.0, y], [WORDS - 8.0, y], "grid");
            self.svg
                .text([20.0, y + 4.0], "tick", Anchor::End, &format!("{second} s"));
            second += 1;
        }
        for (place, who) in Who::ALL.into_iter().enumerate() {
            let (x, y) = (COLUMNS[place].0 + 6.0, 12.0 + place as f64 * 16.0);
            self.svg.line([x, y], [x, TOP - 8.0], "leader");
            self.svg.circle([x, y - 4.0], 4.5, who.name());
            let text = format!("{}: {}", title_of(who), meaning_of(who));
            self.svg.text([x + 9.0, y], "label", Anchor::Start, &text);
        }
        for (band, class, _) in Self::bands(story) {
            self.svg.rect(&band, class, 0.0, "");
        }
    }

    /// Where a panel stands still or is away, what that is drawn as, and in words.
    fn bands(story: &Story) -> Vec<(Rect, &'static str, [String; 2])> {
        let band = |span: &Span, from: usize, until: usize| Rect {
            x: COLUMNS[from].0 - 3.0,
            y: Self::y(span.from),
            width: COLUMNS[until].0 + COLUMNS[until].1 - COLUMNS[from].0 + 6.0,
            height: Self::y(span.until) - Self::y(span.from),
        };
        let words = |text: &str, span: &Span| [text.to_owned(), short(span.length())];
        let frozen = |span| (band(span, 1, 2), "ice", words("frozen", span));
        let down = |span| (band(span, 3, 3), "out", words("down", span));
        let freezes = story.freezes.iter().map(frozen);
        freezes.chain(story.outages.iter().map(down)).collect()
    }

    /// After the bars, of which one may run through the words.
    fn words_of_bands(&mut self, story: &Story) {
        for (band, class, words) in Self::bands(story) {
            let (x, middle) = (band.x + band.width / 2.0, band.y + band.height / 2.0);
            let class = format!("{class}-text");
            for (text, y) in words.iter().zip([middle - 3.0, middle + 13.0]) {
                self.svg.text([x, y], &class, Anchor::Middle, text);
            }
        }
    }

    fn bar(&mut self, span: &Span, (x, width): (f64, f64), class: &str, tip: &str) {
        let y = Self::y(span.from);
        let bar = Rect {
            x,
            y,
            width,
            height: (Self::y(span.until) - y).max(2.0),
        };
        self.svg.rect(&bar, class, 1.0, tip);
    }

    fn bars(&mut self, story: &Story) {
        for (text, span) in lambda_spans(story) {
            self.bar(&span, COLUMNS[0], "lambda", &text);
        }
        for burned in &story.burned {
            self.bar(&burned.span, COLUMNS[1], "function", &burned.text);
        }
        let steps = held(story);
        let most = steps.iter().map(|step| step.held).max().unwrap_or(1);
        let (left, width) = COLUMNS[2];
        let x = |held: usize| left + width * (held as f64 / most as f64).sqrt();
        let mut points = vec![[left, TOP]];
        let mut before = 0;
        for step in &steps {
            let y = TOP + step.at * SECOND;
            points.push([x(before), y]);
            points.push([x(step.held), y]);
            before = step.held;
        }
        self.svg.path(&points, "extension hill", "");
        let (left, width) = COLUMNS[3];
        for (request, place) in story.requests.iter().zip(rows_of(story)) {
            let thick = (width / place.rows as f64).min(12.0);
            let x = left + place.row as f64 * thick;
            let class = if request.answered { "server" } else { "cut" };
            self.bar(&request.span, (x, thick * 0.75), class, &request.text);
        }
    }

    /// Words beside the bars, each as near to its moment as those before it let it; where they end.
    fn notes(&mut self, notes: &[Note]) -> f64 {
        let mut free = TOP - 8.0;
        for note in notes {
            let lines = wrapped(&note.text, self.width - WORDS - 12.0);
            let y = (Self::y(note.at) + 4.0).max(free + 12.0);
            let knee = WORDS - 6.0;
            self.svg.path(
                &[[knee - 4.0, Self::y(note.at)], [knee + 4.0, y - 4.0]],
                "leader",
                "",
            );
            self.svg
                .circle([WORDS + 3.0, y - 4.0], 3.5, note.who.name());
            for (place, line) in lines.iter().enumerate() {
                let y = y + place as f64 * 15.0;
                self.svg
                    .text([WORDS + 12.0, y], "label", Anchor::Start, line);
            }
            free = y + (lines.len() - 1) as f64 * 15.0 + 4.0;
        }
        free
    }
}

/// Broken between words into lines that are not much wider than `width`.
fn wrapped(text: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && width_of(line) + width_of(word) > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

fn title_of(who: Who) -> &'static str {
    match who {
        Who::Lambda => "Lambda",
        Who::Function => "Function",
        Who::Extension => "Extension",
        Who::Server => "Server",
    }
}

fn meaning_of(who: Who) -> &'static str {
    match who {
        Who::Lambda => "events",
        Who::Function => "CPU, uploads",
        Who::Extension => "profiles held",
        Who::Server => "requests",
    }
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
