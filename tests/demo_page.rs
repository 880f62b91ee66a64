//! Does the demo's page say what happened, and nothing else? Of a made-up run, and of a real one.

#[allow(dead_code, reason = "the terminal uses the rest")]
#[path = "demo/page/mod.rs"]
mod page;
#[allow(dead_code, reason = "the terminal uses the rest")]
#[path = "demo/story.rs"]
mod story;
#[allow(dead_code, reason = "the terminal uses the rest")]
#[path = "demo/units.rs"]
mod units;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use story::{Account, Burned, Line, Note, Profile, Request, Span, Story, Who};

/// Seven profiles of which one was lost, two were left out by a setting and four arrived.
fn story() -> Story {
    let stack = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let profile = |number: u64| Profile {
        sent: ms(100 + number),
        acknowledged: ms(101 + number),
        answered: (number < 4).then(|| ms(700 + number)),
        text: "480 bytes as Go's SDK".to_owned(),
    };
    let request = |number: u64| Request {
        span: span(150 + number, 701 + number),
        answered: number < 4,
        text: format!("request {number}"),
    };
    Story {
        init: span(0, 1),
        invocations: vec![span(10, 108), span(1500, 1510)],
        freezes: vec![span(800, 1450)],
        outages: vec![span(1460, 1600)],
        shutdown: span(2000, 2500),
        burned: vec![Burned {
            span: span(12, 99),
            text: "burns 87 ms of CPU".to_owned(),
        }],
        profiles: (0..7).map(profile).collect(),
        requests: (0..5).map(request).collect(),
        notes: vec![Note {
            at: ms(800),
            who: Who::Lambda,
            text: "freeze".to_owned(),
        }],
        lines: vec![Line {
            at: Some((ms(10), Who::Lambda)),
            text: "INVOKE & more".to_owned(),
        }],
        stacks: BTreeMap::from([
            (stack(&["main"]), 5_000_000),
            (stack(&["main", "shop::price_cart"]), 30_000_000),
            (stack(&["main", "Vec<u8>::sort"]), 1_000),
        ]),
        account: Account {
            closing_line: "time=\"2000-01-02T03:04:05Z\" level=warning msg=\"Relay closed\" acknowledged=7 bytes=1920 lost=1 \
                           relayed=4 resent=1 sampled_out=2 svc=pyroscope-lambda-ext-main"
                .to_owned(),
            uploaded: 7,
            arrived: 4,
            twice: 0,
            bytes: 1920,
        },
        measured: vec![("memory".to_owned(), "572 KiB at rest".to_owned())],
        log: "level=info msg=\"Starting relay\" <script src=\"https://example.org\">".to_owned(),
        recorded_on: Some("2000-01-02".to_owned()),
    }
}

#[test]
fn the_account_is_that_of_the_closing_line_beside_the_servers_count() {
    let page = page::html(&story());
    let numbers: Vec<(&str, &str)> = page
        .split("<b>")
        .skip(1)
        .filter_map(|rest| rest.split_once("</b><span>"))
        .map(|(count, rest)| (count, before(rest, "</span>")))
        .collect();
    assert_eq!(
        numbers,
        [
            ("7", "acknowledged"),
            ("4", "relayed"),
            ("1", "lost"),
            ("2", "sampled out"),
            ("4", "arrived, byte for byte"),
            ("0", "answered twice"),
            ("1,920", "bytes of profiles"),
        ]
    );
    assert!(page.contains("3 of 7 profiles are missing, 0 came twice."));
    assert!(page.contains("1 of them were sent again"));
    assert!(page.contains("level=warning msg=&quot;Relay closed&quot; acknowledged=7"));
}

#[test]
fn an_account_is_good_when_both_sides_say_the_same() {
    let account = |closing_line: &str, arrived, twice| Account {
        closing_line: closing_line.to_owned(),
        uploaded: 2,
        arrived,
        twice,
        bytes: 0,
    };
    let line = "acknowledged=2 relayed=2 lost=0";
    assert!(account(line, 2, 0).is_good());
    assert!(!account(line, 1, 0).is_good());
    let twice = account(line, 2, 1);
    assert!(twice.is_good(), "the server keeps one");
    assert!(twice.verdict().contains("1 of them twice"));
    assert!(!account("acknowledged=2 relayed=1 lost=1", 2, 0).is_good());
    assert!(!account("acknowledged=2 relayed=1 lost=0", 2, 0).is_good());
    assert!(!account("acknowledged=3 relayed=3 lost=0", 2, 0).is_good());
}

#[test]
fn the_page_loads_nothing() {
    let story = story();
    let page = page::html(&story);
    let log = page.find("&lt;script src=&quot;https://example.org&quot;&gt;");
    assert!(log.is_some(), "the log is on the page as a text");
    // A text may name what a tag may not have.
    for tag in page.split('<').skip(1).map(|rest| before(rest, ">")) {
        for word in ["script", "link", "img", "iframe", "object", "embed"] {
            assert!(!tag.starts_with(word), "<{tag}>");
        }
        for word in [" src=", " href=", " srcset=", "xlink:"] {
            assert!(!tag.contains(word), "<{tag}>");
        }
    }
    assert!(!page.contains("@import") && !page.contains("@font-face"));
    for target in page.split("url(").skip(1) {
        assert!(target.starts_with('#'), "url({}", before(target, ")"));
    }
    let picture = page::picture(&story, page::Theme::Light);
    for (name, text) in [("page", &page), ("picture", &picture)] {
        let addresses = text.matches("://").count();
        // The log's, or the name of SVG.
        assert_eq!(addresses, 1, "addresses in the {name}");
    }
}

#[test]
fn every_function_is_in_the_flame_graph_with_its_share() {
    let page = page::html(&story());
    for title in [
        "all 4 profiles: 35.0 ms of CPU, 100.0 %",
        "main: 35.0 ms of CPU, 100.0 %",
        "shop::price_cart: 30.0 ms of CPU, 85.7 %",
        "Vec&lt;u8&gt;::sort: 1 µs of CPU, 0.0 %",
    ] {
        // Once for wide screens, once for narrow ones.
        let found = page.matches(&format!("<title>{title}</title>")).count();
        assert_eq!(found, 2, "{title}");
    }
}

#[test]
fn nothing_is_drawn_that_did_not_happen() {
    let mut story = story();
    let count = |story: &Story, text: &str| page::html(story).matches(text).count();
    let stripes = |name: &str| format!("class=\"{name}\"");
    assert_eq!(count(&story, &stripes("ice")), 2);
    assert_eq!(count(&story, &stripes("out")), 2);
    assert_eq!(count(&story, ">frozen, 650.0 ms<"), 1);
    assert_eq!(count(&story, ">down, 140.0 ms<"), 1);
    // Four bars and one that was cut off, on both pictures.
    assert_eq!(count(&story, "<title>request "), 10);
    assert_eq!(count(&story, "class=\"cut\""), 2);
    assert_eq!(count(&story, ">holds 7<"), 2);
    assert_eq!(count(&story, "<title>burns 87 ms of CPU</title>"), 2);
    story.freezes.clear();
    story.outages.clear();
    story.requests.clear();
    story.profiles.clear();
    for absent in [
        stripes("ice"),
        stripes("out"),
        stripes("cut"),
        ">frozen".to_owned(),
        ">down".to_owned(),
        ">holds".to_owned(),
        "<title>request ".to_owned(),
    ] {
        assert_eq!(count(&story, &absent), 0, "{absent}");
    }
}

#[test]
fn figures_beside_grafanas_are_the_recorded_ones_and_say_so() {
    let mut story = story();
    let page = page::html(&story);
    assert!(page.contains("Recorded on 2000-01-02, not in this run"));
    let latency = fs::read_to_string("size-report/latency.tsv").expect("the recorded figures");
    let cells = |row: &str| -> Vec<String> {
        let line = latency.lines().find(|line| line.starts_with(row));
        let line = line.unwrap_or_else(|| panic!("no row {row}"));
        line.split('\t').map(str::to_owned).collect()
    };
    let [ours, grafanas] =
        [3, 8].map(|column| cells("idle RSS")[column].parse::<f64>().expect("KiB"));
    for kib in [ours, grafanas] {
        let text = units::size((kib * 1024.0) as u64);
        assert!(page.contains(&format!("<b>{text}</b>")), "{text}");
    }
    let lost = &cells("of 60 waiting at SHUTDOWN")[8];
    let lost = lost.strip_suffix(".000").expect("whole profiles");
    assert!(
        page.contains(&format!("<b>{lost}</b>")),
        "what Grafana's loses at shutdown"
    );
    story.recorded_on = None;
    let page = page::html(&story);
    assert!(
        page.contains("Recorded earlier, not in this run"),
        "without git's history"
    );
}

/// What a real run prints and what its page says are the same. Whether all arrived is for `make demo` to judge: here
/// other tests take the CPU.
#[test]
fn the_page_of_a_real_run_says_what_the_terminal_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("demo.html");
    let run = Command::new(demo())
        .arg(env!("CARGO_BIN_EXE_pyroscope-lambda-extension"))
        .arg("--page")
        .arg(&file)
        .arg("--pictures")
        .arg(folder.path())
        .output()
        .expect("the demo runs");
    let shown = String::from_utf8(run.stdout).expect("UTF-8");
    let page = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{error}; {shown}"));
    assert!(shown.contains(&file.display().to_string()), "{shown}");
    assert!(shown.contains("README.md, Quick start"), "{shown}");

    let verdict = shown
        .lines()
        .find(|line| line.contains(" 69 profiles "))
        .unwrap_or_else(|| panic!("no verdict in {shown}"));
    let good = verdict.starts_with("All 69 profiles arrived, ");
    assert_eq!(run.status.success(), good, "{shown}");
    assert!(page.contains(verdict), "{verdict}");
    let acknowledged = fact(&shown, "acknowledged");
    let (total, parts) = acknowledged.split_once(" = ").expect("a sum");
    let mut sums = vec![(total, "acknowledged")];
    sums.extend(
        before(parts, ",")
            .split(" + ")
            .filter_map(|part| part.split_once(' ')),
    );
    for (count, name) in sums {
        let number = format!("<b>{count}</b><span>{name}</span>");
        assert!(page.contains(&number), "{number}");
    }
    for name in [
        "connections",
        "exec → register",
        "SHUTDOWN → exit",
        "memory",
        "binary",
    ] {
        let row = format!("<dt>{name}</dt><dd>{}</dd>", fact(&shown, name));
        assert!(page.contains(&row), "{row}");
    }
    let functions = rows(&shown);
    assert_eq!(functions.len(), 9, "{shown}");
    for function in functions {
        assert!(page.contains(&format!("<title>{function}: ")), "{function}");
    }
    let timeline: Vec<&str> = shown.lines().filter_map(moment).collect();
    assert!(timeline.len() > 20, "{shown}");
    for text in timeline {
        assert!(
            page.contains(&format!("<span>{text}</span></li>")),
            "{text}"
        );
    }
    for theme in page::Theme::ALL {
        let file = folder.path().join(format!("demo-{}.svg", theme.name()));
        let bytes = fs::metadata(&file).expect("a picture").len();
        assert!(bytes < 150_000, "{bytes} bytes");
    }
}

/// The demo, which `cargo test` builds with all examples.
fn demo() -> PathBuf {
    let built = Path::new(env!("CARGO_BIN_EXE_pyroscope-lambda-extension")).parent();
    let demo = built.expect("a folder").join("examples/demo");
    assert!(demo.exists(), "not built: cargo build --example demo");
    demo
}

/// What the terminal said under this name.
fn fact<'s>(shown: &'s str, name: &str) -> &'s str {
    let mut lines = shown.lines();
    let text = lines.find_map(|line| line.strip_prefix("  ")?.strip_prefix(name));
    text.unwrap_or_else(|| panic!("no {name} in: {shown}"))
        .trim()
}

/// The functions in the table of what arrived.
fn rows(shown: &str) -> Vec<&str> {
    let table = shown
        .lines()
        .filter(|line| line.contains("cpu:nanoseconds"));
    table
        .filter_map(|line| {
            line.split_whitespace()
                .find(|word| word.starts_with("shop::"))
        })
        .collect()
}

/// What happened, in a line of the timeline.
fn moment(line: &str) -> Option<&str> {
    let (time, rest) = line.split_once(" ms  ")?;
    time.trim().parse::<f64>().ok()?;
    let text = rest.split_once(' ').map(|(_, text)| text.trim())?;
    // These have signs that a page spells otherwise.
    (!text.contains(['&', '<', '>', '"'])).then_some(text)
}

fn before<'t>(text: &'t str, end: &str) -> &'t str {
    text.split_once(end).map_or(text, |(before, _)| before)
}

fn span(from: u64, until: u64) -> Span {
    Span {
        from: ms(from),
        until: ms(until),
    }
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}
