//! A flame graph: read from what the server answers, asked for a function, drawn as text.
//!
//! Drawn lying on its side: a line for each frame, callers above callees, and its place and width in the graph as a
//! bar.

use super::query::FlameGraph;

/// The frames, callers before their callees, from left to right.
pub struct Flames {
    frames: Vec<Frame>,
}

struct Frame {
    name: String,
    depth: usize,
    begin: i64,
    value: i64,
}

impl Flames {
    pub fn read(graph: &FlameGraph) -> Result<Self, String> {
        let mut frames = Vec::new();
        for (depth, level) in graph.levels.iter().enumerate() {
            let mut end = 0;
            for place in level.values.chunks(VALUES_PER_FRAME) {
                let &[behind, value, _, name] = place else {
                    return Err(format!("level {depth} of the flame graph is cut off"));
                };
                let name = usize::try_from(name)
                    .ok()
                    .and_then(|name| graph.names.get(name))
                    .ok_or(format!("the flame graph has no name {name}"))?;
                let begin = end + behind;
                end = begin + value;
                frames.push(Frame {
                    name: name.clone(),
                    depth,
                    begin,
                    value,
                });
            }
        }
        frames.sort_by_key(|frame| (frame.begin, frame.depth));
        Ok(Self { frames })
    }

    pub fn total(&self) -> i64 {
        self.frames.first().map_or(0, |frame| frame.value)
    }

    /// What the functions whose name contains `part` add up to, each sample once.
    pub fn value_of(&self, part: &str) -> i64 {
        let (mut sum, mut counted) = (0, 0);
        for frame in self.frames.iter().filter(|frame| frame.name.contains(part)) {
            // What begins before the end of one that is counted is called by it.
            if frame.begin >= counted {
                sum += frame.value;
                counted = frame.end();
            }
        }
        sum
    }

    /// The widest frames, each in a line, and besides the widest of a function with all that led to it.
    pub fn lines(&self, function: &str) -> Vec<String> {
        let total = self.total().max(1);
        let mut shown: Vec<&Frame> = self.frames.iter().collect();
        // Callers are no narrower than callees, so with a frame all those that led to it are there.
        shown.sort_by_key(|frame| (-frame.value, frame.depth));
        let asked = shown.iter().find(|frame| frame.name.contains(function));
        let led_to_it: Vec<&Frame> = asked.map_or_else(Vec::new, |asked| {
            let leads = |frame: &&Frame| frame.depth <= asked.depth && frame.holds(asked);
            self.frames.iter().filter(leads).collect()
        });
        shown.retain(|frame| frame.value * 100 >= total * PERCENT_MIN);
        shown.truncate(LINES_MAX);
        shown.extend(led_to_it);
        shown.sort_by_key(|frame| (frame.begin, frame.depth));
        shown.dedup_by_key(|frame| (frame.begin, frame.depth));
        shown.into_iter().map(|frame| frame.line(total)).collect()
    }
}

impl Frame {
    fn end(&self) -> i64 {
        self.begin + self.value
    }

    fn holds(&self, other: &Self) -> bool {
        self.begin <= other.begin && other.end() <= self.end()
    }

    fn line(&self, total: i64) -> String {
        let column = |place: i64| usize::try_from(place * WIDTH / total).unwrap_or_default();
        let (begin, columns) = (column(self.begin), column(total));
        let width = column(self.end()).saturating_sub(begin).max(1);
        let bar = format!("{:begin$}{}", "", "█".repeat(width));
        let percent = self.value as f64 * 100.0 / total as f64;
        let depth = self.depth;
        format!(
            "{percent:5.1} %  {bar:columns$}  {:depth$}{}",
            "", self.name
        )
    }
}

const VALUES_PER_FRAME: usize = 4;

/// Narrower ones tell nothing.
const PERCENT_MIN: i64 = 2;

const LINES_MAX: usize = 20;

/// Of the bars, in columns.
const WIDTH: i64 = 32;
