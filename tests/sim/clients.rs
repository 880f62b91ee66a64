//! The function's SDKs: clients of the relay, with every habit that clients have.

use pyroscope_lambda_extension::contract::{ConnId, End};
use std::io::ErrorKind;

use super::chance::Chance;
use super::holds::NEWCOMER;
use super::ledger::{Fate, Payload, SLACK};
use super::profiles::{Form, MS, SECOND, Sdk, Upload};
use super::world::{Happening, Who, World};

/// One connection's requests, and how far they have come.
pub struct Client {
    id: Option<ConnId>,
    stream: Vec<u8>,
    given: usize,
    /// Bytes of the stream that the core has read.
    taken: usize,
    requests: Vec<Request>,
    heads_seen: usize,
    /// In the middle of a body, to a new client.
    gave_way: bool,
    said: Vec<u8>,
    answers: usize,
    manner: Manner,
    over: bool,
    refused: bool,
    /// When it connected, and when it last read or wrote, by the monotonic clock.
    accepted: u64,
    heard: u64,
}

struct Request {
    payload: usize,
    head_end: usize,
    end: usize,
    body: usize,
    expects: bool,
    closes: bool,
}

struct Manner {
    /// Most bytes sent at once, and most time between.
    piece: usize,
    pause: u64,
    /// From connecting to the first piece.
    hesitates: u64,
    /// Sends the next request only when the last is answered.
    waits: bool,
    /// Reads its answers late and little by little.
    reads_slowly: bool,
    ending: Ending,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Closes some time after the last answer.
    Close,
    Reset,
    /// Closes its side right behind its last request.
    HalfClose,
    /// Breaks off after so many bytes: by closing, by a reset, or by doing nothing any more.
    BreakOff(usize, Option<End>),
}

/// How long a client may be silent in its upload while the next event is held back for it.
const UPLOAD_SILENCE_MAX: u64 = 1_000_000;

/// Pieces in which everything a client has to say is sent: the slowest takes less than a minute.
const PIECES_MAX: usize = 100;

/// Most local connections.
const INLETS_MAX: usize = 64;

/// A head, and what is rounded up to pages.
const PAGES: usize = 9000;

/// What the ring needs beside a body: the head, and whole pages.
const OVERHEAD_MAX: usize = 12_000;

impl Client {
    /// Where the last request ends that was answered.
    fn whole(&self) -> usize {
        let last = self.answers.checked_sub(1);
        last.map_or(0, |at| self.requests[at].end)
    }

    pub const fn is_open(&self) -> bool {
        self.id.is_some()
    }
}

impl World {
    /// A client will come some time within `within`.
    pub fn client_comes(&mut self, within: u64) {
        let after = self.chance.below(within + 1);
        let at = self.clients.len();
        let crowd = self.chance.one_in(150);
        let requests = match self.chance.below(8) {
            0 => self.chance.between(2, 12),
            1 => self.chance.between(2, 4),
            2 if self.chance.one_in(6) => self.chance.between(30, 100),
            _ => 1,
        };
        let client = self.client(requests as usize, requests > 20, None);
        self.clients.push(client);
        self.clock.inside(after, Happening::Client(at));
        if self.chance.one_in(40) {
            self.java_catches_up();
        }
        if crowd {
            self.note("crowd");
            self.crowd_comes(70, false, after);
        }
    }

    /// So many at once, with one upload each.
    pub fn crowd_comes(&mut self, count: u64, small: bool, after: u64) {
        for _ in 0..count {
            let at = self.clients.len();
            let client = self.client(1, small, None);
            self.clients.push(client);
            self.clock.inside(after, Happening::Client(at));
        }
    }

    /// Java's SDK makes up for each interval that it missed: all of them begin and end in this second, or the next.
    pub fn java_catches_up(&mut self) {
        let at = self.clients.len();
        // With more in one go, the core would wait for its answers to be read before it takes the rest.
        let count = self.chance.between(2, 26);
        let second = self.now().unix_ms / 1000;
        let mut client = self.client(count as usize, true, Some(second));
        client.manner.reads_slowly = false;
        self.clients.push(client);
        let after = self.chance.any_scale(100_000);
        self.clock.inside(after, Happening::Client(at));
    }

    /// `second`: what all its uploads begin and end in, if it is Java's SDK that catches up.
    fn client(&mut self, count: usize, small: bool, mut second: Option<u64>) -> Client {
        let (mut stream, mut requests) = (Vec::new(), Vec::new());
        let unit = self.chance.pick(&[SECOND, MS, 1]);
        let first = self.ledger.payloads.len();
        for number in 0..count {
            let last = number + 1 == count;
            let upload = match second {
                Some(second) => Some(empty(first, second)),
                None if small => None,
                None => self.upload(unit),
            };
            if self.chance.one_in(20) {
                second = second.map(|second| second + 1);
            }
            requests.push(self.request(&mut stream, upload, small, last));
        }
        let long = stream.len() > 4000;
        let manner = Manner {
            piece: self
                .chance
                .pick(if long {
                    &[5000, 60_000, usize::MAX][..]
                } else {
                    &[1, 7, 100, usize::MAX, usize::MAX]
                })
                .max(stream.len() / PIECES_MAX),
            pause: self.chance.pick(&[0, 0, 100, 3000, 50_000, 400_000]),
            hesitates: if self.chance.one_in(5) {
                self.chance.any_scale(400_000)
            } else {
                0
            },
            waits: count < 20 && self.chance.one_in(3),
            reads_slowly: self.chance.one_in(if count > 20 { 1 } else { 12 }),
            ending: ending(&mut self.chance, stream.len()),
        };
        Client {
            id: None,
            stream,
            given: 0,
            taken: 0,
            requests,
            heads_seen: 0,
            gave_way: false,
            said: Vec::new(),
            answers: 0,
            manner,
            over: false,
            refused: false,
            accepted: 0,
            heard: 0,
        }
    }

    /// What an SDK uploads next, if it is one that writes times.
    fn upload(&mut self, unit: u64) -> Option<Upload> {
        let sdk = Sdk {
            unit,
            now: self.now().unix_ms * MS + self.chance.below(MS),
            thaw: self.last_thaw(),
            large: (self.set.bytes_max as u64 / 4).min(40_000),
        };
        let number = self.ledger.payloads.len();
        let writes_times = self.chance.one_in(2);
        writes_times.then(|| sdk.uploads(&mut self.chance, number))
    }

    /// One more request, and what the server must see of it.
    fn request(
        &mut self,
        stream: &mut Vec<u8>,
        upload: Option<Upload>,
        small: bool,
        last: bool,
    ) -> Request {
        let number = self.ledger.payloads.len();
        let max = self.set.bytes_max as u64;
        let length = match self.chance.below(12) {
            _ if small => self.chance.below(20),
            0 => self.chance.below(3),
            1 => self.chance.between(max * 3 / 4, max * 5 / 4).min(400_000),
            2..4 => self.chance.any_scale(max / 2).min(150_000),
            _ => self.chance.any_scale(3000),
        };
        let method = self
            .chance
            .pick(&["POST", "POST", "POST", "POST", "PUT", "GET", "HEAD"]);
        let method = upload.as_ref().map_or(method, |_| "POST");
        let bare = matches!(method, "GET" | "HEAD");
        let upload = upload.unwrap_or_else(|| Upload {
            form: Form::Bytes,
            target: format!("/ingest/{number}?from=1"),
            body: bytes(number, if bare { 0 } else { length as usize }),
        });
        let Upload { target, body, form } = upload;
        let length = body.len();
        let chunked = !bare && self.chance.one_in(3);
        let expects = length > 0 && self.chance.one_in(8);
        let closes = last && self.chance.one_in(2);

        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost:4040\r\n");
        head.push_str(if closes { "Connection: close\r\n" } else { "" });
        head.push_str(if expects {
            "Expect: 100-continue\r\n"
        } else {
            ""
        });
        head.push_str(&format!("X-Number: {number}\r\n"));
        match (bare, chunked) {
            (true, _) => {}
            (_, true) => head.push_str("Transfer-Encoding: chunked\r\n"),
            (_, false) => head.push_str(&format!("Content-Length: {length}\r\n")),
        }
        stream.extend_from_slice(head.as_bytes());
        stream.extend_from_slice(b"\r\n");
        let head_end = stream.len();
        if chunked {
            self.chunks(stream, &body);
        } else {
            stream.extend_from_slice(&body);
        }
        let line = format!("{method} {target}");
        let mut payload = Payload::new(number, &line, self.server_host(), &body);
        payload.times.form = form;
        payload.times.empty = is_empty(&target).then_some(target);
        payload.room_most = room_most(length, chunked);
        payload.poison = self.chance.one_in(40);
        self.ledger.payloads.push(payload);
        Request {
            payload: number,
            head_end,
            end: stream.len(),
            body: length,
            expects,
            closes,
        }
    }

    fn chunks(&mut self, stream: &mut Vec<u8>, body: &[u8]) {
        let mut rest = body;
        let most = self
            .chance
            .pick(&[3, 500, 70_000, 70_000])
            .max(body.len() as u64 / 50);
        while !rest.is_empty() {
            let n = self.chance.between(1, most.min(rest.len() as u64)) as usize;
            stream.extend_from_slice(format!("{n:x}\r\n").as_bytes());
            stream.extend_from_slice(&rest[..n]);
            stream.extend_from_slice(b"\r\n");
            rest = &rest[n..];
        }
        stream.extend_from_slice(b"0\r\n\r\n");
    }

    /// Connects, sends a piece, or ends.
    pub fn client_moves(&mut self, at: usize) {
        if self.clients[at].over {
            return;
        }
        if self.clients[at].id.is_none() {
            self.client_connects(at);
            let hesitates = self.clients[at].manner.hesitates;
            if hesitates > 0 {
                return self.clock.inside(hesitates, Happening::Client(at));
            }
        }
        let Some(id) = self.clients[at].id else {
            return;
        };
        let client = &mut self.clients[at];
        let mut most = match client.manner.ending {
            Ending::BreakOff(most, _) => most,
            _ => client.stream.len(),
        };
        if client.manner.waits
            && let Some(next) = client.requests.get(client.answers)
        {
            most = most.min(next.end);
        }
        if client.given < most {
            let n = (most - client.given).min(client.manner.piece);
            let piece = client.stream[client.given..client.given + n].to_vec();
            client.given += n;
            let pause = self.chance.below(client.manner.pause + 1);
            self.clock.inside(0, Happening::Arrive(id, piece));
            self.clock.inside(pause, Happening::Client(at));
            return;
        }
        let heard = client.answers == client.requests.len() || client.refused;
        let end = match client.manner.ending {
            Ending::BreakOff(most, end) if client.given >= most => {
                client.over = true;
                if end.is_none() {
                    return self.note("client frozen in its request");
                }
                end
            }
            Ending::HalfClose if client.given == client.stream.len() => Some(End::Eof),
            Ending::Close if heard => Some(End::Eof),
            Ending::Reset if heard => Some(End::Io(ErrorKind::ConnectionReset)),
            _ => return,
        };
        client.over = true;
        let pause = self.chance.pick(&[0, 1000, 2_000_000]);
        if let Some(end) = end {
            self.clock.inside(pause, Happening::Cut(id, end));
        }
    }

    fn client_connects(&mut self, at: usize) {
        let open = self.clients.iter().filter(|client| client.is_open());
        if open.count() >= INLETS_MAX {
            self.crowding += 1;
        }
        let id = self.relay.accepted(self.clock.now());
        self.notice_who_gave_way();
        self.open(id, Who::Client(at), false);
        self.tell(|| format!("client {at} connects as {id:?}"));
        self.clients[at].id = Some(id);
        self.clients[at].accepted = self.clock.mono();
        if self.clients[at].manner.reads_slowly {
            self.wires.get_mut(&id).unwrap().room = 30;
        }
    }

    /// A client that gives way to a new one is gone at once, though its connection is closed a little later.
    fn notice_who_gave_way(&mut self) {
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            let in_body = client.answers < client.heads_seen && !client.refused && !client.gave_way;
            let gone = |id| !self.relay.wants(id) && self.relay.pending(id).concat().is_empty();
            if in_body && client.id.is_some_and(gone) {
                self.clients[at].gave_way = true;
                self.times_broke_off(true);
            }
        }
    }

    /// The core has read `n` more bytes of its requests.
    pub fn client_was_read(&mut self, at: usize, n: usize) {
        self.read_clients.push(at);
        let now = self.clock.mono();
        let client = &mut self.clients[at];
        client.taken += n;
        client.heard = now;
        let mut come = Vec::new();
        let known = !client.manner.reads_slowly;
        while let Some(request) = client.requests.get(client.heads_seen)
            && request.head_end <= client.taken
            && !client.refused
        {
            client.heads_seen += 1;
            self.ledger.head_came(request.payload, known);
            if known {
                come.push(request.payload);
            }
        }
        for payload in come {
            self.times_come(payload);
        }
        // The answer is there at once, written or not: whatever the server does.
        let id = self.clients[at].id.unwrap();
        let pending = self.relay.pending(id)[0].to_vec();
        self.client_is_answered(at, &pending);
    }

    /// Bytes reach the client.
    pub fn client_hears(&mut self, at: usize, bytes: &[u8]) {
        let now = self.clock.mono();
        let client = &mut self.clients[at];
        client.said.extend_from_slice(bytes);
        client.heard = now;
        let answers = client.answers;
        let id = client.id.unwrap();
        let rest = self.relay.pending(id)[0].to_vec();
        self.client_is_answered(at, &rest);
        let slow = self.clients[at].manner.reads_slowly;
        let wire = &self.wires[&id];
        if slow && wire.room == 0 {
            let (pause, more) = (self.chance.below(300_000), self.chance.between(1, 400));
            self.clock.inside(pause, Happening::Room(id, more as usize));
        }
        if self.clients[at].answers > answers || self.clients[at].answers > 0 {
            self.clock
                .inside(self.chance.below(2000), Happening::Client(at));
        }
    }

    /// What the client has heard, with what is still to be written: as many answers as it knows requests to be
    /// complete. Counts them.
    fn client_is_answered(&mut self, at: usize, pending: &[u8]) {
        let client = &self.clients[at];
        let said = [&client.said[..], pending].concat();
        let (statuses, rest) = statuses(&said);
        if !rest.is_empty() {
            let text = String::from_utf8_lossy(rest).into_owned();
            self.fail(format!("client {at} hears {text:?}"));
        }
        for status in statuses.into_iter().skip(client.answers) {
            let client = &mut self.clients[at];
            let Some(request) = client.requests.get(client.answers) else {
                self.fail(format!("client {at} is answered what it did not ask"));
            };
            let (payload, body, end) = (request.payload, request.body, request.end);
            let whole = client.taken >= end;
            client.answers += 1;
            match status {
                200 if whole => {
                    let fits = body <= self.set.bytes_max || !self.set.usable;
                    self.require(fits, "a body larger than the ring is taken");
                    self.acknowledged(payload);
                }
                413 => {
                    client.refused = true;
                    self.ledger.payloads[payload].dropped = true;
                    let large = body + OVERHEAD_MAX > self.set.bytes_max;
                    self.require(large && self.set.usable, "413 for a body that fits");
                    self.note("413");
                }
                _ => self.fail(format!(
                    "client {at} hears {status}, whole request: {whole}"
                )),
            }
        }
    }

    /// The client ends its side, or breaks off.
    pub fn client_ends(&mut self, at: usize, id: ConnId, end: End) {
        self.drops_rest(at);
        let client = &self.clients[at];
        let in_body = client.answers < client.heads_seen;
        if in_body {
            self.note("client broke off in its body");
        }
        let gets_answers = end == End::Eof && !self.relay.pending(id)[0].is_empty();
        self.times_broke_off(in_body && !gets_answers);
        if end == End::Eof
            && client_owes_nothing(&self.clients[at])
            && !self.relay.pending(id)[0].is_empty()
        {
            self.note("half-closed client waits for its answer");
        }
        if end != End::Eof {
            self.clients[at].id = None;
            self.clients[at].over = true;
        }
    }

    /// The core closed its side, and listens on.
    pub fn half_closed(&mut self, id: ConnId) {
        let Some(Who::Client(at)) = self.wires.get(&id).map(|wire| wire.who) else {
            self.fail("half-closes what is no client");
        };
        let client = &self.clients[at];
        let last = client.requests.get(client.answers.wrapping_sub(1));
        let due = client.refused || last.is_some_and(|request| request.closes);
        self.require(due, "a client is cut off");
        self.note("half-closed behind the last answer");
        // Most clients close then; some never do.
        if !self.chance.one_in(4) {
            self.clients[at].over = true;
            let pause = self.chance.below(50_000);
            self.clock.inside(pause, Happening::Cut(id, End::Eof));
        }
    }

    /// The core closed the connection.
    pub fn client_closed(&mut self, at: usize, _id: ConnId) {
        self.drops_rest(at);
        let client = &self.clients[at];
        let in_body = client.answers < client.heads_seen && !client.refused;
        self.times_broke_off(in_body && !client.gave_way);
        let client = &mut self.clients[at];
        client.id = None;
        let ended = client.over
            || client.refused
            || client.answers == client.requests.len() && client.requests.iter().any(|r| r.closes);
        client.over = true;
        if !ended {
            self.require(self.crowding > 0, "a client is closed without a reason");
            self.crowding -= 1;
            self.note("client gave way");
        }
    }

    /// Frozen time is nobody's silence.
    pub fn clients_thaw(&mut self, frozen: u64) {
        for client in &mut self.clients {
            client.accepted += frozen;
            client.heard += frozen;
        }
    }

    /// When the last upload that is half read is not waited for any more.
    pub fn uploads_until(&self) -> u64 {
        let reading =
            |client: &&Client| client.is_open() && !client.refused && client.taken > client.whole();
        let heard = self
            .clients
            .iter()
            .filter(reading)
            .map(|client| client.heard);
        heard.max().map_or(0, |heard| heard + UPLOAD_SILENCE_MAX)
    }

    /// What a client has not sent to its end it will never send.
    fn drops_rest(&mut self, at: usize) {
        for request in self.clients[at]
            .requests
            .iter()
            .skip(self.clients[at].answers)
        {
            self.ledger.payloads[request.payload].dropped = true;
        }
    }

    /// Whether some client may be in the middle of a request, and not silent for long. `before`: one surely is, with
    /// a head that came before that place.
    pub fn uploads(&self, before: Option<u64>) -> bool {
        let now = self.clock.mono();
        self.clients.iter().any(|client| {
            let speaks = client.is_open() && !client.refused;
            let until = client.heard + UPLOAD_SILENCE_MAX;
            let Some(mark) = before else {
                return speaks && client.taken > client.whole() && now <= until + SLACK;
            };
            let next = client.requests.get(client.answers);
            let payload = next.map(|request| &self.ledger.payloads[request.payload]);
            let early = |place: Option<u64>| place.is_some_and(|place| place < mark);
            let counts =
                |own: &Payload| own.is_half_read() && !own.times.left_out && early(own.place);
            let half = payload.is_some_and(counts);
            speaks && half && now + SLACK < until && !client.over
        })
    }

    /// Whether no client is surely to be waited for: each has its answers, and is in no request.
    pub fn clients_are_idle(&mut self) -> bool {
        let now = self.clock.mono();
        (0..self.clients.len()).all(|at| {
            let client = &self.clients[at];
            let Some(id) = client.id else {
                return true;
            };
            let old = client.taken > 0 || now > client.accepted + NEWCOMER + SLACK;
            old && client.taken == client.whole() && self.relay.pending(id)[0].is_empty()
        })
    }

    /// Whether a client has come just now, and its request may follow; or it is in the middle of one.
    pub fn is_newcomer_waiting(&self) -> bool {
        let now = self.clock.mono();
        self.clients.iter().any(|client| {
            let live = client.id.is_some_and(|id| self.wires.contains_key(&id));
            live && client.taken == 0 && now + SLACK < client.accepted + NEWCOMER
        })
    }

    /// There are not too many clients, and every whole request is answered at once.
    pub fn check_clients(&mut self) {
        let open = self
            .wires
            .values()
            .filter(|wire| matches!(wire.who, Who::Client(_)));
        self.require(open.count() <= INLETS_MAX, "too many clients");
        for at in std::mem::take(&mut self.read_clients) {
            let client = &self.clients[at];
            if client.id.is_none() || client.refused || client.manner.reads_slowly {
                continue;
            }
            let whole = client
                .requests
                .iter()
                .filter(|request| request.end <= client.taken);
            let (whole, answers) = (whole.count(), client.answers);
            if whole != answers {
                self.fail(format!("client {at}: {whole} requests, {answers} answers"));
            }
            if client.requests.iter().any(|request| request.expects) {
                self.note("Expect: 100-continue");
            }
        }
    }
}

impl Payload {
    /// Its head has come, and the rest of it has not.
    pub fn is_half_read(&self) -> bool {
        self.came && self.fate == Fate::Open && !self.dropped
    }

    fn new(number: usize, line: &str, host: &str, body: &[u8]) -> Self {
        let method = line.split(' ').next().unwrap_or_default();
        let length = if method == "GET" || method == "HEAD" {
            String::new()
        } else {
            format!("Content-Length: {}\r\n", body.len())
        };
        let head = format!(
            "{line} HTTP/1.1\r\nHost: {host}\r\nX-Number: {number}\r\nX-Forwarded-Host: localhost:4040\r\n{length}\r\n"
        );
        Self::of([head.as_bytes(), body].concat(), method == "HEAD")
    }
}

/// A body that says nothing.
fn bytes(number: usize, length: usize) -> Vec<u8> {
    let mut contents = Chance::new(number as u64);
    let mut body = Vec::with_capacity(length + 8);
    while body.len() < length {
        body.extend_from_slice(&contents.draw().to_le_bytes());
    }
    body.truncate(length);
    body
}

/// A profile that begins and ends in that second.
fn empty(first: usize, second: u64) -> Upload {
    Upload {
        form: Form::Query,
        target: format!("/p{first}/ingest?format=jfr&from={second}&until={second}"),
        body: b"recording".to_vec(),
    }
}

fn is_empty(target: &str) -> bool {
    let value = |name: &str| {
        target
            .split(['?', '&'])
            .find_map(|one| one.strip_prefix(name))
    };
    value("from=").is_some() && value("from=") == value("until=")
}

/// Most room that the ring may take for a body: in pages, in a buffer that was four times as large as needed to
/// begin with, or grows by doubling.
const fn room_most(body: usize, chunked: bool) -> usize {
    let (first, last) = if chunked {
        (16 << 10, body * 2)
    } else {
        (if body < 64 << 10 { body } else { 64 << 10 }, body)
    };
    let first = 4 * (first + PAGES);
    let last = last + PAGES;
    if first > last { first } else { last }
}

fn client_owes_nothing(client: &Client) -> bool {
    client.taken == client.stream.len()
}

fn ending(chance: &mut Chance, length: usize) -> Ending {
    let at = chance.below(length as u64) as usize;
    match chance.below(12) {
        0 => Ending::BreakOff(at, Some(End::Eof)),
        1 => Ending::BreakOff(at, Some(End::Io(ErrorKind::ConnectionReset))),
        2 => Ending::BreakOff(at, None),
        3 | 4 => Ending::HalfClose,
        5 => Ending::Reset,
        _ => Ending::Close,
    }
}

/// The final statuses in what a client was told, and what makes no sense behind them.
fn statuses(mut said: &[u8]) -> (Vec<u16>, &[u8]) {
    let mut found = Vec::new();
    while let Some(end) = said.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
        let Some(status) = std::str::from_utf8(&said[..end])
            .ok()
            .and_then(|head| head.strip_prefix("HTTP/1.1 "))
            .and_then(|head| head.get(..3)?.parse().ok())
        else {
            return (found, said);
        };
        if status != 100 {
            found.push(status);
        }
        said = &said[end + 4..];
    }
    (found, said)
}
