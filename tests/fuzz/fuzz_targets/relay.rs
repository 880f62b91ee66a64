//! The whole core: the input is a play of facts, in any order that a shell could report them, under a made-up
//! clock. Clients, the server, Lambda and the name server say what the input says, the well-formed and the rest.
//!
//! After every fact: no more 200s than payloads in the account, no more relayed than the server took, the ring
//! within its bytes, the next deadline ahead, no secret in the log. Every request that reaches the server is
//! well-formed, and its body one that a client was told is safe. At the end the relay leaves in the time it has,
//! and the account is square. That every change of the ring keeps the account is asserted in the ring itself.
#![no_main]

#[path = "../../support/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use pyroscope_lambda_extension::contract::{ConnId, End, Peer};
use world::{World, draw_anew};

const LAMBDA: &str = "10.0.0.9:9001";
const TOKEN: &str = "a-token-nobody-may-see";

/// Sizes of well-formed uploads: none, small, what needs a ring of its own, too much.
const SIZES: [usize; 8] = [0, 1, 10, 1000, 5000, 17_000, 50_000, 70_000];

const STATUSES: [u16; 16] = [
    200, 204, 299, 301, 400, 401, 408, 413, 422, 425, 429, 500, 503, 520, 529, 599,
];

/// What an answer's body says: nothing; what nobody may see; that there is enough for today, or for ever; nonsense.
const WORDS: [&str; 6] = [
    "",
    TOKEN,
    "limit of 1/day reached, next reset at 2027-01-15T08:00:07Z",
    "pushing failed: limit of 1/day reached, next reset at 9999-12-31T23:59:60+23:59",
    "limit of 1/day reached, next reset at 2027-02-31T",
    "next reset at next reset at 0000-00-00T00:00:00Z",
];

const ENDS: [End; 4] = [
    End::Eof,
    End::Io(ErrorKind::ConnectionReset),
    End::Io(ErrorKind::BrokenPipe),
    End::Io(ErrorKind::ConnectionRefused),
];

fuzz_target!(|input: &[u8]| {
    let mut script = Script(input);
    let mut play = Play::new(script.byte());
    while !script.0.is_empty() && play.world.exit.is_none() {
        play.scene(&mut script);
        play.check();
    }
    play.end();
});

/// What is left of the input; zeros when nothing is.
struct Script<'i>(&'i [u8]);

impl<'i> Script<'i> {
    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        first
    }

    fn pick(&mut self, from: usize) -> usize {
        usize::from(self.byte()) % from.max(1)
    }

    fn bytes(&mut self) -> &'i [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// How many bytes come at once.
    fn step(&mut self) -> usize {
        [usize::MAX, 1, 7, 1460][self.pick(4)]
    }
}

struct Play {
    world: World,
    clients: Vec<ConnId>,
    servers: Vec<ConnId>,
    lambdas: Vec<ConnId>,
    /// Connections on which Lambda delivers telemetry.
    deliveries: Vec<ConnId>,
    /// Bytes written on each server connection that are no whole request yet.
    unread: BTreeMap<ConnId, Vec<u8>>,
    /// Bodies of well-formed uploads, by number, that were offered whole.
    offered: BTreeSet<Vec<u8>>,
    uploads: u32,
    /// 200s seen by clients.
    promised: u64,
    /// 2xx said by the server.
    taken: u64,
    /// Whether clients, or the server, said what this play did not write itself.
    wild_clients: bool,
    wild_server: bool,
    log: String,
}

impl Play {
    fn new(settings: u8) -> Self {
        let flag = |bit: u8| {
            if settings >> bit & 1 == 1 {
                "true"
            } else {
                "false"
            }
        };
        let workers = if settings >> 6 == 3 { "1" } else { "3" };
        let server = if settings >> 4 & 1 == 1 {
            "http://server.example:4040/base"
        } else {
            "http://10.0.0.1:4040"
        };
        draw_anew();
        let world = World::new(&[
            ("PYROSCOPE_DEV_MODE", flag(0)),
            ("PYROSCOPE_FLUSH_ON_INVOKE", flag(1)),
            (
                "PYROSCOPE_FLUSH_MODE",
                if flag(5) == "true" { "end" } else { "" },
            ),
            ("PYROSCOPE_SELF_PROFILING", flag(2)),
            (
                "PYROSCOPE_BUFFER_BYTES",
                if flag(3) == "true" {
                    "8388608"
                } else {
                    "65536"
                },
            ),
            ("PYROSCOPE_REMOTE_ADDRESS", server),
            ("PYROSCOPE_NUM_WORKERS", workers),
            ("PYROSCOPE_AUTH_TOKEN", TOKEN),
            ("PYROSCOPE_LOG_LEVEL", "trace"),
            ("AWS_LAMBDA_RUNTIME_API", LAMBDA),
        ]);
        Self {
            world,
            clients: Vec::new(),
            servers: Vec::new(),
            lambdas: Vec::new(),
            deliveries: Vec::new(),
            unread: BTreeMap::new(),
            offered: BTreeSet::new(),
            uploads: 0,
            promised: 0,
            taken: 0,
            wild_clients: false,
            wild_server: flag(2) == "true", // a profile of itself is no upload
            log: String::new(),
        }
    }

    /// One fact, or a few that go together.
    fn scene(&mut self, script: &mut Script) {
        match script.byte() % 20 {
            0 => {
                let id = self.world.client();
                self.clients.push(id);
                self.world.settle();
            }
            1 => self.upload(script, false),
            2 => self.upload(script, true),
            3 => self.client_speaks(script),
            4 => self.hang_up(script, |play| &play.clients),
            5 => self.connect(script),
            6 => self.refuse(script),
            7 | 8 => self.server_answers(script),
            9 => self.server_speaks(script),
            10 => self.hang_up(script, |play| &play.servers),
            11 => {
                let ms = u64::from(script.byte()) << script.pick(10);
                self.world.pass(Duration::from_millis(ms));
            }
            12 => {
                if self.world.asleep_for().is_some() {
                    self.world.pass_to_deadline();
                }
            }
            13 => {
                let frozen = Duration::from_secs(u64::from(script.byte()) << script.pick(12));
                self.world.now.mono += frozen;
                self.world.now.unix_ms += frozen.as_millis() as u64;
                self.world.relay.thawed(frozen, self.world.now);
                self.world.pass(Duration::ZERO);
            }
            14 => self.resolve(script),
            15 => self.lambda_speaks(script),
            16 => self.read_slowly(script),
            17 => self.telemetry_speaks(script),
            18 => {
                let id = self.world.relay.telemetry_accepted();
                self.world.written.insert(id, Vec::new());
                self.deliveries.push(id);
                self.world.settle();
            }
            _ if script.byte() == 0 => {
                self.world.relay.terminated(self.world.now);
                self.world.settle();
            }
            _ => self.hang_up(script, |play| &play.lambdas),
        }
    }

    fn client(&mut self, script: &mut Script) -> Option<ConnId> {
        self.clients
            .retain(|id| self.world.written.contains_key(id));
        let at = script.pick(self.clients.len());
        self.clients.get(at).copied()
    }

    fn server(&mut self, script: &mut Script) -> Option<ConnId> {
        self.servers
            .retain(|id| self.world.written.contains_key(id));
        let at = script.pick(self.servers.len());
        self.servers.get(at).copied()
    }

    fn upload(&mut self, script: &mut Script, chunked: bool) {
        let Some(id) = self.client(script) else {
            return;
        };
        self.uploads += 1;
        let mut body = format!("upload {}.", self.uploads).into_bytes();
        body.resize(SIZES[script.pick(SIZES.len())], b'x');
        let mut wire = b"POST /ingest?name=app{a=b} HTTP/1.1\r\nHost: localhost:4040\r\n".to_vec();
        if chunked {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(16_384) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        } else {
            wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            wire.extend_from_slice(&body);
        }
        // Known before it is whole: in the turn of its last byte it may be on its way.
        self.offered.insert(body.clone());
        let step = script.step().max(wire.len() / 200);
        let taken = self.world.offer(id, &wire, step);
        if taken < wire.len() {
            // What follows on this connection is the rest of a body to the relay.
            self.wild_clients = true;
        }
    }

    fn client_speaks(&mut self, script: &mut Script) {
        if let Some(id) = self.client(script) {
            self.wild_clients = true;
            let step = script.step();
            self.world.offer(id, script.bytes(), step);
        }
    }

    fn hang_up(&mut self, script: &mut Script, among: impl Fn(&Self) -> &Vec<ConnId>) {
        let at = script.pick(among(self).len());
        let Some(&id) = among(self).get(at) else {
            return;
        };
        if self.world.written.contains_key(&id) {
            self.read();
            self.world.close(id, ENDS[script.pick(3)]);
        }
    }

    fn connect(&mut self, script: &mut Script) {
        let at = script.pick(self.world.connecting.len());
        if at < self.world.connecting.len() {
            let asked = self.world.connecting.remove(at);
            self.world.connecting.push(asked);
            let id = self.world.connect();
            if asked.1 == lambda() {
                self.lambdas.push(id);
            } else {
                self.servers.push(id);
            }
        }
    }

    fn refuse(&mut self, script: &mut Script) {
        let at = script.pick(self.world.connecting.len());
        if at < self.world.connecting.len() {
            let (id, _) = self.world.connecting.remove(at);
            self.world.close(id, ENDS[3]);
        }
    }

    fn server_answers(&mut self, script: &mut Script) {
        let status = STATUSES[script.pick(STATUSES.len())];
        let body = WORDS[script.pick(WORDS.len())];
        let (step, keep) = (script.step(), script.byte());
        let Some(id) = self.server(script) else {
            return;
        };
        let field = match keep % 4 {
            0 => "Connection: close\r\n",
            1 => "Retry-After: 3\r\n",
            2 => "Retry-After: 99999999999999999999\r\n",
            _ => "",
        };
        let (field, body) = if status == 204 {
            ("", "")
        } else {
            (field, body)
        };
        let length = match status {
            204 => String::new(),
            _ => format!("Content-Length: {}\r\n", body.len()),
        };
        self.taken += u64::from(status / 100 == 2);
        let answer = format!("HTTP/1.1 {status} X\r\n{field}{length}\r\n{body}");
        self.world.offer(id, answer.as_bytes(), step);
    }

    fn server_speaks(&mut self, script: &mut Script) {
        if let Some(id) = self.server(script) {
            self.wild_server = true;
            let step = script.step();
            self.world.offer(id, script.bytes(), step);
        }
    }

    fn resolve(&mut self, script: &mut Script) {
        let Some((peer, _)) = self.world.resolving.pop() else {
            return;
        };
        let found: Vec<SocketAddr> = match peer {
            Peer::Lambda => vec![lambda()],
            Peer::Remote | Peer::Store => vec![
                address("10.0.0.1:4040"),
                address("10.0.0.2:4040"),
                address("[fd00::1]:4040"),
            ],
        };
        let answer = match script.pick(5) {
            0 => Err("no such host".to_owned()),
            n => Ok(found[..(n - 1).min(found.len())].to_vec()),
        };
        self.world.relay.resolved(peer, answer, self.world.now);
        self.world.settle();
    }

    fn lambda_speaks(&mut self, script: &mut Script) {
        self.lambdas
            .retain(|id| self.world.written.contains_key(id));
        let at = script.pick(self.lambdas.len());
        let Some(&id) = self.lambdas.get(at) else {
            return;
        };
        let deadline = self.world.now.unix_ms + (u64::from(script.byte()) << 5);
        let event = match script.pick(5) {
            0 | 1 => format!(
                r#"{{"eventType":"INVOKE","deadlineMs":{deadline},"requestId":"a-request"}}"#
            ),
            2 => format!(
                r#"{{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":{deadline}}}"#
            ),
            3 => String::from_utf8_lossy(script.bytes()).into_owned(),
            _ => {
                self.world.offer(id, script.bytes(), usize::MAX);
                return;
            }
        };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nLambda-Extension-Identifier: an-id\r\nContent-Length: {}\r\n\r\n{event}",
            event.len()
        );
        self.world.offer(id, answer.as_bytes(), script.step());
    }

    fn telemetry_speaks(&mut self, script: &mut Script) {
        self.deliveries
            .retain(|id| self.world.written.contains_key(id));
        let at = script.pick(self.deliveries.len());
        let Some(&id) = self.deliveries.get(at) else {
            return;
        };
        let batch = match script.pick(5) {
            0 => {
                r#"[{"type":"platform.runtimeDone","record":{"requestId":"a-request"}}]"#.to_owned()
            }
            1 => r#"[{"type":"platform.start","record":{"requestId":"a-request"}}]"#.to_owned(),
            2 => String::from_utf8_lossy(script.bytes()).into_owned(),
            3 => r#"[{"type":"platform.logsDropped","record":{"droppedRecords":1}}]"#.to_owned(),
            _ => {
                self.world.offer(id, script.bytes(), usize::MAX);
                return;
            }
        };
        let request = format!(
            "POST / HTTP/1.1\r\nHost: sandbox:4041\r\nContent-Length: {}\r\n\r\n{batch}",
            batch.len()
        );
        self.world.offer(id, request.as_bytes(), script.step());
    }

    /// A peer that takes only so many bytes from now on, or all again.
    fn read_slowly(&mut self, script: &mut Script) {
        let open: Vec<ConnId> = self.world.written.keys().copied().collect();
        let Some(&id) = open.get(script.pick(open.len())) else {
            return;
        };
        match script.byte() {
            0 => drop(self.world.room.remove(&id)),
            room => drop(
                self.world
                    .room
                    .insert(id, usize::from(room) << script.pick(9)),
            ),
        }
        self.world.settle();
    }

    /// What clients and the server see.
    fn read(&mut self) {
        for id in &self.clients {
            if let Some(written) = self.world.written.get_mut(id) {
                let text = String::from_utf8_lossy(written);
                let whole = text.rfind("\r\n\r\n").map_or(0, |at| at + 4);
                let seen = text[..whole].matches("HTTP/1.1 200 OK\r\n").count();
                self.promised += seen as u64;
                written.drain(..whole);
            }
        }
        for id in &self.servers {
            if let Some(written) = self.world.written.get_mut(id) {
                let unread = self.unread.entry(*id).or_default();
                unread.append(written);
                while let Some(body) = take_request(unread) {
                    assert!(
                        self.wild_clients || self.wild_server || self.offered.contains(&body),
                        "a body that nobody sent"
                    );
                }
            }
        }
    }

    fn check(&mut self) {
        self.read();
        let totals = self.world.totals();
        assert!(
            self.promised <= totals.acknowledged,
            "a 200 without a payload"
        );
        assert!(
            self.wild_server || totals.relayed <= self.taken,
            "relayed, but nobody took it"
        );
        let done = totals.relayed + totals.lost_sum();
        assert!(done <= totals.acknowledged && totals.acknowledged <= done + 256);
        assert!(totals.high_water_bytes <= 8 << 20);
        if let Some(at) = self.world.relay.deadline(self.world.now) {
            assert!(at > self.world.now.mono, "a deadline that has passed");
        }
        let log = self.world.log();
        assert!(!log.contains(TOKEN), "the token is logged: {log}");
        self.log.push_str(&log);
    }

    /// The relay is asked to leave, and has two seconds.
    fn end(&mut self) {
        if self.world.exit.is_none() {
            self.world.room.clear();
            self.world.relay.terminated(self.world.now);
            self.world.settle();
        }
        let start = self.world.now.mono;
        for _ in 0..1000 {
            if self.world.exit.is_some() {
                break;
            }
            self.world.pass_to_deadline();
            self.check();
        }
        self.check();
        assert!(self.world.exit.is_some(), "it does not leave");
        assert!(self.world.now.mono - start <= Duration::from_secs(2));
        let totals = self.world.totals();
        assert_eq!(
            totals.acknowledged,
            totals.relayed + totals.lost_sum(),
            "the account at the end"
        );
        assert_eq!(self.log.matches("msg=\"Relay closed\"").count(), 1);
    }
}

/// Takes one whole request from the front; its body. Panics at what is not well-formed.
fn take_request(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.trim_end_matches("\r\n").split("\r\n");
    let request = lines.next()?;
    assert!(
        request.ends_with(" HTTP/1.1") && request.split(' ').count() == 3,
        "{request:?}"
    );
    let (mut hosts, mut length) = (0, None);
    for line in lines {
        assert!(
            !line.contains(['\r', '\n', '\0']) && !line.starts_with([' ', '\t']),
            "{line:?}"
        );
        let (name, value) = line.split_once(':').expect("a field has a colon");
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            "authorization" => assert_eq!(value, format!(" Bearer {TOKEN}")),
            "transfer-encoding" => panic!("a coding is relayed"),
            "content-length" => {
                let before = length.replace(value.trim().parse::<usize>().expect("a length"));
                assert_eq!(before, None, "two lengths");
            }
            _ => {}
        }
    }
    assert_eq!(hosts, 1);
    let whole = end + length.unwrap_or(0);
    (bytes.len() >= whole).then(|| {
        let body = bytes[end..whole].to_vec();
        bytes.drain(..whole);
        body
    })
}

fn lambda() -> SocketAddr {
    address(LAMBDA)
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a good address")
}
