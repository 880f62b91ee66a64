//! SVG written by hand: a few shapes, each with a tooltip if it has something to say.

use std::fmt::Write as _;

/// Shapes in the order in which they are painted.
#[derive(Default)]
pub struct Svg(String);

/// Where a text stands to its point.
#[derive(Clone, Copy)]
pub enum Anchor {
    Start,
    Middle,
    End,
}

pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub width: f64,
    pub height: f64,
}

impl Svg {
    pub fn rect(&mut self, rect: &Rect, class: &str, radius: f64, tip: &str) {
        let Rect {
            x,
            y,
            width,
            height,
        } = rect;
        let round = if radius > 0.0 {
            format!(" rx=\"{radius:.1}\"")
        } else {
            String::new()
        };
        let _ = write!(
            self.0,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"{round}"
        );
        self.close("rect", tip);
    }

    pub fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], class: &str) {
        let _ = writeln!(
            self.0,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    pub fn path(&mut self, points: &[[f64; 2]], class: &str, tip: &str) {
        let points: Vec<String> = points
            .iter()
            .map(|[x, y]| format!("{x:.1} {y:.1}"))
            .collect();
        let _ = write!(
            self.0,
            "<path class=\"{class}\" d=\"M{}\"",
            points.join("L")
        );
        self.close("path", tip);
    }

    pub fn circle(&mut self, [x, y]: [f64; 2], radius: f64, class: &str) {
        let _ = writeln!(
            self.0,
            "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>"
        );
    }

    pub fn text(&mut self, [x, y]: [f64; 2], class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        let text = escaped(text);
        let _ = writeln!(
            self.0,
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\"{anchor}>{text}</text>"
        );
    }

    /// Puts a picture of its own at a point.
    pub fn moved(&mut self, inner: &Self, [x, y]: [f64; 2]) {
        let _ = writeln!(
            self.0,
            "<g transform=\"translate({x:.1} {y:.1})\">\n{}</g>",
            inner.0
        );
    }

    /// The whole element. `class` also tells its patterns from those of other pictures on the page.
    pub fn finished(&self, class: &str, width: f64, height: f64, label: &str) -> String {
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\n<defs>{}</defs>\n{}</svg>\n",
            escaped(label),
            self.patterns(class),
            self.0
        )
    }

    /// Stripes for what stands still and for what is away, where there is such a thing.
    fn patterns(&self, of: &str) -> String {
        let used = ["ice", "out"].into_iter();
        let used = used.filter(|name| self.0.contains(&format!("class=\"{name}\"")));
        used.map(|name| {
            format!(
                "<pattern id=\"{name}-{of}\" width=\"7\" height=\"7\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
                 <rect class=\"{name}-ground\" width=\"7\" height=\"7\"/><rect class=\"{name}-stripe\" width=\"1.6\" height=\"7\"/></pattern>"
            )
        })
        .collect()
    }

    fn close(&mut self, element: &str, tip: &str) {
        let _ = if tip.is_empty() {
            writeln!(self.0, "/>")
        } else {
            writeln!(self.0, "><title>{}</title></{element}>", escaped(tip))
        };
    }
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// How wide a text is about, in the size that labels have.
pub fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 6.3
}
