//! A CPU profile of this program itself: what is counted, when it is sent, and how it is written.
//!
//! This does not sample. Before each piece of work the shell reports its [`Stage`] and the process's CPU clock, so
//! every nanosecond belongs to one stage, and the sum is what the kernel counts for the process. The work of other
//! threads (a name lookup) counts for the loop's current stage, which is sleep.
//!
//! A profile is due 15 s after a payload arrived, if none was due already, and once more at the very end. Sending a
//! profile does not cause another one, so an idle sandbox stays idle. The cost of sending the last one is in no
//! profile.
//!
//! The format is pprof (`profile.proto` of github.com/google/pprof): one sample per stage, with its call stack.
//! Pyroscope accepts it uncompressed where the query says `format=pprof`. It accepts locations without a mapping, but
//! requires a period type.

use std::time::{Duration, Instant};

use crate::contract::Now;

/// Time between two profiles while there is work: the same as in Pyroscope's SDKs.
const EVERY: Duration = Duration::from_secs(15);

/// The path and query to send the profile to, without its times. Pyroscope takes a bare pprof there. The sample rate is
/// that of a clock which counts nanoseconds.
const TARGET: &str = "/ingest?format=pprof&name=pyroscope.lambda.extension\
    &sampleRate=1000000000&spyName=pyroscope-lambda-extension&from=";

/// What the program can be doing, in the order of [`STACKS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Everything before the loop, from the first instruction of the process.
    Start,
    /// Waiting for events, and the cost of the wait.
    Sleep,
    /// Writing log lines.
    Log,
    /// Accepting clients' connections.
    Accept,
    /// Completing connections to the server and to Lambda.
    Connect,
    /// Reading sockets.
    Read,
    /// Parsing requests from clients' bytes into the ring.
    Parse,
    /// The TLS handshake with the server.
    Handshake,
    /// Decrypting the server's TLS records into answers.
    Decrypt,
    /// Parsing the server's answers, without TLS.
    Answer,
    /// Parsing Lambda's events.
    Lambda,
    /// Deciding.
    Step,
    /// Executing decisions: connecting, closing, lookups, files.
    Perform,
    /// Encrypting payloads into TLS records.
    Encrypt,
    /// Writing sockets.
    Write,
}

/// The name of each stage, and its callers, innermost first.
const STACKS: [(&str, &[u8]); 15] = [
    ("start", &[]),
    ("sleep", &[LOOP]),
    ("log", &[LOOP]),
    ("accept", &[REPORT, LOOP]),
    ("connect", &[REPORT, LOOP]),
    ("read", &[REPORT, LOOP]),
    ("parse", &[REPORT, LOOP]),
    ("handshake", &[REPORT, LOOP]),
    ("decrypt", &[REPORT, LOOP]),
    ("answer", &[REPORT, LOOP]),
    ("lambda", &[REPORT, LOOP]),
    ("step", &[ACT, LOOP]),
    ("perform", &[ACT, LOOP]),
    ("encrypt", &[ACT, LOOP]),
    ("write", &[ACT, LOOP]),
];

/// The first strings of every profile; a stage's name is at [`FIRST_STAGE`] plus its number. The empty string is
/// required. A function has the same number as its name.
const TEXTS: [&str; 6] = ["", "cpu", "nanoseconds", "loop", "act", "report"];
const LOOP: u8 = 3;
const ACT: u8 = 4;
const REPORT: u8 = 5;
const FIRST_STAGE: u8 = TEXTS.len() as u8;

/// CPU time by stage, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuTimes([u64; STACKS.len()]);

impl CpuTimes {
    /// A stage used this much time.
    pub const fn charge(&mut self, stage: Stage, ns: u64) {
        self.0[stage as usize] += ns;
    }

    fn add(&mut self, more: &Self) {
        for (sum, ns) in self.0.iter_mut().zip(more.0) {
            *sum += ns;
        }
    }
}

/// The profile that is being collected.
#[derive(Debug)]
pub struct SelfProfile {
    spent: CpuTimes,
    since_ms: u64,
    due: Option<Instant>,
    /// When the last one was due: while there is work, profiles keep a fixed interval.
    beat: Instant,
    /// Payloads acknowledged when the last profile was taken, including that profile.
    acknowledged: u64,
    taken: u64,
    over: bool,
}

impl SelfProfile {
    /// Starts to collect.
    #[must_use]
    pub fn new(now: Now) -> Self {
        Self {
            spent: CpuTimes::default(),
            since_ms: now.unix_ms,
            due: None,
            beat: now.mono,
            acknowledged: 0,
            taken: 0,
            over: false,
        }
    }

    /// This much time was used.
    pub fn add(&mut self, spent: &CpuTimes) {
        self.spent.add(spent);
    }

    /// This many payloads have been acknowledged by now. Returns whether a profile is due.
    pub fn is_due(&mut self, acknowledged: u64, now: Instant) -> bool {
        if self.due.is_none() && acknowledged > self.acknowledged {
            let beat = self.beat + EVERY;
            self.due = Some(if beat > now { beat } else { now + EVERY });
        }
        self.due.is_some_and(|at| at <= now) && self.spent != CpuTimes::default()
    }

    /// Whether the last profile must still be taken.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.over && self.spent != CpuTimes::default()
    }

    /// When the result of [`SelfProfile::is_due`] changes by itself.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Frozen time does not count.
    pub fn thawed(&mut self, frozen: Duration) {
        self.beat += frozen;
        if let Some(due) = &mut self.due {
            *due += frozen;
        }
    }

    /// How many profiles were taken.
    #[must_use]
    pub const fn taken(&self) -> u64 {
        self.taken
    }

    /// The collected profile is being sent; `acknowledged` includes it. The next one starts, unless this was the last.
    pub fn begin_next(&mut self, acknowledged: u64, last: bool, now: Now) {
        self.spent = CpuTimes::default();
        self.since_ms = now.unix_ms;
        self.beat = self.due.take().unwrap_or(now.mono);
        self.acknowledged = acknowledged;
        self.taken += 1;
        self.over = last;
    }

    /// The path and query of the upload.
    #[must_use]
    pub fn target(&self, now: Now) -> String {
        let mut out = TARGET.to_owned();
        out.push_str(&(self.since_ms * NS_PER_MS).to_string());
        out.push_str("&until=");
        out.push_str(&(now.unix_ms * NS_PER_MS).to_string());
        out
    }

    /// The encoded profile.
    #[must_use]
    pub fn pprof(&self, now: Now) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, SAMPLE_TYPE, CPU_NANOSECONDS);
        for ((ns, (_, callers)), id) in self.spent.0.into_iter().zip(STACKS).zip(FIRST_STAGE..) {
            if ns > 0 {
                let mut sample = Vec::new();
                for &location in [id].iter().chain(callers) {
                    integer(&mut sample, SAMPLE_LOCATION, location.into());
                }
                integer(&mut sample, SAMPLE_VALUE, ns);
                message(&mut out, SAMPLE, &sample);
            }
        }
        let texts = TEXTS.into_iter().chain(STACKS.map(|(name, _)| name));
        for (text, id) in texts.zip(0..) {
            message(&mut out, STRING_TABLE, text.as_bytes());
            if id >= LOOP {
                // id, line { function_id }
                message(&mut out, LOCATION, &[8, id, 4 << 3 | 2, 2, 8, id]);
                // id, name
                message(&mut out, FUNCTION, &[8, id, 2 << 3, id]);
            }
        }
        integer(&mut out, TIME_NANOS, self.since_ms * NS_PER_MS);
        let ms = now.unix_ms.saturating_sub(self.since_ms);
        integer(&mut out, DURATION_NANOS, ms * NS_PER_MS);
        message(&mut out, PERIOD_TYPE, CPU_NANOSECONDS);
        integer(&mut out, PERIOD, 1);
        out
    }
}

const NS_PER_MS: u64 = 1_000_000;

// Field numbers of profile.proto: of Profile, and of Sample.
const SAMPLE_TYPE: u8 = 1;
const SAMPLE: u8 = 2;
const LOCATION: u8 = 4;
const FUNCTION: u8 = 5;
const STRING_TABLE: u8 = 6;
const TIME_NANOS: u8 = 9;
const DURATION_NANOS: u8 = 10;
const PERIOD_TYPE: u8 = 11;
const PERIOD: u8 = 12;
const SAMPLE_LOCATION: u8 = 1;
const SAMPLE_VALUE: u8 = 2;

/// A `ValueType`: the type is string 1, the unit is string 2.
const CPU_NANOSECONDS: &[u8] = &[8, 1, 2 << 3, 2];

/// Appends a field that holds an integer.
fn integer(out: &mut Vec<u8>, field: u8, mut value: u64) {
    out.push(field << 3);
    while value > 0x7f {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a field that holds bytes: a string or a message. All lengths here fit into one byte.
fn message(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    debug_assert!(bytes.len() < 0x80, "a length of two bytes");
    out.push(field << 3 | 2);
    out.push(bytes.len() as u8);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
#[expect(
    clippy::disallowed_methods,
    reason = "a made-up clock has to start somewhere"
)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn integers_and_messages() {
        let mut out = Vec::new();
        integer(&mut out, 1, 0);
        integer(&mut out, 2, 300);
        integer(&mut out, 3, u64::MAX);
        message(&mut out, 6, b"cpu");
        let mut expected = vec![8, 0, 16, 0xac, 2, 24];
        expected.extend([0xff; 9]);
        expected.extend([1, 50, 3]);
        expected.extend(b"cpu");
        assert_eq!(out, expected);
    }

    #[test]
    fn the_beat_goes_on_while_there_is_work() {
        let start = Instant::now();
        let mut now = Now {
            mono: start,
            unix_ms: 0,
        };
        let mut profile = SelfProfile::new(now);
        let mut taken = Vec::new();
        let mut acknowledged = 0;
        for second in 0..120 {
            now.mono = start + SECOND * second;
            let mut spent = CpuTimes::default();
            spent.charge(Stage::Step, 1);
            profile.add(&spent);
            // Work in the first 40 s, and from 100 s on.
            acknowledged += u64::from(!(40..100).contains(&second));
            if profile.is_due(acknowledged, now.mono) {
                taken.push(second);
                acknowledged += 1;
                profile.begin_next(acknowledged, false, now);
            }
        }
        assert_eq!(taken, [15, 30, 45, 115]);
        assert_eq!(profile.taken(), 4);
    }
}
