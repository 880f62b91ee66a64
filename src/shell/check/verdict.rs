//! What is said of each step, and at last: whether profiles would arrive, and if not, what helps.

use crate::relay::phrases;

use super::line::{TIMED_OUT, WANTS_TLS};
use super::{Check, print};

/// The mark of a line, and the terminal code of its colour: red, green or none.
pub(super) type Mark = (&'static str, &'static str);

pub(super) const BAD: Mark = ("bad  ", "\x1b[31m");

pub(super) const OK: Mark = ("ok   ", "\x1b[32m");

pub(super) const NOTE: Mark = ("--   ", "");

/// A step that may fail, and its texts for that case.
pub(super) struct Step {
    /// In ten columns.
    pub(super) name: &'static str,
    /// What it waits for.
    pub(super) wait: &'static str,
    /// The text between the host and the cause.
    pub(super) joint: &'static str,
    /// What to check apart from the setting; the second text is for a timeout.
    pub(super) help: [&'static str; 2],
}

pub(super) const NAME: &Step = &Step {
    name: "name      ",
    wait: "the lookup",
    joint: " cannot be resolved: ",
    help: [", and the DNS of the function's network"; 2],
};

pub(super) const CONNECT: &Step = &Step {
    name: "connect   ",
    wait: "connecting",
    joint: " cannot be reached: ",
    help: [
        ": host and port",
        ", and in a VPC the routes, NAT gateway and security group",
    ],
};

pub(super) const PROXY: &Step = &Step {
    name: "proxy     ",
    wait: "its answer",
    joint: ": ",
    help: [""; 2],
};

pub(super) const TLS: &Step = &Step {
    name: "tls       ",
    wait: "the TLS handshake",
    ..ANSWER
};

pub(super) const ANSWER: Step = Step {
    name: "answer    ",
    wait: "the answer",
    joint: ": ",
    help: [
        ": http or https, host and port",
        ": http or https, host and port, and the server's load",
    ],
};

impl Check<'_> {
    /// Reports why that step failed for that host, whose name is from that setting.
    pub(super) fn fail_at(&mut self, step: &Step, host: &str, cause: &str, setting: &str) {
        let (late, mut cause) = (self.late(step.wait), cause);
        let [mut help, late_help] = step.help;
        if cause == TIMED_OUT {
            (cause, help) = (&late, late_help);
        }
        let [joint, setting, help] = if cause == WANTS_TLS {
            [": ", setting, " must begin with https"]
        } else if phrases::contains(cause.as_bytes(), b"certificate") {
            [""; 3] // The cause already says what helps.
        } else {
            [". Check ", setting, help]
        };
        let words = [host, step.joint, cause, joint, setting, help];
        self.fail(step.name, &words);
    }

    /// What it waited for, and for how long.
    pub(super) fn late(&self, wait: &str) -> String {
        let ms = self.timeout.as_millis() as u64;
        let (time, unit) = if ms.is_multiple_of(1000) {
            (ms / 1000, " s (PYROSCOPE_TIMEOUT)")
        } else {
            (ms, " ms (PYROSCOPE_TIMEOUT)")
        };
        [wait, " timed out after ", &time.to_string(), unit].concat()
    }

    pub(super) fn ok(&self, step: &str, words: &[&str]) {
        self.print_line(step, OK, words);
    }

    /// Reports a problem that does not keep profiles from arriving.
    pub(super) fn bad(&mut self, step: &str, words: &[&str]) {
        self.print_line(step, BAD, words);
        if self.flaw.is_empty() {
            self.flaw = words.concat();
        }
    }

    /// Reports why profiles do not arrive. What helps follows as a separate sentence, only in the verdict.
    pub(super) fn fail(&mut self, step: &str, words: &[&str]) {
        self.obstacle = words.concat();
        let fact = self.obstacle.split_once(". ");
        let fact = fact.map_or(&*self.obstacle, |(fact, _)| fact);
        self.print_line(step, BAD, &[fact]);
    }

    /// Prints the verdict, and returns the exit status.
    pub(super) fn conclude(&self, arrived: bool) -> u8 {
        let (verdict, joint, rest) = if arrived {
            (("Profiles would arrive", OK.1), ", but ", &self.flaw)
        } else {
            (("Profiles would not arrive", BAD.1), ": ", &self.obstacle)
        };
        let joint = if rest.is_empty() { "" } else { joint };
        self.print_line("", verdict, &[joint, rest, "."]);
        u8::from(!arrived)
    }

    /// Prints one line: the step, in ten columns, its mark, and the details.
    pub(super) fn print_line(&self, step: &str, (mark, colour): Mark, words: &[&str]) {
        let (colour, end) = if self.in_colour {
            (colour, "\x1b[0m")
        } else {
            ("", "")
        };
        let mut line = [step, colour, mark, end].concat().into_bytes();
        // A terminal obeys control characters, so those from any source are filtered.
        for c in words.iter().flat_map(|word| word.chars()) {
            let seen = if c.is_control() { '?' } else { c };
            line.extend_from_slice(seen.encode_utf8(&mut [0; 4]).as_bytes());
        }
        line.push(b'\n');
        print(&line);
    }
}
