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
                counted = frame.begin + frame.value;
            }
        }
        sum
    }

    /// The widest frames, each in a line.
    pub fn lines(&self) -> Vec<String> {
        let total = self.total().max(1);
        let mut widest: Vec<&Frame> = self
            .frames
            .iter()
            .filter(|frame| frame.value * 100 >= total * PERCENT_MIN)
            .collect();
        // Callers are no narrower than callees, so with a frame all those that led to it are there.
        widest.sort_by_key(|frame| (-frame.value, frame.depth));
        widest.truncate(LINES_MAX);
        widest.sort_by_key(|frame| (frame.begin, frame.depth));
        let line = |frame: &Frame| {
            let column = |place: i64| usize::try_from(place * WIDTH / total).unwrap_or_default();
            let begin = column(frame.begin);
            let width = column(frame.begin + frame.value)
                .saturating_sub(begin)
                .max(1);
            let bar = format!("{:begin$}{}", "", "█".repeat(width));
            let percent = frame.value as f64 * 100.0 / total as f64;
            let columns = usize::try_from(WIDTH).unwrap_or_default();
            format!(
                "{percent:5.1} %  {bar:columns$}  {:depth$}{}",
                "",
                frame.name,
                depth = frame.depth
            )
        };
        widest.into_iter().map(line).collect()
    }
}

const VALUES_PER_FRAME: usize = 4;

/// Narrower ones tell nothing.
const PERCENT_MIN: i64 = 2;

const LINES_MAX: usize = 20;

/// Of the bars, in columns.
const WIDTH: i64 = 32;
