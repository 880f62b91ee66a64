//! What happened in one run, as the page shows it. Times count from the start of the extension.

use std::collections::BTreeMap;
use std::time::Duration;

/// Who does something on the timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Lambda,
    Function,
    Extension,
    Server,
}

impl Who {
    pub const ALL: [Self; 4] = [Self::Lambda, Self::Function, Self::Extension, Self::Server];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Lambda => "lambda",
            Self::Function => "function",
            Self::Extension => "extension",
            Self::Server => "server",
        }
    }
}

/// The whole run.
#[derive(Default)]
pub struct Story {
    /// From exec to the first question for an event.
    pub init: Span,
    /// From each INVOKE until function and extension are done with it.
    pub invocations: Vec<Span>,
    pub freezes: Vec<Span>,
    /// When the server refused connections.
    pub outages: Vec<Span>,
    /// From SHUTDOWN to the extension's exit, which ends the story.
    pub shutdown: Span,
    /// When the function burned CPU.
    pub burned: Vec<Burned>,
    pub profiles: Vec<Profile>,
    pub requests: Vec<Request>,
    pub notes: Vec<Note>,
    pub lines: Vec<Line>,
    /// CPU in nanoseconds by call stack, outermost function first, of every profile that arrived.
    pub stacks: BTreeMap<Vec<String>, i64>,
    pub account: Account,
    /// Figures of this run: a name and what was measured.
    pub measured: Vec<(String, String)>,
    pub log: String,
    /// When the figures beside Grafana's extension were recorded, where that is known.
    pub recorded_on: Option<String>,
}

#[derive(Clone, Copy, Default)]
pub struct Span {
    pub from: Duration,
    pub until: Duration,
}

impl Span {
    pub fn length(&self) -> Duration {
        self.until.saturating_sub(self.from)
    }
}

pub struct Burned {
    pub span: Span,
    pub text: String,
}

/// A profile that the extension has acknowledged.
pub struct Profile {
    pub sent: Duration,
    pub acknowledged: Duration,
    /// When the server had answered it.
    pub answered: Option<Duration>,
    pub text: String,
}

/// A request as the server saw it.
pub struct Request {
    /// From its head to the end of its answer, or of its connection.
    pub span: Span,
    pub answered: bool,
    pub text: String,
}

/// A few words on the timeline.
#[derive(Clone)]
pub struct Note {
    pub at: Duration,
    pub who: Who,
    pub text: String,
}

/// One line that the terminal showed; a chapter's title has no time.
pub struct Line {
    pub at: Option<(Duration, Who)>,
    pub text: String,
}

/// How the extension's account and the server's count compare.
#[derive(Default)]
pub struct Account {
    /// The extension's last log line, all of it.
    pub closing_line: String,
    /// Profiles that the function uploaded.
    pub uploaded: usize,
    /// Of these, how many arrived byte for byte.
    pub arrived: usize,
    /// Answered requests beyond one for each profile.
    pub twice: usize,
    pub bytes: u64,
}

impl Account {
    /// A number of the closing line.
    pub fn count(&self, field: &str) -> Option<u64> {
        self.fields()
            .find(|(name, _)| *name == field)
            .and_then(|(_, value)| value.parse().ok())
    }

    /// What the acknowledged are made of: the relayed, the lost, and those left out for a reason.
    pub fn parts(&self) -> Vec<(&'static str, u64)> {
        let parts = PARTS.iter().filter_map(|&(field, name)| {
            let count = self.count(field)?;
            // Relayed and lost are always named, also when there are none.
            (count > 0 || !field.ends_with("_out")).then_some((name, count))
        });
        parts.collect()
    }

    /// Every profile arrived, and the extension says the same. One may come twice: if a connection dies while an answer
    /// is on its way, nobody knows whether the server has taken it. The second has the same time, so the server keeps one.
    pub fn is_good(&self) -> bool {
        let sum: u64 = self.parts().iter().map(|(_, count)| count).sum();
        self.count("acknowledged") == Some(sum)
            && self.count("acknowledged") == Some(self.uploaded as u64)
            && self.count("lost") == Some(0)
            && self.arrived == self.uploaded
    }

    /// The run in one sentence.
    pub fn verdict(&self) -> String {
        let uploaded = self.uploaded;
        let (missing, twice) = (uploaded - self.arrived, self.twice);
        match (self.is_good(), twice) {
            (true, 0) => format!("All {uploaded} profiles arrived, each once."),
            (true, _) => format!(
                "All {uploaded} profiles arrived, {twice} of them twice with the same time: the server keeps one."
            ),
            (false, _) => {
                format!("{missing} of {uploaded} profiles are missing, {twice} came twice.")
            }
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let words = self.closing_line.split_whitespace();
        words
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name, value.trim_matches('"')))
    }
}

/// Of which counts of the closing line `acknowledged` is the sum, and what the page calls them.
const PARTS: [(&str, &str); 4] = [
    ("relayed", "relayed"),
    ("lost", "lost"),
    ("sampled_out", "sampled out"),
    ("empty_left_out", "empty, left out"),
];
