//! Lambda's Telemetry API, for flush mode `end`: the subscription, and the news that an invocation is done.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;

use pyroscope_lambda_extension::contract::{ConnId, End};

use super::holds::{Hold, Why};
use super::ledger::{Range, Sure};
use super::world::{Happening, Who, World};

/// `PYROSCOPE_FLUSH_MODE`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Flush {
    #[default]
    None,
    Invoke,
    End,
}

impl Flush {
    pub const fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Invoke => "invoke",
            Self::End => "end",
        }
    }
}

#[derive(Debug, Default)]
pub struct Telemetry {
    /// As it is by now: `end` without telemetry becomes `invoke`.
    flush: Flush,
    /// The port is bound, and its connection not yet made.
    due: bool,
    request: Vec<u8>,
    written: bool,
    registered: u64,
    /// Status of the answer that is under way, and how much of it is still to be heard.
    answer: Option<(u16, usize)>,
    subscribed: bool,
    /// Batches under way: bytes to be read, and the invocation that is done by then.
    deliveries: BTreeMap<ConnId, (usize, News)>,
    /// What is still to be delivered: one after the other, as the events came.
    queue: VecDeque<News>,
    last_event: u64,
    /// The last invocation the core has heard to be done.
    done: u64,
    heard: bool,
}

/// What Lambda delivers.
#[derive(Debug, Clone, Copy)]
pub enum News {
    Nothing,
    /// No batch at all.
    Odd,
    /// Some events were lost, perhaps the one that is waited for.
    Dropped,
    /// That invocation is done.
    Done(u64),
}

/// Longest wait for the subscription to be written, and for telemetry that never comes.
const WRITE_MAX: u64 = 1_000_000;
const SILENCE_MAX: u64 = 2_000_000;

/// Lambda gathers events for so long.
const BUFFERED: u64 = 25_000;

const PORT: u16 = 4041;

impl Telemetry {
    /// Whether the next connection to the API is the subscription's.
    pub const fn takes_connection(&mut self) -> bool {
        std::mem::replace(&mut self.due, false)
    }

    /// What the next event is held back for after the INVOKE of that number.
    pub const fn why(&self, number: u64) -> (Why, Sure) {
        match self.flush {
            Flush::None => (Why::Nothing, Sure::No),
            Flush::Invoke => (Why::Queued, Sure::No),
            Flush::End if self.done == number => (Why::Running(number), Sure::No),
            Flush::End => (Why::Running(number), Sure::Yes),
        }
    }

    /// When the hold ends at the latest.
    pub fn until(&self, hold: &Hold) -> Range {
        let mut until = hold.until;
        if matches!(hold.why, Why::Running(_)) && !self.heard {
            until.least = until.least.min(hold.since + SILENCE_MAX);
            until.most = until.most.min(hold.since + SILENCE_MAX);
        }
        until
    }
}

impl World {
    pub fn registered_for_telemetry(&mut self, ordinary: bool) {
        self.telemetry.flush = self.set.flush;
        self.telemetry.registered = self.clock.mono();
        // Elsewhere no invocation is told of.
        self.telemetry.written = self.set.flush != Flush::End || !ordinary;
    }

    pub fn listen_for_telemetry(&mut self) {
        self.require(self.set.flush == Flush::End, "listens, for nothing");
        let bound = if self.chance.one_in(15) {
            self.degrade();
            Err(ErrorKind::AddrInUse)
        } else {
            self.telemetry.due = true;
            Ok(PORT)
        };
        self.relay.telemetry_bound(bound);
    }

    pub fn subscription_connects(&mut self, id: ConnId) {
        let result = match self.chance.below(15) {
            0 => Some(ErrorKind::ConnectionRefused),
            1 => return,
            _ => None,
        };
        let after = self.chance.any_scale(20_000);
        self.clock.inside(after, Happening::Landed(id, result));
    }

    /// `end` becomes `invoke`: what is held for is what there is now.
    fn degrade(&mut self) {
        self.note("end becomes invoke");
        self.telemetry.flush = Flush::Invoke;
        self.telemetry.written = true;
        let now = self.clock.mono();
        if let Some(hold) = &mut self.ledger.hold {
            hold.degrades(now);
        }
    }

    pub fn subscription_fails(&mut self) {
        self.degrade();
    }

    pub fn subscription_is_asked(&mut self, id: ConnId, bytes: &[u8]) {
        self.telemetry.request.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(&self.telemetry.request).into_owned();
        if !text.ends_with("}}") {
            return;
        }
        let good = text.starts_with("PUT /2022-07-01/telemetry HTTP/1.1\r\n")
            && text.contains("\r\nLambda-Extension-Identifier: id-1\r\n")
            && text.contains(&format!("http://sandbox.localdomain:{PORT}"));
        self.require(good, format!("odd subscription {text:?}"));
        self.telemetry.written = true;
        let answer = match self.chance.below(12) {
            0 => "HTTP/1.1 202 A\r\nContent-Length: 0\r\n\r\n",
            1 => "HTTP/1.1 400 B\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno",
            2 => return self.clock.inside(0, Happening::Cut(id, End::Eof)),
            3 => return self.note("subscription without an answer"),
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK",
        };
        let status = answer[9..12].parse().unwrap();
        self.telemetry.subscribed = status == 200;
        self.telemetry.answer = Some((status, answer.len()));
        let after = self.chance.any_scale(200_000);
        self.clock
            .inside(after, Happening::Arrive(id, answer.as_bytes().to_vec()));
    }

    pub fn subscription_was_read(&mut self, n: usize) {
        let Some((status, left)) = &mut self.telemetry.answer else {
            self.fail("reads what was not said");
        };
        *left -= n;
        if *left == 0 && *status != 200 {
            self.degrade();
        }
    }

    /// It is closed without an answer.
    pub fn subscription_ends(&mut self) {
        if self.telemetry.answer.is_none() {
            self.degrade();
        }
    }

    pub fn telemetry_gone(&mut self, id: ConnId) {
        self.telemetry.deliveries.remove(&id);
    }

    /// The next event is not asked for before the subscription is written: Lambda would not take it any more.
    pub fn check_subscribing(&mut self) {
        self.require(
            !self.waits_to_subscribe(),
            "asks for events before it has subscribed",
        );
    }

    pub const fn waits_to_subscribe(&self) -> bool {
        !self.telemetry.written && self.clock.mono() < self.telemetry.registered + WRITE_MAX
    }

    /// The invocation's hold ended because time was up.
    pub fn hold_ran_out(&mut self, hold: &Hold) {
        if self.clock.mono() < hold.until.least {
            self.note("telemetry never came");
            self.degrade();
        } else if hold.why != Why::Nothing {
            self.note("hold cut off by its time");
        }
    }

    /// What Lambda will deliver about an invocation, if it delivers at all.
    pub fn telemetry_follows(&mut self, number: u64, duration: u64) {
        if !self.telemetry.subscribed {
            return;
        }
        match self.chance.below(8) {
            0..3 => self.event_follows(0, News::Nothing),
            3 => self.event_follows(0, News::Odd),
            _ => {}
        }
        if self.chance.one_in(10) {
            let after = self.chance.below(duration + 1);
            self.event_follows(after, News::Dropped);
        }
        if self.chance.one_in(12) {
            return self.note("runtimeDone lost");
        }
        // Sometimes before the INVOKE itself has been read.
        let after = if self.chance.one_in(10) { 0 } else { duration };
        self.event_follows(after, News::Done(number));
    }

    fn event_follows(&mut self, after: u64, news: News) {
        let now = self.clock.awake();
        let at = (now + after + self.chance.below(BUFFERED)).max(self.telemetry.last_event);
        self.telemetry.last_event = at;
        self.clock.inside(at - now, Happening::Event(news));
    }

    /// Lambda has an event to deliver.
    pub fn event(&mut self, news: News) {
        self.telemetry.queue.push_back(news);
        self.deliver();
    }

    pub fn deliver(&mut self) {
        let busy = |(left, _): &(usize, News)| *left > 0 && *left < usize::MAX;
        if self.telemetry.deliveries.values().any(busy) {
            return;
        }
        let Some(news) = self.telemetry.queue.pop_front() else {
            return;
        };
        let body = match news {
            News::Done(number) => format!(
                r#"[{{"time":"x","type":"platform.start","record":{{"requestId":"r-{number}"}}}},{{"type":"platform.runtimeDone","record":{{"requestId":"r-{number}","status":"success"}}}}]"#
            ),
            News::Dropped => r#"[{"time":"x","type":"platform.logsDropped","record":{"reason":"slow","droppedRecords":3,"droppedBytes":900}}]"#.to_owned(),
            News::Odd => "nonsense".to_owned(),
            News::Nothing => "[]".to_owned(),
        };
        let text = format!(
            "POST / HTTP/1.1\r\nHost: sandbox.localdomain:{PORT}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let idle = self
            .telemetry
            .deliveries
            .iter()
            .find(|(_, (left, _))| *left == 0);
        let id = match idle.map(|(id, _)| *id) {
            Some(id) if !self.chance.one_in(3) => id,
            _ => {
                let id = self.relay.telemetry_accepted();
                self.open(id, Who::Delivery, false);
                id
            }
        };
        self.telemetry.deliveries.insert(id, (text.len(), news));
        let piece = self.chance.pick(&[1, 30, 1000]);
        for piece in text.as_bytes().chunks(piece) {
            self.clock.inside(0, Happening::Arrive(id, piece.to_vec()));
        }
    }

    pub fn delivery_was_read(&mut self, id: ConnId, n: usize) {
        let (left, news) = self.telemetry.deliveries.get_mut(&id).unwrap();
        *left -= n;
        if *left > 0 {
            return;
        }
        self.clock.inside(0, Happening::Deliver);
        let news = *news;
        if matches!(news, News::Odd) {
            // It is refused, and this connection over.
            *left = usize::MAX;
        } else {
            self.telemetry.heard = true;
        }
        self.is_told(news);
    }

    /// The core has read what Lambda delivered.
    fn is_told(&mut self, news: News) {
        let (now, turn) = (self.clock.mono(), self.turn);
        let hold = self.ledger.hold.as_mut();
        let hold = hold.filter(|hold| matches!(hold.why, Why::Running(_)));
        match (news, hold) {
            (News::Dropped, Some(hold)) => {
                // It says nothing of an invocation whose INVOKE is read at the same time.
                let sure = if hold.turn < turn {
                    Sure::Yes
                } else {
                    Sure::Maybe
                };
                hold.is_done(now, sure);
            }
            (News::Done(number), Some(hold)) if hold.why == Why::Running(number) => {
                hold.is_done(now, Sure::Yes);
            }
            _ => {}
        }
        match news {
            News::Nothing => {}
            News::Odd => self.note("odd telemetry"),
            News::Dropped => self.note("telemetry dropped"),
            News::Done(number) => {
                self.telemetry.done = number;
                self.note("runtimeDone");
            }
        }
    }

    pub fn delivery_is_answered(&mut self, bytes: &[u8]) {
        let good = bytes.starts_with(b"HTTP/1.1 200 ") || bytes.starts_with(b"HTTP/1.1 400 ");
        // Whatever else comes is the rest of one of these.
        self.require(
            good || !bytes.starts_with(b"HTTP"),
            "an odd answer to telemetry",
        );
    }
}
