//! The page that a run of the demo leaves: one HTML file that loads nothing, in light and dark.
//!
//! Everything on it is from the run, but for the figures beside Grafana's extension, which say so.

mod flame;
mod recorded;
mod svg;
mod timeline;

use std::fmt::Write as _;
use std::time::Duration;

use super::story::{Account, Span, Story};
use super::units::{grouped, short};
use svg::{Anchor, Rect, Svg, escaped};
use timeline::Picture;

/// What the reader can do now, for the terminal.
pub const NEXT: &str =
    "README.md, Quick start: make layer, then make publish REGIONS=\"eu-west-1\"";

const STYLE: &str = include_str!("style.css");

/// Widths of the pictures: on wide screens, on narrow ones, and in README.
const WIDE: f64 = 1120.0;
const NARROW: f64 = 360.0;
const IN_README: f64 = 960.0;
const MARGIN: f64 = 20.0;

/// The page's title, and that of the picture.
const TITLE: &str = "A Lambda sandbox, from init to shutdown";

/// The whole page.
pub fn html(story: &Story) -> String {
    let sections = [
        head(story),
        life(story),
        arrived(story),
        account(story),
        compared(story),
        next(),
        everything(story),
    ];
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{TITLE}</title>\n<style>\n:root {{\n{LIGHT}}}\n@media (prefers-color-scheme: dark) {{ :root {{\n{DARK}}} }}\n{STYLE}</style>\n</head>\n\
         <body>\n<main>\n{}</main>\n</body>\n</html>\n",
        sections.concat()
    )
}

fn head(story: &Story) -> String {
    format!(
        "<header>\n<p class=\"eyebrow\">pyroscope-lambda-extension <span>make demo</span></p>\n<h1>{TITLE}</h1>\n\
         <p class=\"lead\">{}</p>\n</header>\n",
        escaped(&sentence(story))
    )
}

/// What is seen, in one sentence.
fn sentence(story: &Story) -> String {
    // Number and unit stay on one line.
    let total = |spans: &[Span]| {
        let length: Duration = spans.iter().map(Span::length).sum();
        short(length).replace(' ', "\u{a0}")
    };
    let waiting = story
        .profiles
        .iter()
        .filter(|profile| profile.acknowledged <= story.shutdown.from)
        .filter(|profile| profile.answered.is_none_or(|at| at > story.shutdown.from))
        .count();
    let account = &story.account;
    let outcome = if account.is_good() {
        "all of them arrived".to_owned()
    } else {
        format!("{} of them arrived", account.arrived)
    };
    format!(
        "One run on this machine: the function uploads {} profiles, the sandbox is frozen for {}, the server is down for {}, \
         {waiting} profiles still wait at shutdown, and {outcome}.",
        account.uploaded,
        total(&story.freezes),
        total(&story.outages)
    )
}

fn section(title: &str, sub: &str, content: &str) -> String {
    format!("<section>\n<h2>{title}</h2>\n<p class=\"sub\">{sub}</p>\n{content}</section>\n")
}

fn life(story: &Story) -> String {
    let label =
        "the timeline of the run: what Lambda, the function, the extension and the server did";
    let wide = timeline::lying(story, WIDE);
    let narrow = timeline::standing(story, NARROW);
    let pictures = format!(
        "<figure>{}{}</figure>\n",
        wide.svg.finished("wide", WIDE, wide.height, label),
        narrow.svg.finished("narrow", NARROW, narrow.height, label)
    );
    section(
        "The sandbox's life",
        "Each bar is something that happened in this run, at its measured time. The extension holds a profile from its own 200 to the \
         server's answer, which takes half a second; the height is the square root of how many it holds.",
        &pictures,
    )
}

fn arrived(story: &Story) -> String {
    let label = "the flame graph of the profiles that arrived";
    let graph = |id: &str, width: f64| {
        let graph = flame::graph(&story.stacks, &root(story), width);
        graph.svg.finished(id, width, graph.height, label)
    };
    let pictures = format!(
        "<figure>{}{}</figure>\n",
        graph("wide", WIDE),
        graph("narrow", NARROW)
    );
    let sub = format!(
        "The flame graph of the {} profiles that the stand-in for Pyroscope received, decoded from their bodies as they arrived. \
         Wider is more CPU; callees stand below their caller.",
        story.account.arrived
    );
    section("What arrived", &sub, &pictures)
}

fn root(story: &Story) -> String {
    format!("all {} profiles", story.account.arrived)
}

fn account(story: &Story) -> String {
    let account = &story.account;
    let acknowledged = account.count("acknowledged").unwrap_or_default();
    let mut sum = number("acknowledged", &grouped(acknowledged), "");
    for (place, (name, count)) in account.parts().into_iter().enumerate() {
        let sign = if place == 0 { "=" } else { "+" };
        let _ = write!(sum, "<span class=\"sign\">{sign}</span>");
        let class = if name == "lost" && count > 0 {
            "bad"
        } else {
            ""
        };
        sum += &number(name, &grouped(count), class);
    }
    let server = [
        number(
            "arrived, byte for byte",
            &grouped(account.arrived as u64),
            "",
        ),
        number("answered twice", &grouped(account.twice as u64), ""),
        number("bytes of profiles", &grouped(account.bytes), ""),
    ];
    let content = format!(
        "<div class=\"accounts\">\n<div class=\"card extension-card\"><h3>The extension says</h3><div class=\"sum\">{sum}</div></div>\n\
         <div class=\"card server-card\"><h3>The server counted</h3><div class=\"sum\">{}</div></div>\n</div>\n\
         <p class=\"verdict {}\">{}</p>\n{}<pre>{}</pre>\n{}",
        server.concat(),
        if account.is_good() { "good" } else { "bad" },
        escaped(&account.verdict()),
        resent(account),
        escaped(&without_time(account)),
        measured(story)
    );
    section(
        "The account",
        "Every profile that got a 200 is relayed, lost for a named reason, or left out by a setting. The extension's last log line says how many of each.",
        &content,
    )
}

/// Why the server saw more requests than profiles.
fn resent(account: &Account) -> String {
    let count = account.count("resent").unwrap_or_default();
    if count == 0 {
        return String::new();
    }
    format!(
        "<p class=\"why\">{count} of them were sent again, because their connection ended before the answer.</p>\n"
    )
}

fn number(name: &str, count: &str, class: &str) -> String {
    format!("<span class=\"number {class}\"><b>{count}</b><span>{name}</span></span>")
}

/// The closing line as it stands in the log, less the time at its beginning.
fn without_time(account: &Account) -> String {
    let line = &account.closing_line;
    match line.find("level=") {
        Some(begin) => line[begin..].to_owned(),
        None => line.clone(),
    }
}

fn measured(story: &Story) -> String {
    let rows: String = story
        .measured
        .iter()
        .map(|(name, text)| format!("<dt>{}</dt><dd>{}</dd>\n", escaped(name), escaped(text)))
        .collect();
    format!("<dl>\n{rows}</dl>\n")
}

fn compared(story: &Story) -> String {
    let mut rows = String::new();
    for figure in recorded::figures() {
        let bar = |part: f64, class: &str| {
            format!(
                "<span class=\"track\"><span class=\"{class}\" style=\"width:{:.2}%\"></span></span>",
                100.0 * part
            )
        };
        let [ours, grafana] = match figure.part {
            Some(part) if part > 1.0 => [1.0, 1.0 / part],
            Some(part) => [part, 1.0],
            None => [0.0, 0.0],
        };
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td><b>{}</b>{}</td><td><b>{}</b>{}</td></tr>",
            escaped(figure.name),
            escaped(&figure.ours),
            bar(ours, "ours"),
            escaped(&figure.grafana),
            bar(grafana, "grafana")
        );
    }
    let content = format!(
        "<table>\n<thead><tr><th></th><th scope=\"col\">this extension</th><th scope=\"col\">Grafana's 1.7.1</th></tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table>\n"
    );
    // Without git's history nobody knows.
    let on = story.recorded_on.as_deref();
    let on = on.map_or_else(|| "earlier".to_owned(), |on| format!("on {on}"));
    let sub = format!(
        "<strong class=\"recorded\">Recorded {on}, not in this run</strong>, for both extensions in the same runs on one machine: \
         size-report/latency.tsv by <code>make bench</code>, size-report/init.tsv by <code>make init</code>."
    );
    section("Beside Grafana's extension", &sub, &content)
}

fn next() -> String {
    section(
        "Next: put it into a function",
        "The demo needed no account. These commands build the layer, say what would be published, and publish it to your account; README.md, Quick start, \
         has the rest: attach it, and start the SDK.",
        "<pre class=\"commands\">make layer\nmake publish REGIONS=\"eu-west-1\"\nmake publish REGIONS=\"eu-west-1\" PUBLISH=1</pre>\n",
    )
}

/// What the terminal showed, and the log: closed until somebody wants to know.
fn everything(story: &Story) -> String {
    let mut lines = String::new();
    for line in &story.lines {
        let text = escaped(&line.text);
        let _ = match line.at {
            None => writeln!(lines, "<li class=\"chapter\">{text}</li>"),
            Some((at, who)) => writeln!(
                lines,
                "<li><span class=\"at\">{:.1} ms</span> <span class=\"who {1}-text\">{1}</span> <span>{text}</span></li>",
                at.as_secs_f64() * 1e3,
                who.name()
            ),
        };
    }
    format!(
        "<section class=\"all\">\n<details><summary>The run, line by line</summary>\n<ol>\n{lines}</ol></details>\n\
         <details><summary>The extension's log, all of it</summary>\n<pre>{}</pre></details>\n</section>\n",
        escaped(&story.log)
    )
}

/// Light or dark: a picture in README is chosen by the reader's theme.
#[derive(Clone, Copy)]
pub enum Theme {
    Light,
    Dark,
}

impl Theme {
    pub const ALL: [Self; 2] = [Self::Light, Self::Dark];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    const fn colours(self) -> &'static str {
        match self {
            Self::Light => LIGHT,
            Self::Dark => DARK,
        }
    }
}

/// The timeline above the flame graph, as an SVG file for README.
pub fn picture(story: &Story, theme: Theme) -> String {
    let life = timeline::lying(story, IN_README);
    let graph = flame::graph(&story.stacks, &root(story), IN_README);
    let mut all = Svg::default();
    let mut down = 0.0;
    let account = &story.account;
    let parts: Vec<String> = account
        .parts()
        .iter()
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    let heading = format!(
        "{} acknowledged = {}; at the server: {} arrived, {} answered twice",
        account.count("acknowledged").unwrap_or_default(),
        parts.join(" + "),
        account.arrived,
        account.twice
    );
    for (title, Picture { svg, height }) in [(TITLE, life), (heading.as_str(), graph)] {
        all.text([0.0, down + 14.0], "title", Anchor::Start, title);
        all.moved(&svg, [0.0, down + 30.0]);
        down += 30.0 + height + 26.0;
    }
    let (width, height) = (IN_README + 2.0 * MARGIN, down - 26.0 + 2.0 * MARGIN);
    let mut framed = Svg::default();
    let ground = Rect {
        x: 0.0,
        y: 0.0,
        width,
        height,
    };
    framed.rect(&ground, "ground", 10.0, "");
    framed.moved(&all, [MARGIN, MARGIN]);
    let element = framed.finished("picture", width, height, &sentence(story));
    let opening = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\""
    );
    let style = format!("<style>svg {{\n{}}}\n{STYLE}</style>\n", theme.colours());
    let element = element.replacen("<svg", &opening, 1);
    element.replacen("<defs>", &format!("{style}<defs>"), 1)
}

/// The colours, one accent for each actor.
const LIGHT: &str = include_str!("light.css");
const DARK: &str = include_str!("dark.css");
