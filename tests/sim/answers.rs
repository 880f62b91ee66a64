//! What the server does about a request, and what it says: every kind of answer, early, late, cut off, lost, or none.

use std::io::ErrorKind;

use pyroscope_lambda_extension::contract::{ConnId, End};

use super::chance::Chance;
use super::clock;
use super::weather::{Failure, PASSING, Weather};
use super::world::{Happening, World};

/// What the server does about a request.
pub struct Plan {
    /// After so many bytes of the request.
    pub at: usize,
    /// After so long.
    pub pause: u64,
    pub answer: Option<Answer>,
    /// So much of the answer is sent.
    pub cut: usize,
    pub end: Option<End>,
    /// Stops reading when it has so much.
    pub stops: Option<usize>,
}

#[derive(Debug)]
pub struct Answer {
    pub bytes: Vec<u8>,
    /// Where the final status line ends.
    pub line_end: usize,
    /// Where the final head ends, or what cannot be read becomes clear.
    pub head_end: usize,
    pub status: u16,
    pub retry_after: Option<u64>,
    pub keep_alive: bool,
    pub until_close: bool,
    pub garbage: bool,
    /// A success, with fields that cannot be read.
    pub odd: bool,
    /// Where the body's own words begin, and the words.
    words: (usize, String),
    /// Where in them the end of the day's limit has been said, and that end.
    reset: Option<(usize, u64)>,
}

/// What an answer means, as far as it has been heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    Refused,
    /// Another time, after so many seconds if that is said. No more today, if a time is said: in Unix seconds.
    Later {
        retry_after: Option<u64>,
        reset: Option<u64>,
    },
}

/// Bytes of a body that are looked at.
const WORDS_MAX: usize = 1024;

impl Answer {
    /// What it means if `heard` of its bytes were read: the head at least.
    pub fn verdict(&self, heard: usize) -> Verdict {
        let (at, words) = &self.words;
        let known = heard.saturating_sub(*at).min(words.len()).min(WORDS_MAX);
        let words = &words[..known];
        let reset = self.reset.filter(|(end, _)| known >= *end);
        let later = match self.status {
            200..=299 => return Verdict::Taken,
            429 => !words.contains("larger than configured"),
            422 => words.contains("pushing ") && !words.contains("invalid_argument"),
            status => PASSING.contains(&status),
        };
        if !later {
            return Verdict::Refused;
        }
        Verdict::Later {
            retry_after: self.retry_after,
            reset: reset.map(|(_, time)| time),
        }
    }
}

impl World {
    /// What the server will do about this request.
    pub fn server_plans(&mut self, payload: usize, whole: usize) -> Plan {
        let to_head = self.ledger.payloads[payload].to_head;
        let (weather, reset) = (self.server.sky.weather, self.server.sky.reset);
        let flaky = weather == Weather::Flaky;
        let poison = self.ledger.payloads[payload].poison && !self.good_for_ever;
        let chance = &mut self.chance;
        let mut plan = Plan {
            at: whole,
            pause: match weather {
                Weather::Flaky => chance.any_scale(4_000_000),
                Weather::HalfSecond if chance.one_in(2) => chance.between(300_000, 500_000),
                Weather::HalfSecond => chance.between(500_000, 1_000_000),
                _ => chance.any_scale(100_000),
            },
            answer: None,
            cut: usize::MAX,
            end: None,
            stops: None,
        };
        let end = End::Io(ErrorKind::ConnectionReset);
        let end = chance.pick(&[End::Eof, end]);
        let mut asks = None;
        let status = match weather {
            Weather::Failing(Failure::Mixed) => chance.pick(&PASSING),
            Weather::Failing(Failure::Always(status)) => status,
            Weather::Failing(Failure::Asks(status, seconds)) => {
                asks = Some(seconds);
                status
            }
            Weather::Limited => chance.pick(&[429, 429, 422]),
            Weather::Good | Weather::HalfSecond if poison => 500,
            Weather::Flaky => match flaky_status(chance, &mut plan, whole, end) {
                Some(status) => status,
                None => return plan,
            },
            _ => chance.pick(&[200, 200, 200, 204]),
        };
        let words = words(chance, status, reset);
        let mut answer = answer(chance, status, words, to_head, flaky, asks);
        let words = answer.words.1.trim_end_matches(['"', '}']).len();
        answer.reset = (reset > 0 && words > 0).then_some((words, reset));
        if answer.until_close || !answer.keep_alive && chance.one_in(2) {
            plan.end = Some(End::Eof);
        }
        if flaky && chance.one_in(5) {
            plan.cut = chance.below(answer.bytes.len() as u64) as usize;
            plan.end = chance.one_in(3).then_some(end);
        }
        plan.answer = Some(answer);
        plan
    }

    /// How much of a request is taken at once.
    pub fn server_room(&mut self, plan: &Plan) -> usize {
        match plan.stops {
            Some(most) => most,
            None if self.server.sky.weather != Weather::HalfSecond && self.chance.one_in(3) => {
                self.chance.any_scale(5000) as usize + 1
            }
            None => usize::MAX,
        }
    }

    /// The plan is carried out: what there is to be said is sent, in pieces.
    pub fn server_acts(&mut self, id: ConnId, bytes: &[u8], pause: u64, end: Option<End>) {
        let mut pause = pause;
        let piece = if bytes.len() > 1000 {
            30_000
        } else {
            self.chance.pick(&[1, 10, 1000, 1000])
        };
        let mut beat = self.chance.pick(&[0, 0, 100, 20_000]);
        if self.server.sky.weather == Weather::HalfSecond {
            beat = 0;
        }
        for piece in bytes.chunks(piece) {
            let piece = Happening::Arrive(id, piece.to_vec());
            self.clock.outside(pause, piece);
            pause += beat;
        }
        if let Some(end) = end {
            self.clock.outside(pause, Happening::Cut(id, end));
        }
    }
}

/// None where there is no answer.
fn flaky_status(chance: &mut Chance, plan: &mut Plan, whole: usize, end: End) -> Option<u16> {
    match chance.below(16) {
        // Taken or not, and never answered.
        0 => {
            plan.at = chance.between(1, whole as u64) as usize;
            plan.end = Some(end);
            None
        }
        // The answer is lost.
        1 => {
            plan.end = Some(end);
            None
        }
        2 => {
            plan.at = usize::MAX;
            let stops = chance.below(whole as u64) as usize;
            plan.stops = chance.one_in(2).then_some(stops);
            None
        }
        // An answer before the whole request is read.
        3 | 14 | 15 => {
            plan.at = chance.between(1, whole as u64) as usize;
            plan.stops = Some(plan.at);
            Some(chance.pick(&[200, 401, 413, 503]))
        }
        4..=6 => Some(chance.pick(&[400, 401, 403, 404, 413, 415, 422, 302])),
        7..=10 => Some(chance.pick(&PASSING)),
        _ => Some(chance.pick(&[200, 204])),
    }
}

/// What a body says.
fn words(chance: &mut Chance, status: u16, reset: u64) -> String {
    let limit = || {
        let time = clock::rfc3339(reset, reset % 3);
        format!("limit of 1/day reached, next reset at {time}")
    };
    match (status, chance.below(4)) {
        (422, _) if reset > 0 => format!("{{\"message\":\"pushing failed: {}\"}}", limit()),
        (429, _) if reset > 0 => limit(),
        (422, 0) => "pushing IngestInput-pprof failed resource_exhausted".to_owned(),
        (422, 1) => "pushing IngestInput-pprof failed invalid_argument: too old".to_owned(),
        (429, 0) if reset == 0 => "message size 9 is larger than configured max 8".to_owned(),
        _ => String::new(),
    }
}

fn answer(
    chance: &mut Chance,
    status: u16,
    words: String,
    to_head: bool,
    flaky: bool,
    asks: Option<u64>,
) -> Answer {
    let mut bytes = Vec::new();
    if chance.one_in(6) {
        for _ in 0..chance.between(1, 3) {
            bytes.extend_from_slice(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n");
        }
    }
    let garbage = flaky && chance.one_in(8);
    let keep_alive = !chance.one_in(4);
    let sometimes = matches!(status, 429 | 503) && flaky && chance.one_in(2);
    let retry_after = asks.or_else(|| sometimes.then(|| chance.pick(&[0, 0, 1, 3, 86_400])));
    let (mut body, mut until_close, mut words_at) = (Vec::new(), false, 0);
    let mut head = format!("HTTP/1.1 {status} Whatever\r\n");
    // A success is one, whatever comes with it.
    let odd = status / 100 == 2 && !garbage && chance.one_in(30);
    if odd {
        head.push_str("what is that\r\n");
    } else if garbage {
        head = chance
            .pick(&["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 999 X\r\n"])
            .to_owned();
    } else if status != 204 {
        let long = chance.one_in(20);
        let length = if long { 150_000 } else { chance.below(300) };
        let length = if words.is_empty() {
            length as usize
        } else {
            words.len()
        };
        let kind = chance.below(if to_head { 1 } else { 4 });
        if !to_head {
            body = if words.is_empty() {
                vec![b'x'; length]
            } else {
                words.clone().into_bytes()
            };
        }
        match kind {
            1 if length <= 300 => {
                head.push_str("Transfer-Encoding: chunked\r\n");
                let mut chunked = format!("{length:x}\r\n").into_bytes();
                words_at = chunked.len();
                chunked.append(&mut body);
                chunked.extend_from_slice(b"\r\n0\r\n\r\n");
                body = if length == 0 {
                    b"0\r\n\r\n".to_vec()
                } else {
                    chunked
                };
            }
            2 if words.is_empty() => until_close = true,
            _ => head.push_str(&format!("Content-Length: {length}\r\n")),
        }
    }
    if let Some(seconds) = retry_after {
        head.push_str(&format!("Retry-After: {seconds}\r\n"));
    }
    if !keep_alive {
        head.push_str("Connection: close\r\n");
    }
    let line_end = bytes.len() + head.find('\n').map_or(0, |at| at + 1);
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(b"\r\n");
    let head_end = bytes.len();
    bytes.append(&mut body);
    let words = if to_head || garbage {
        String::new()
    } else {
        words
    };
    Answer {
        bytes,
        line_end,
        head_end,
        status: if garbage { 0 } else { status },
        retry_after,
        keep_alive: keep_alive && !until_close && !odd,
        until_close,
        garbage,
        odd,
        words: (head_end + words_at, words),
        reset: None,
    }
}
