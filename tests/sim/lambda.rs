//! Lambda: the Extensions API, the function's invocations, and the freezes between them.

use std::io::ErrorKind;

use pyroscope_lambda_extension::contract::{ConnId, End, Peer};

use super::chance::Chance;
use super::holds::Why;
use super::ledger::{Range, Sure};
use super::weather::Weather;
use super::world::{Finale, Happening, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// None: the extension only relays.
    Off,
    Ordinary,
    /// Refuses INVOKE, never freezes.
    Managed,
}

pub struct Api {
    kind: Kind,
    named: bool,
    wire: Option<ConnId>,
    request: Vec<u8>,
    /// What the core waits for an answer to.
    asked: Option<Ask>,
    answer: Option<Answer>,
    registered: bool,
    refused: bool,
    shut_down: bool,
    invocations: u64,
    /// Names the next invocation.
    number: u64,
    /// Invocations the core has heard of.
    heard: u64,
    trouble: bool,
    finale_since: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ask {
    Register,
    Next,
}

struct Answer {
    what: What,
    left: usize,
    until_close: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Registered,
    Refused,
    /// With its number, and its deadline if that is said.
    Invoke(u64, Option<u64>),
    Shutdown(Option<u64>),
    /// Nothing that is acted upon.
    Odd,
}

/// Kept back from a function's deadline.
const HOLD_MARGIN: u64 = 200_000;
const SHUTDOWN_MARGIN: u64 = 100_000;
/// Longer than any run.
const YEAR_MS: u64 = 365 * 86_400_000;
const SHUTDOWN_DEFAULT: u64 = 2_000_000;

const REGISTER: &str = "POST /2020-01-01/extension/register HTTP/1.1\r\n";
const NEXT: &str = "GET /2020-01-01/extension/event/next HTTP/1.1\r\n";

impl Api {
    pub const PORT: u16 = 9001;

    pub fn draw(chance: &mut Chance) -> Self {
        use Kind::{Managed, Off, Ordinary};
        Self {
            kind: chance.pick(&[
                Ordinary, Ordinary, Ordinary, Ordinary, Ordinary, Managed, Off,
            ]),
            named: chance.one_in(8),
            wire: None,
            request: Vec::new(),
            asked: None,
            answer: None,
            registered: false,
            refused: false,
            shut_down: false,
            invocations: chance.between(1, 6),
            number: 0,
            heard: 0,
            trouble: false,
            finale_since: None,
        }
    }

    pub fn authority(&self) -> Option<&'static str> {
        match (self.kind, self.named) {
            (Kind::Off, _) => None,
            (_, true) => Some("lambda.test:9001"),
            (_, false) => Some("127.0.0.1:9001"),
        }
    }

    pub const fn is_refused(&self) -> bool {
        self.refused
    }
}

impl World {
    /// What is going to happen in this run, as far as it can be said in advance.
    pub fn plan(&mut self) {
        // Provisioned concurrency: hours between init and the first invocation.
        let provisioned = self.chance.one_in(12);
        let first = self
            .chance
            .below(if provisioned { 7_200_000_000 } else { 300_000 });
        self.clock.inside(first, Happening::Invoke);
        if self.chance.one_in(3) || self.set.copied {
            self.client_comes(100_000);
        }
        if !provisioned && self.chance.one_in(4) {
            let at = self.chance.any_scale(20_000_000);
            self.clock.inside(at, Happening::Finale);
        }
    }

    pub fn lambda_looked_up(&mut self) {
        self.asks_again();
        let result = if self.chance.one_in(4) {
            Err("no such name".to_owned())
        } else {
            Ok(vec!["127.0.0.1:9001".parse().unwrap()])
        };
        let after = self.chance.below(2000);
        self.clock
            .inside(after, Happening::Looked(Peer::Lambda, result));
    }

    pub fn lambda_found(&mut self, found: bool) {
        self.api.trouble |= !found;
    }

    pub fn lambda_connects(&mut self, id: ConnId) {
        self.require(self.api.wire.is_none(), "two connections to Lambda");
        self.asks_again();
        self.api.wire = Some(id);
        let refused = self.chance.one_in(15);
        let result = refused.then_some(ErrorKind::ConnectionRefused);
        let after = self.chance.below(500);
        self.clock.inside(after, Happening::Landed(id, result));
    }

    /// To make a connection is to ask.
    fn asks_again(&mut self) {
        if self.api.registered {
            self.check_asking();
        }
    }

    /// The connection is gone.
    pub fn lambda_gone(&mut self, id: ConnId) {
        if self.api.wire == Some(id) {
            self.api.wire = None;
            self.api.request.clear();
            (self.api.asked, self.api.answer) = (None, None);
        }
    }

    /// The core has written to Lambda.
    pub fn lambda_is_asked(&mut self, id: ConnId, bytes: &[u8]) {
        self.require(
            self.api.asked.is_none(),
            "a second request before the answer",
        );
        self.api.request.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(&self.api.request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return;
        };
        if head.starts_with(NEXT.trim_end()) {
            let known = head.contains("\r\nLambda-Extension-Identifier: id-1");
            self.require(known && body.is_empty(), format!("odd request {text:?}"));
            self.api.request.clear();
            return self.next_is_asked();
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
        let register = head.starts_with(REGISTER.trim_end());
        self.require(
            register && !self.api.registered,
            format!("odd request {text:?}"),
        );
        if body.len() == length {
            self.api.request.clear();
            self.register_is_asked(id, body);
        }
    }

    fn register_is_asked(&mut self, id: ConnId, body: &str) {
        self.api.asked = Some(Ask::Register);
        let invoke = match body {
            r#"{"events":["INVOKE","SHUTDOWN"]}"# => true,
            r#"{"events":["SHUTDOWN"]}"# => false,
            _ => self.fail(format!("registers for {body}")),
        };
        self.require(
            invoke || self.api.kind == Kind::Managed,
            "does not want INVOKE",
        );
        let late = self.chance.one_in(6);
        let pause = self.chance.below(if late { 9_000_000 } else { 2000 });
        match self.chance.below(30) {
            0 => self.lambda_answers(pause, 500, "container error", What::Refused),
            1 => self.clock.inside(pause, Happening::Cut(id, End::Eof)),
            _ if invoke && self.api.kind == Kind::Managed => {
                let body = r#"{"errorType":"Extension.InvalidEventType"}"#;
                self.lambda_answers(pause, 403, body, What::Odd);
            }
            _ => self.lambda_answers(pause, 200, "{}", What::Registered),
        }
    }

    fn next_is_asked(&mut self) {
        self.require(
            self.api.registered,
            "asks for events before it is registered",
        );
        self.require(!self.api.shut_down, "asks for events after SHUTDOWN");
        self.tell(|| "next is asked for".to_owned());
        self.check_asking();
        self.api.asked = Some(Ask::Next);
        self.api.trouble = false;
    }

    fn lambda_answers(&mut self, pause: u64, status: u16, body: &str, what: What) {
        let Some(id) = self.api.wire else {
            return;
        };
        let until_close = self.chance.one_in(12);
        let close = until_close || self.chance.one_in(12);
        let mut text = format!("HTTP/1.1 {status} X\r\nLambda-Extension-Identifier: id-1\r\n");
        if !until_close {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str(if close {
            "Connection: close\r\n\r\n"
        } else {
            "\r\n"
        });
        text.push_str(body);
        self.api.answer = Some(Answer {
            what,
            left: text.len(),
            until_close,
        });
        let piece = self.chance.pick(&[1, 20, 10_000, 10_000]);
        let beat = self.chance.pick(&[0, 0, 50]);
        let mut at = pause;
        for piece in text.as_bytes().chunks(piece) {
            self.clock.inside(at, Happening::Arrive(id, piece.to_vec()));
            at += beat;
        }
        if until_close {
            self.clock.inside(at, Happening::Cut(id, End::Eof));
        }
    }

    /// The core has read `n` more bytes of an answer.
    pub fn lambda_was_read(&mut self, _id: ConnId, n: usize) {
        let Some(answer) = &mut self.api.answer else {
            self.fail("reads from Lambda what was not said");
        };
        answer.left -= n;
        if answer.left == 0 && !answer.until_close {
            self.lambda_is_heard();
        }
    }

    pub fn lambda_ends(&mut self, id: ConnId) {
        let whole = |answer: &Answer| answer.until_close && answer.left == 0;
        if self.api.answer.as_ref().is_some_and(whole) {
            self.lambda_is_heard();
        } else {
            self.api.trouble = true;
            self.note("Lambda closes without an answer");
        }
        self.lambda_gone(id);
    }

    /// An answer has been heard to its end: from here on the core knows.
    fn lambda_is_heard(&mut self) {
        let Some(answer) = self.api.answer.take() else {
            return;
        };
        self.api.asked = None;
        let what = answer.what;
        self.tell(|| format!("Lambda is heard: {what:?}"));
        let (now, wall) = (self.clock.mono(), self.clock.now().unix_ms);
        let left = |deadline: u64| deadline.saturating_sub(wall).min(YEAR_MS) * 1000;
        match what {
            What::Registered => {
                self.api.registered = true;
                let ordinary = self.api.kind == Kind::Ordinary;
                self.registered_for_telemetry(ordinary);
                if self.leave_by.is_none() {
                    self.ledger
                        .held(Why::Nothing, Sure::No, now, self.turn, now);
                }
            }
            What::Refused => self.api.refused = true,
            What::Odd => self.api.trouble = true,
            What::Invoke(number, deadline) => {
                self.note("INVOKE");
                self.wakes();
                self.is_copy = self.set.copied && self.api.heard == 0;
                self.api.heard += 1;
                if self.leave_by.is_none() {
                    let left = deadline.map_or(self.set.timeout, left);
                    let until = now + left.saturating_sub(HOLD_MARGIN);
                    let (why, running) = self.telemetry.why(number);
                    self.ledger.held(why, running, now, self.turn, until);
                }
            }
            What::Shutdown(deadline) => {
                self.note("SHUTDOWN");
                self.api.shut_down = true;
                self.wakes();
                let left = deadline.map_or(SHUTDOWN_DEFAULT, left);
                let until = |left: u64| now + left.saturating_sub(SHUTDOWN_MARGIN);
                let longest = until(SHUTDOWN_DEFAULT);
                let (least, most) = match left {
                    // It is over, or just about to be.
                    0 if deadline != Some(wall) => (longest, longest),
                    0 => (now, longest),
                    left => (
                        until(left.min(SHUTDOWN_DEFAULT)),
                        until(left.min(SHUTDOWN_DEFAULT)),
                    ),
                };
                if deadline.is_some() && left != SHUTDOWN_DEFAULT && least == longest {
                    self.note("deadline of the end not believed");
                }
                self.leaves_by(Range { least, most });
            }
        }
    }

    /// Whether an event can be sent: the core waits for one.
    const fn waits_for_event(&self) -> bool {
        matches!(self.api.asked, Some(Ask::Next)) && self.api.answer.is_none()
    }

    /// The core takes in what Lambda has said.
    pub const fn lambda_wakes(&mut self) {
        if self.api.heard > 0 {
            self.times_invoked();
        }
    }

    /// The function is called.
    pub fn invoke(&mut self) {
        if self.api.finale_since.is_some() && self.api.kind != Kind::Ordinary {
            return;
        }
        if self.api.kind == Kind::Ordinary {
            if !self.waits_for_event() {
                if !self.api.shut_down && !self.api.refused && !self.good_for_ever {
                    self.clock.inside(5000, Happening::Invoke);
                }
                return;
            }
            if !self.lambda_sends_invoke() {
                return self.clock.inside(5000, Happening::Invoke);
            }
        }
        let duration = self.chance.any_scale(5_000_000);
        self.telemetry_follows(self.api.number, duration);
        let clients = self.chance.pick(&[0, 1, 1, 2, 3, 5, 12]);
        for _ in 0..clients {
            self.client_comes(duration * 5 / 4);
        }
        self.clock.inside(duration, Happening::FunctionEnds);
    }

    /// Whether it is an INVOKE, and not something odd.
    fn lambda_sends_invoke(&mut self) -> bool {
        let wall = self.clock.now().unix_ms;
        match self.chance.below(30) {
            0 => self.lambda_answers(0, 500, "container error", What::Odd),
            1 => self.lambda_answers(0, 200, "{\"eventType\":", What::Odd),
            2 => self.lambda_answers(0, 200, "{\"eventType\":\"WHAT\"}", What::Odd),
            3 => {
                let id = self.api.wire.unwrap();
                let reset = End::Io(ErrorKind::ConnectionReset);
                let end = self.chance.pick(&[End::Eof, reset]);
                self.clock.inside(0, Happening::Cut(id, end));
            }
            _ => {
                let (deadline, text) = match self.chance.below(8) {
                    0 => (None, "null".to_owned()),
                    1 => (Some(wall - 5), (wall - 5).to_string()),
                    2 => (Some(u64::MAX), u64::MAX.to_string()),
                    _ => {
                        let at = wall + self.chance.pick(&[300, 3000, 3000, 60_000]);
                        (Some(at), at.to_string())
                    }
                };
                self.api.number += 1;
                let number = self.api.number;
                let body = format!(
                    r#"{{"eventType":"INVOKE","deadlineMs":{text},"requestId":"r-{number}","tracing":{{"type":"X"}}}}"#
                );
                self.lambda_answers(0, 200, &body, What::Invoke(number, deadline));
                return true;
            }
        }
        false
    }

    /// The function has answered. Once we have asked for the next event, Lambda may freeze us all.
    pub fn function_ends(&mut self) {
        let ordinary = self.api.kind == Kind::Ordinary;
        if self.api.shut_down || self.leave_by.is_some() || self.api.refused {
            return;
        }
        if ordinary && !self.waits_for_event() {
            if !self.good_for_ever {
                self.clock.inside(5000, Happening::FunctionEnds);
            }
            return;
        }
        self.api.invocations = self.api.invocations.saturating_sub(1);
        if self.api.invocations == 0 {
            let after = self.chance.any_scale(3_000_000);
            return self.clock.inside(after, Happening::Finale);
        }
        let mut next = self.chance.any_scale(200_000);
        if self.api.kind != Kind::Managed && !self.chance.one_in(3) {
            let time = match self.chance.below(8) {
                0 => 900_000,
                1 => 400_000_000,
                2 => self.chance.between(300_000_000, 10_800_000_000),
                _ => self.chance.any_scale(30_000_000),
            };
            let still = self.chance.one_in(4);
            let after = self.chance.any_scale(20_000);
            self.clock.inside(after, Happening::Freeze(time, still));
            next = after + self.chance.any_scale(1000);
        }
        self.clock.inside(next, Happening::Invoke);
    }

    /// The end begins, as this run is set to.
    pub fn finale(&mut self) {
        if self.api.finale_since.is_some() || self.leave_by.is_some() {
            return;
        }
        self.api.finale_since = Some(self.clock.awake());
        let off = self.api.kind == Kind::Off;
        let mut after = 1000;
        if self.set.finale == Finale::Shutdown && self.chance.one_in(2) {
            // As at the end of a function that profiles much; sometimes when all has been well for a while.
            let mut quiet = 0;
            if self.set.timeout > 2_000_000 && !self.chance.one_in(3) {
                self.server.sky.stays = true;
                self.weather_is(Weather::HalfSecond);
                quiet = 12_000_000;
                self.crowd_comes(1, true, quiet / 2);
            }
            let count = self.chance.between(10, 60);
            self.crowd_comes(count, true, quiet);
            after += quiet + quiet / 40;
        }
        if self.set.finale != Finale::Rest && self.chance.one_in(2) {
            for _ in 0..self.chance.between(1, 6) {
                self.client_comes(500_000);
            }
        }
        match self.set.finale {
            Finale::Rest => {
                self.good_for_ever = true;
                self.weather_changes();
            }
            Finale::Shutdown if !off => self.clock.inside(after, Happening::Shutdown),
            Finale::Shutdown | Finale::Signal => {
                self.note("signal");
                self.terminate();
            }
        }
    }

    /// Lambda says goodbye, once it is asked for an event.
    pub fn shut_down(&mut self) {
        if self.api.shut_down || self.api.refused {
            return;
        }
        // Said again where it was lost with its connection.
        self.clock.inside(5000, Happening::Shutdown);
        if !self.waits_for_event() {
            return;
        }
        let reason = self
            .chance
            .pick(&["spindown", "failure", "timeout", "SandboxTerminated"]);
        let wall = self.clock.now().unix_ms;
        let (deadline, text) = match self.chance.below(8) {
            0 => (None, "null".to_owned()),
            1 => (Some(wall - 1), (wall - 1).to_string()),
            2 => (Some(wall + 300), format!("\"{}\"", wall + 300)),
            3 => (Some(wall + 2_000_000), (wall + 2_000_000).to_string()),
            _ => (Some(wall + 2000), (wall + 2000).to_string()),
        };
        let body = format!(
            r#"{{"eventType":"SHUTDOWN","deadlineMs":{text},"shutdownReason":"{reason}"}}"#
        );
        self.lambda_answers(0, 200, &body, What::Shutdown(deadline));
    }

    pub fn check_lambda(&mut self) {
        if self.good_for_ever
            && let Some(since) = self.api.finale_since
        {
            self.check_time(since);
        }
    }

    /// At rest the next event has been asked for, and permission to freeze given.
    pub fn check_lambda_rest(&self) {
        let asked = self.api.kind == Kind::Off || self.waits_for_event();
        self.require(asked, "at rest, and the next event is not asked for");
    }
}
