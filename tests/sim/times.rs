//! What must become of the times of profiles: written from docs/fleets.md.
//!
//! The server reads the times of what arrives first of each payload; every later attempt must have the same bytes.

use std::collections::{BTreeMap, BTreeSet};

use super::ledger::{Fate, Payload};
use super::profiles::{DAY, Form, MINUTE, MS, SECOND, is_gzip, nanoseconds, read};
use super::world::World;

/// A profile that began so long before it came, and ended so shortly before, is moved.
const AGE_MAX: u64 = 55 * MINUTE;
const JUST_NOW: u64 = MINUTE;

/// Where a profile begins that is moved, if no freeze was noticed.
const USUAL_LENGTH: u64 = 10 * SECOND;

/// What the server takes.
const HOUR: u64 = 60 * MINUTE;

/// What a body grows by. A Push in gzip grows by a few bytes, or by a block's header or two for each time.
const GROWTH: usize = 10;
const GROWTH_GZIP: usize = 33;
const GROWTH_MAX: usize = 320;

/// Room that it may take to let a body grow.
const ROOM: usize = 16 << 10;

/// A freeze that the clocks have shown.
#[derive(Debug, Clone, Copy, Default)]
pub struct Thaw {
    pub at_ms: u64,
    /// How long it was, if the monotonic clock went on.
    pub frozen_ms: u64,
    /// For how long the monotonic clock stood still.
    pub clock_lag_ms: u64,
}

/// What was known when an upload's head came.
#[derive(Debug, Clone, Copy)]
pub struct Received {
    unix_ms: u64,
    thaw: Option<Thaw>,
    /// Uploads of one epoch have one filling; none: this one has its own.
    epoch: Option<Epoch>,
}

/// The session id that is drawn as the sandbox starts is drawn again at the first INVOKE, for copies of a snapshot to
/// have different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Epoch {
    Init,
    Invoked,
}

/// An upload's times, as far as they matter to what must become of them.
#[derive(Debug, Default)]
pub struct Times {
    pub form: Form,
    /// The target of an upload that ends when it begins.
    pub empty: Option<String>,
    pub received: Option<Received>,
    /// It says nothing that the one before did not say.
    pub left_out: bool,
    /// The server has seen it; and for the first time after the first INVOKE.
    pub arrived: bool,
    arrived_late: bool,
}

/// What is known of the times of a sandbox.
#[derive(Default)]
pub struct Clockwork {
    thaw: Option<Thaw>,
    invoked: bool,
    /// Target of the last upload of nothing.
    last_empty: Option<String>,
    /// What a unit is filled with, by the length of the profile.
    fillings: BTreeMap<(Epoch, u64), BTreeMap<u64, u64>>,
    sessions: BTreeMap<Epoch, String>,
    /// Starts that were not moved, as they were and as they arrived, and what their last digit counted.
    starts: Vec<(u64, u64, u64)>,
    /// The log's last line.
    pub closing: String,
}

/// The part of a unit in which fillings of one sandbox differ, by the length of the profiles.
const LENGTHS: u64 = 1000;

/// Profiles up to this many units long are told apart.
const TOLD_APART: u64 = 900;

/// A time of a profile, and what it has become. `length`: of the profile, if that matters.
#[derive(Debug, Clone, Copy)]
struct Change {
    time: u64,
    becomes: u64,
    length: u64,
    is_start: bool,
}

/// What must become of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meant {
    Stays,
    /// The digits below that unit are filled.
    Filled(u64),
    /// It is moved to that millisecond.
    Moved(u64),
}

impl Received {
    const fn now(&self) -> u64 {
        self.unix_ms * MS
    }

    const fn is_now(&self, end: u64) -> bool {
        end.abs_diff(self.now()) <= JUST_NOW
    }

    /// What a time that is not moved becomes.
    const fn filled(&self, time: u64) -> Meant {
        if self.now().abs_diff(time) > DAY {
            Meant::Stays
        } else if time.is_multiple_of(SECOND) {
            Meant::Filled(SECOND)
        } else if time.is_multiple_of(MS) {
            Meant::Filled(MS)
        } else if time.is_multiple_of(1000) {
            Meant::Filled(1000)
        } else {
            Meant::Stays
        }
    }

    /// What the start of a profile with that end becomes.
    fn start(&self, start: u64, end: u64) -> Meant {
        if start + AGE_MAX >= self.now() || !self.is_now(end) {
            return self.filled(start);
        }
        let thaw = self.thaw.map(|thaw| thaw.at_ms);
        let thaw = thaw.filter(|at| at * MS + AGE_MAX > self.now());
        Meant::Moved(thaw.unwrap_or(self.unix_ms - USUAL_LENGTH / MS))
    }

    /// How long a profile was whose SDK says that length: what it measures by may have stood still in the last freeze.
    fn length(&self, start: u64, length: u64) -> u64 {
        let frozen = self.thaw.filter(|thaw| start < thaw.at_ms * MS);
        length + frozen.map_or(0, |thaw| thaw.clock_lag_ms * MS)
    }
}

impl World {
    /// The clocks have shown a freeze.
    pub fn times_thaw(&mut self, frozen: u64, stood_still: u64) {
        self.ledger.clockwork.thaw = Some(Thaw {
            at_ms: self.now().unix_ms,
            frozen_ms: frozen.max(stood_still) / 1000,
            clock_lag_ms: stood_still / 1000,
        });
    }

    pub const fn last_thaw(&self) -> Option<Thaw> {
        self.ledger.clockwork.thaw
    }

    /// The core takes in that there is an invocation.
    pub const fn times_invoked(&mut self) {
        self.ledger.clockwork.invoked = true;
    }

    /// A head came, and when it came is known.
    pub fn times_come(&mut self, at: usize) {
        let unix_ms = self.now().unix_ms;
        let clockwork = &mut self.ledger.clockwork;
        let epoch = match clockwork.invoked {
            true => Some(Epoch::Invoked),
            false if self.set.copied => None,
            false => Some(Epoch::Init),
        };
        let times = &mut self.ledger.payloads[at].times;
        times.received = Some(Received {
            unix_ms,
            thaw: clockwork.thaw,
            epoch,
        });
        if times.empty.is_some() && self.set.unique_times {
            times.left_out = times.empty == clockwork.last_empty && self.set.usable;
            clockwork.last_empty.clone_from(&times.empty);
        }
    }

    /// The core closed a connection in the middle of a body, which may have been that of an upload of nothing.
    pub fn times_broke_off(&mut self, client_in_body: bool) {
        if client_in_body {
            self.ledger.clockwork.last_empty = None;
        }
    }

    /// The server sees an upload for the first time: its times are as they must be, and all else is as it was sent.
    pub fn times_arrive(&mut self, at: usize, arrived: &[u8]) {
        let payload = &mut self.ledger.payloads[at];
        if payload.times.form == Form::Bytes {
            return;
        }
        if std::mem::replace(&mut payload.times.arrived, true) {
            return self.note("sent again with the same times");
        }
        payload.times.arrived_late = self.ledger.clockwork.invoked;
        let sent = std::mem::replace(&mut payload.request, arrived.to_vec());
        let form = payload.times.form;
        let Some(received) = payload.times.received else {
            return self.note("nobody knows when it came");
        };
        let ((sent, sent_body), (head, body)) = (split(&sent), split(arrived));
        let fine = self.head_arrives(at, &received, &sent, &head, body.len());
        if form == Form::Query || fine || !self.set.unique_times {
            self.require(sent_body == body, "a body is changed");
            if !self.set.unique_times {
                self.note("no times are changed");
            }
        } else {
            self.body_arrives(at, &received, form, sent_body, body);
        }
        let waited = self.now().unix_ms * MS - received.now();
        if waited > AGE_MAX && form == Form::Query && self.set.unique_times {
            self.note("waited for an hour, and was not moved");
        }
    }

    /// Whether its times are in nanoseconds anyway.
    fn head_arrives(
        &mut self,
        at: usize,
        received: &Received,
        sent: &str,
        head: &str,
        length: usize,
    ) -> bool {
        let (sent, sent_fields) = sent.split_once("\r\n").unwrap();
        let (line, fields) = head.split_once("\r\n").unwrap();
        self.fields_arrive(sent_fields, fields, length);
        self.line_arrives(at, received, &parameters(sent), &parameters(line))
    }

    fn fields_arrive(&self, sent_fields: &str, fields: &str, length: usize) {
        let is_length = |line: &&str| line.starts_with("Content-Length: ");
        let others = |fields: &str| -> String {
            let others = fields.split("\r\n").filter(|line| !is_length(line));
            others.collect::<Vec<_>>().join("\r\n")
        };
        self.require(others(sent_fields) == others(fields), "a field is changed");
        let said = fields.split("\r\n").find(is_length);
        let length = format!("Content-Length: {length}");
        self.require(said == Some(&length), "a length is not the body's");
    }

    /// The request's first line. Whether the times are in nanoseconds anyway.
    fn line_arrives(
        &mut self,
        at: usize,
        received: &Received,
        sent: &[&str],
        line: &[&str],
    ) -> bool {
        self.require(sent.len() == line.len(), "parameters come or go");
        let time = |all: &[&str], name: &str| -> Option<u64> {
            nanoseconds(all.iter().find_map(|one| one.strip_prefix(name))?)
        };
        let from = time(sent, "from=");
        let until = time(sent, "until=");
        // What is moved ends no earlier than it begins.
        let begins = time(line, "from=").filter(|_| from <= until);
        let moved = from
            .zip(until)
            .map(|(from, until)| received.start(from, until));
        let moved = matches!(moved, Some(Meant::Moved(_)));
        let coarsest = coarsest(sent);
        let filled = |meant: Meant| match meant {
            Meant::Filled(unit) => Meant::Filled(unit.min(coarsest)),
            other => other,
        };
        let meant = |name: &str| match (name, from, until) {
            ("from", Some(from), _) => {
                Some((from, filled(received.start(from, until.unwrap_or(from)))))
            }
            ("until", _, Some(until)) => Some((until, filled(received.filled(until)))),
            _ => None,
        };
        for (before, after) in sent.iter().zip(line) {
            let name = before.split('=').next().unwrap_or_default();
            if name == "name" {
                self.session_arrives(received, before, after);
                continue;
            }
            let Some((time, meant)) = meant(name).filter(|_| self.set.unique_times) else {
                self.require(before == after, format!("{before} becomes {after}"));
                continue;
            };
            let digits = after.split('=').next_back().unwrap_or_default();
            let Some(becomes) = nanoseconds(digits) else {
                self.fail(format!("payload {at}: {after} is no time"));
            };
            if name == "until" && moved && begins == Some(becomes) {
                self.note("the end of what is moved is moved, too");
                continue;
            }
            if meant == Meant::Stays {
                self.require(before == after, format!("{before} becomes {after}"));
            }
            let length = until.unwrap_or(0).saturating_sub(from.unwrap_or(0));
            let change = Change {
                time,
                becomes,
                length,
                is_start: name == "from",
            };
            self.time_arrives(at, received, change, meant);
        }
        let ends = time(line, "until=");
        let ordered = begins.zip(ends).is_none_or(|(begins, ends)| begins <= ends);
        self.require(ordered, format!("payload {at} begins after its end"));
        let digits = sent.iter().find_map(|one| one.strip_prefix("from="));
        digits.is_some_and(|digits| digits.len() == 19)
    }

    /// The label that tells one sandbox from another, in a name without labels.
    fn session_arrives(&mut self, received: &Received, before: &str, after: &str) {
        let session = after
            .strip_prefix(before)
            .and_then(|rest| rest.strip_prefix("%7B__session_id__%3D"))
            .and_then(|rest| rest.strip_suffix("%7D"));
        let Some(session) = session else {
            self.fail(format!("{before} becomes {after}"));
        };
        let Some(epoch) = received.epoch else {
            let known = self.ledger.clockwork.sessions.values();
            let shared = known.filter(|own| *own == session).count() > 0;
            return self.require(!shared, "a copy's session id is that of another upload");
        };
        let sessions = &mut self.ledger.clockwork.sessions;
        let own = sessions.entry(epoch).or_insert_with(|| session.to_owned());
        let same = own == session;
        self.require(same, "two session ids in one sandbox");
    }

    fn body_arrives(
        &mut self,
        at: usize,
        received: &Received,
        form: Form,
        sent: &[u8],
        body: &[u8],
    ) {
        let Some((mut before, sent_rest)) = read(form, sent) else {
            self.require(sent == body, "a damaged body is changed");
            return self.note("a damaged body passes");
        };
        let Some((after, rest)) = read(form, body) else {
            self.fail(format!("payload {at}: a body is damaged"));
        };
        let meant = before.iter().map(|pprof| {
            let start = pprof.time_nanos.cast_unsigned();
            let said = pprof.duration_nanos.cast_unsigned();
            let length = received.length(start, said);
            let meant = match received.start(start, start + length) {
                Meant::Moved(to) => Meant::Moved(to),
                _ => received.start(start, start + said),
            };
            (meant, said)
        });
        let meant: Vec<(Meant, u64)> = meant.collect();
        let stays = meant.iter().all(|(meant, _)| *meant == Meant::Stays);
        if sent == body && !stays && !self.ledger.had_room(self.set.bytes_max - ROOM) {
            return self.note("no room for its time");
        }
        self.require(sent != body || stays, "the times in a body stay");
        self.require(sent == body || !stays, "a body is changed");
        self.require(before.len() == after.len(), "pprofs come or go");
        for ((before, after), (meant, length)) in before.iter_mut().zip(&after).zip(meant) {
            let change = Change {
                time: before.time_nanos.cast_unsigned(),
                becomes: after.time_nanos.cast_unsigned(),
                length,
                is_start: true,
            };
            self.time_arrives(at, received, change, meant);
            before.time_nanos = after.time_nanos;
        }
        self.require(before == after && rest == sent_rest, "a body is changed");
        if stays {
            return;
        }
        let growth = body.len().saturating_sub(sent.len());
        let (grown, what) = match (form, is_gzip(body)) {
            (Form::Push, false) => (growth == 0, "a time in a Push"),
            (Form::Push, true) => (
                growth <= GROWTH_MAX * after.len(),
                "a time in a Push in gzip",
            ),
            (_, false) => (growth == GROWTH, "a time in a pprof"),
            (_, true) => (growth == GROWTH_GZIP, "a time in a pprof in gzip"),
        };
        self.require(grown, format!("{what}: the body grows by {growth}"));
        self.note(what);
    }

    fn time_arrives(&mut self, at: usize, received: &Received, change: Change, meant: Meant) {
        let Change { time, becomes, .. } = change;
        let mut length = change.length;
        let (base, unit, what) = match meant {
            Meant::Stays => {
                self.require(time == becomes, format!("{time} becomes {becomes}"));
                return self.note(if received.now().abs_diff(time) > DAY {
                    "a time far from now stays"
                } else {
                    "nanoseconds stay"
                });
            }
            Meant::Filled(unit) => {
                let what = match unit {
                    SECOND => "whole seconds filled",
                    MS => "milliseconds filled",
                    _ => "microseconds filled",
                };
                (time, unit, what)
            }
            Meant::Moved(ms) => {
                let accepted = ms * MS + HOUR > received.now();
                self.require(accepted, "a moved profile is refused");
                let thawed = received.thaw.is_some_and(|thaw| thaw.at_ms == ms);
                let what = match thawed {
                    true => "moved to the end of a freeze",
                    false => "moved to 10 s before it came",
                };
                length = 0;
                (ms * MS, MS, what)
            }
        };
        let filling = becomes.wrapping_sub(base);
        if !(1..unit).contains(&filling) {
            self.fail(format!(
                "payload {at}: {time} becomes {becomes}, but is {meant:?}, {received:?}"
            ));
        }
        if let Some(epoch) = received.epoch {
            let fillings = &mut self.ledger.clockwork.fillings;
            let fillings = fillings.entry((epoch, unit)).or_default();
            fillings.entry(length).or_insert(filling);
            let told_apart = is_told_apart(fillings, (length, filling), unit);
            self.require(
                told_apart,
                format!("payload {at}: {length} ns filled with {filling}"),
            );
        } else {
            self.note("a filling of its own, before the first invocation");
        }
        if change.is_start && matches!(meant, Meant::Filled(_)) {
            self.ledger.clockwork.starts.push((time, becomes, unit));
        }
        self.note(what);
    }

    /// The order of a sandbox's profiles stays: of those whose times are written alike, and of those that began more than
    /// a second apart.
    pub fn check_times(&mut self) {
        let clockwork = &self.ledger.clockwork;
        let starts = &clockwork.starts;
        let mut pairs = starts
            .iter()
            .flat_map(|one| starts.iter().map(move |other| (one, other)));
        let epochs: BTreeSet<Epoch> = clockwork.fillings.keys().map(|(epoch, _)| *epoch).collect();
        let swapped = pairs.find(|((a, a_becomes, a_unit), (b, b_becomes, b_unit))| {
            let ordered = a < b && a_unit == b_unit || a + SECOND <= *b;
            ordered && a_becomes >= b_becomes
        });
        if let Some(swapped) = swapped {
            self.fail(format!("out of order: {swapped:?}"));
        }
        if starts.len() > 1 {
            self.note("the order of times checked");
        }
        if epochs.len() > 1 {
            self.note("two fillings: before the first invocation, and after");
        }
        let payloads = self.ledger.payloads.iter();
        let sent = payloads.clone().filter(|own| own.times.arrived);
        let sent: BTreeSet<_> = sent.filter_map(|own| own.times.empty.as_ref()).collect();
        let mut left_out = payloads.filter(|own| own.fate == Fate::LeftOut);
        let is_sent = |own: &Payload| own.times.empty.as_ref().is_some_and(|it| sent.contains(it));
        if left_out.any(is_sent) {
            self.note("one of them sent, others left out");
        }
    }

    /// What came before the snapshot is one profile to the server, whichever copy sends it.
    pub fn check_copies(&mut self, other: &Self) {
        let both = self.ledger.payloads.iter().zip(&other.ledger.payloads);
        let before = |times: &Times| {
            let own = times.received.is_some_and(|own| own.epoch.is_none());
            own && times.arrived
        };
        let both = both.filter(|(one, other)| before(&one.times) && before(&other.times));
        let (mut same, mut different) = (0, 0);
        for (one, other) in both {
            if one.request != other.request {
                different += 1;
            } else if one.times.arrived_late && other.times.arrived_late {
                same += 1;
            }
        }
        self.require(different == 0, "two copies send different bytes");
        if same > 0 {
            self.note("the same bytes from two copies");
        }
    }

    /// The closing line says what was left out.
    pub fn check_closing_line(&mut self) {
        let left_out = self.relay.totals().left_out_sum();
        let said = format!(" empty_left_out={left_out} ");
        let line = &self.ledger.clockwork.closing;
        let says = match left_out {
            0 => !line.contains("empty_left_out"),
            _ => line.contains(&said),
        };
        self.require(says, format!("left out: {left_out}, and it says {line}"));
        if left_out > 0 {
            self.note("empty_left_out");
        }
    }
}

/// What the last digit of these times counts, of the coarser one. Zeros may fill seconds up to nanoseconds.
fn coarsest(parameters: &[&str]) -> u64 {
    let times = parameters.iter().filter_map(|one| {
        let from = one.strip_prefix("from=");
        from.or_else(|| one.strip_prefix("until="))
    });
    let units = times.map(|digits| match digits.len() {
        13 => MS,
        16 => 1000,
        _ => SECOND,
    });
    units.max().unwrap_or(SECOND)
}

/// Whether a filling is the sandbox's: the same for the same length, a little more for a longer profile.
fn is_told_apart(fillings: &BTreeMap<u64, u64>, (length, filling): (u64, u64), unit: u64) -> bool {
    fillings.iter().all(|(other, own)| {
        let (longer, more) = (length.abs_diff(*other), filling.abs_diff(*own));
        let same_way = longer == 0 || more == 0 || (length > *other) == (filling > *own);
        // Microseconds have no room for that.
        let differs = longer >= unit && length.max(*other) < TOLD_APART * unit && unit > 1000;
        same_way && (longer > 0 || more == 0) && (more > 0 || !differs) && more < unit / LENGTHS
    })
}

/// The parts of a request's first line.
fn parameters(line: &str) -> Vec<&str> {
    line.split(['?', '&', ' ']).collect()
}

/// Head and body.
fn split(request: &[u8]) -> (String, &[u8]) {
    let end = request.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let (head, body) = request.split_at(end.unwrap() + 4);
    (String::from_utf8_lossy(head).into_owned(), body)
}
