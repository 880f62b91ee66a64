//! The flame graph of all profiles that arrived: wide is much CPU, below stands the caller's callee.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::units::short;
use super::svg::{Anchor, Rect, Svg, width_of};
use super::timeline::Picture;

/// A function under its callers.
#[derive(Default)]
struct Node {
    nanos: i64,
    callees: BTreeMap<String, Node>,
}

/// The graph of `stacks`, under one bar that is called `root`.
pub fn graph(stacks: &BTreeMap<Vec<String>, i64>, root: &str, width: f64) -> Picture {
    let mut top = Node::default();
    for (stack, &nanos) in stacks {
        top.add(stack, nanos);
    }
    let mut graph = Graph {
        svg: Svg::default(),
        all: top.nanos,
        per_nano: width / top.nanos.max(1) as f64,
        rows: 0,
    };
    graph.draw(root, &top, 0.0, 0);
    Picture {
        svg: graph.svg,
        height: graph.rows as f64 * ROW,
    }
}

const ROW: f64 = 27.0;
const SHADES: usize = 6;

struct Graph {
    svg: Svg,
    all: i64,
    per_nano: f64,
    rows: usize,
}

impl Graph {
    fn draw(&mut self, name: &str, node: &Node, x: f64, depth: usize) {
        let width = node.nanos as f64 * self.per_nano;
        self.rows = self.rows.max(depth + 1);
        let bar = Rect {
            x: x + 0.5,
            y: depth as f64 * ROW,
            width: (width - 1.0).max(0.5),
            height: ROW - 2.0,
        };
        let nanos = Duration::from_nanos(node.nanos.unsigned_abs());
        let share = 100.0 * node.nanos as f64 / self.all.max(1) as f64;
        let tip = format!("{name}: {} of CPU, {share:.1} %", short(nanos));
        let class = if depth == 0 {
            "flame-root".to_owned()
        } else {
            // The same function has the same shade wherever it stands.
            let sum: usize = name.bytes().map(usize::from).sum();
            format!("flame-{}", sum % SHADES)
        };
        self.svg.rect(&bar, &class, 3.0, &tip);
        let room = width - 16.0;
        if let Some(text) = fitting(&format!("{name}  {}", short(nanos)), name, room) {
            let at = [x + 8.0, bar.y + 17.0];
            self.svg.text(at, "flame-text", Anchor::Start, &text);
        }
        let mut callees: Vec<(&String, &Node)> = node.callees.iter().collect();
        callees.sort_by_key(|(_, callee)| std::cmp::Reverse(callee.nanos));
        let mut x = x;
        for (name, callee) in callees {
            self.draw(name, callee, x, depth + 1);
            x += callee.nanos as f64 * self.per_nano;
        }
    }
}

/// The longest that has room: all of it, the name, the name's last part, its beginning, or nothing.
fn fitting(all: &str, name: &str, room: f64) -> Option<String> {
    let last = name.rsplit("::").next().unwrap_or(name);
    for text in [all, name, last] {
        if width_of(text) <= room {
            return Some(text.to_owned());
        }
    }
    let count = (room / width_of("x")) as usize;
    (count >= 4).then(|| last.chars().take(count - 1).chain(['…']).collect())
}

impl Node {
    fn add(&mut self, stack: &[String], nanos: i64) {
        self.nanos += nanos;
        if let [first, rest @ ..] = stack {
            let callee = self.callees.entry(first.clone()).or_default();
            callee.add(rest, nanos);
        }
    }
}
