//! Does the framing of every message hold, however it is cut? Every case of `tests/framing/*.txt`, fed to the core
//! whole, byte by byte and cut at random; then mutations of all of them, of which no expectation is known but that
//! what is sent on is well-formed, and that cuts change nothing.

#[path = "support/world.rs"]
mod world;

use pyroscope_lambda_extension::config::Config;
use pyroscope_lambda_extension::contract::{ConnId, End};
use pyroscope_lambda_extension::http1::fields::{is_field_value, is_token};
use pyroscope_lambda_extension::relay::ring::LossReason;
use world::{OK, World};

/// How many mutations of each case are tried.
const MUTATIONS: usize = 25;

const RING: (&str, &str) = ("PYROSCOPE_BUFFER_BYTES", "1048576");

#[test]
fn requests_are_taken_or_refused_as_the_table_says() {
    let cases = Case::all(include_str!("framing/requests.txt"));
    assert!(cases.len() > 200, "{}", cases.len());
    for case in &cases {
        let expected = Expected::of(case);
        for cut in cuts(case) {
            let seen = serve(&case.wire, &cut);
            expected.check(case, &seen, &cut);
            seen.relayed.iter().for_each(|sent| well_formed(sent));
        }
    }
}

#[test]
fn answers_end_as_the_table_says() {
    let cases = Case::all(include_str!("framing/responses.txt"));
    assert!(cases.len() > 70, "{}", cases.len());
    for case in &cases {
        for cut in cuts(case) {
            let (outcome, log) = answer(case, &cut);
            let name = &case.name;
            assert_eq!(case.lines('='), [outcome], "{name}, cut {cut:?}: {log}");
            for excerpt in case.lines(':') {
                assert!(log.contains(&excerpt), "{name}: {excerpt} is not in {log}");
            }
        }
    }
}

/// No expectation is known of these, but what is sent on is one well-formed request for each 200.
#[test]
fn mutated_requests_send_on_nothing_malformed() {
    let mut random = Random(0x5eed);
    let (mut taken, mut refused) = (0, 0);
    for case in Case::all(include_str!("framing/requests.txt")) {
        // The long ones are about their length.
        for _ in 0..if case.wire.len() < 4096 { MUTATIONS } else { 1 } {
            let wire = random.mutated(&case.wire);
            let whole = serve(&wire, &[]);
            let cut = serve(&wire, &[1, 2, 3, 5, 8]);
            let shown = String::from_utf8_lossy(&wire);
            assert_eq!(whole.without_100(), cut.without_100(), "{shown}");
            let statuses = whole.statuses();
            let acknowledged = statuses.iter().filter(|status| **status == "200");
            assert_eq!(acknowledged.count(), whole.relayed.len(), "{shown}");
            let is_refusal = |status: &&str| !["100", "200"].contains(status);
            let early = statuses
                .iter()
                .rev()
                .skip(1)
                .find(|status| is_refusal(status));
            assert_eq!(early, None, "a refusal is the last word: {shown}");
            whole.relayed.iter().for_each(|sent| well_formed(sent));
            taken += whole.relayed.len();
            refused += usize::from(statuses.last().is_some_and(is_refusal));
        }
    }
    assert!(
        taken > 500 && refused > 500,
        "{taken} taken, {refused} refused"
    );
}

/// Every payload ends in a counter, whatever is done to the answer and wherever the connection ends in it.
#[test]
fn mutated_answers_end_in_a_counter() {
    let mut random = Random(0xa115);
    for case in Case::all(include_str!("framing/responses.txt")) {
        for _ in 0..if case.wire.len() < 4096 { MUTATIONS } else { 1 } {
            let mut wire = random.mutated(&case.wire);
            wire.truncate(random.below(wire.len() + 1));
            let mut world = World::new(&[RING]);
            world.post("x");
            let mut tries = 0;
            while world.in_hand() > 0 {
                if tries > 0 {
                    // Another gets through: this one's failures count.
                    world.relay_another();
                }
                tries += 1;
                assert!(tries < 10, "it never ends");
                let id = world.next_attempt();
                world.offer(id, &wire, 1 + random.below(50));
                if world.written.contains_key(&id) {
                    world.close(id, End::Eof);
                }
            }
        }
    }
}

/// Whatever a setting says, it breaks no head.
#[test]
fn no_setting_breaks_a_head() {
    const EVILS: [&str; 5] = [
        "\r\nX-Evil: 1",
        "\nX-Evil: 1",
        "\rX-Evil: 1",
        "\0X-Evil: 1",
        "\r\n\r\nGET /",
    ];
    let json = |evil: &str| {
        let escaped = evil.replace('\r', "\\r").replace('\n', "\\n");
        escaped.replace('\0', "\\u0000")
    };
    let percent = |evil: &str| {
        let escaped = evil.replace('\r', "%0d").replace('\n', "%0A");
        escaped.replace('\0', "%00").replace([' ', ':', '/'], "")
    };
    for evil in EVILS {
        let quoted = json(evil);
        let settings = [
            ("PYROSCOPE_AUTH_TOKEN", format!("token{evil}")),
            ("PYROSCOPE_BASIC_AUTH_USER", format!("user{evil}")),
            ("PYROSCOPE_BASIC_AUTH_PASSWORD", format!("password{evil}")),
            ("PYROSCOPE_TENANT_ID", format!("{evil}tenant")),
            (
                "PYROSCOPE_HTTP_HEADERS",
                format!(r#"{{"X-A":"a{quoted}"}}"#),
            ),
            (
                "PYROSCOPE_HTTP_HEADERS",
                format!(r#"{{"X-A{quoted}":"a"}}"#),
            ),
            (
                "PYROSCOPE_HTTP_HEADERS",
                format!(r#"{{"X-A:{quoted}":"a"}}"#),
            ),
            (
                "PYROSCOPE_HTTP_HEADERS",
                r#"{"X A":"a","":"b","Host":"c","TE":"d"}"#.to_owned(),
            ),
            (
                "PYROSCOPE_HTTP_HEADERS",
                r#"{"content-length":"9","Transfer-encoding":"chunked","CONNECTION":"x"}"#
                    .to_owned(),
            ),
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("http://10.0.0.1:4040/path{evil}"),
            ),
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("http://10.0.0.1{evil}:4040/"),
            ),
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("http://10.0.0.1:4040{evil}/"),
            ),
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("http://u:p{evil}@10.0.0.1:4040/"),
            ),
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("http://u:{}@10.0.0.1:4040/", percent(evil)),
            ),
            (
                "PYROSCOPE_REMOTE_ADDRESS",
                format!("http://10.0.0.1:4040/{}", percent(evil)),
            ),
        ];
        for (name, value) in settings {
            let mut vars = vec![(name, value.as_str()), RING];
            // Basic authorization takes both.
            vars.extend([
                ("PYROSCOPE_BASIC_AUTH_USER", "user"),
                ("PYROSCOPE_BASIC_AUTH_PASSWORD", "password"),
            ]);
            let mut world = World::new(&vars);
            world.post("x");
            if world.connecting.is_empty() {
                // The address is unusable: nothing is sent at all.
                assert_eq!(world.lost(LossReason::Unusable), 1, "{name}: {value:?}");
                continue;
            }
            let id = world.connect();
            let sent = world.seen(id);
            well_formed(sent.as_bytes());
            assert!(!sent.contains("\nX-Evil"), "{name}: {value:?}: {sent}");
        }
    }
}

/// The same for Lambda's API and for a proxy, whose addresses are settings too.
#[test]
fn no_setting_breaks_a_head_to_lambda_or_a_proxy() {
    let read = |vars: &[(&str, &str)]| {
        Config::read(|name| {
            let found = vars.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    for evil in ["\r\nX-Evil: 1", "\nX", "\rX", "\0"] {
        let api = format!("127.0.0.1:9001{evil}");
        assert_eq!(read(&[("AWS_LAMBDA_RUNTIME_API", &api)]).runtime_api, None);
        let server = ("PYROSCOPE_REMOTE_ADDRESS", "https://server.example");
        for proxy in [
            format!("http://proxy{evil}:3128"),
            format!("http://user:secret{evil}@proxy:3128"),
            format!("proxy:3128{evil}"),
            "http://user:%0d%0aX-Evil%3a%201@proxy".to_owned(),
        ] {
            let config = read(&[server, ("HTTPS_PROXY", &proxy)]);
            let Some(proxy) = config.remote.and_then(|server| server.proxy) else {
                continue;
            };
            let connect = String::from_utf8(proxy.connect).unwrap();
            let head = connect.strip_suffix("\r\n\r\n").expect("a whole head");
            let mut lines = head.split("\r\n");
            assert_eq!(lines.next(), Some("CONNECT server.example:443 HTTP/1.1"));
            for line in lines {
                let (name, value) = line.split_once(": ").expect("a field");
                assert!(["Host", "Proxy-Authorization"].contains(&name), "{connect}");
                assert!(is_field_value(value.as_bytes()), "{connect}");
            }
        }
    }
}

// One case.

struct Case {
    name: String,
    wire: Vec<u8>,
    /// Every other line, by its first character.
    lines: Vec<(char, String)>,
}

impl Case {
    fn all(text: &str) -> Vec<Self> {
        let mut cases = Vec::new();
        // What is before the first heading explains the format.
        for line in text.lines().skip_while(|line| !line.starts_with("----")) {
            let mut chars = line.chars();
            let (kind, rest) = (chars.next(), chars.as_str());
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            match kind {
                None | Some('-') => {}
                Some('@') => cases.push(Self {
                    name: rest.to_owned(),
                    wire: Vec::new(),
                    lines: Vec::new(),
                }),
                Some(kind) => {
                    let case: &mut Self = cases.last_mut().expect("a case to add to");
                    match (kind, rest.strip_suffix('\\')) {
                        ('>', Some(rest)) => case.wire.extend(unescaped(rest)),
                        ('>', None) => case.wire.extend([&*unescaped(rest), b"\r\n"].concat()),
                        _ => case.lines.push((kind, rest.to_owned())),
                    }
                }
            }
        }
        for case in &cases {
            assert_eq!(case.lines('#').len(), 1, "{} names its source", case.name);
        }
        cases
    }

    fn lines(&self, kind: char) -> Vec<String> {
        let lines = self.lines.iter().filter(|(other, _)| *other == kind);
        lines.map(|(_, line)| line.clone()).collect()
    }
}

/// `\r \n \t \0 \\ \xHH`, and `\(3*text)` for repetition.
fn unescaped(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let (escape, behind) = rest[at + 1..].split_at(1);
        rest = behind;
        match escape {
            "r" => out.push(b'\r'),
            "n" => out.push(b'\n'),
            "t" => out.push(b'\t'),
            "0" => out.push(0),
            "x" => {
                out.push(u8::from_str_radix(&rest[..2], 16).expect("two hexadecimal digits"));
                rest = &rest[2..];
            }
            "(" => {
                let (times, behind) = rest.split_once('*').expect("a number of times");
                let (what, behind) = behind.split_at(closing(behind));
                let times = times.parse().expect("a number");
                out.extend(unescaped(what).repeat(times));
                rest = &behind[1..];
            }
            other => out.extend_from_slice(other.as_bytes()),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// Where the parenthesis that is open at the start of `text` is closed.
fn closing(text: &str) -> usize {
    let mut open = 1;
    let close = text.char_indices().find(|(_, c)| {
        open += i32::from(*c == '(') - i32::from(*c == ')');
        open == 0
    });
    close.expect("a closing parenthesis").0
}

/// Lengths of the pieces a case is fed in, the last again and again; empty: whole.
fn cuts(case: &Case) -> Vec<Vec<usize>> {
    let mut random = Random(case.wire.len() as u64 + 1);
    let mut at_random = || vec![1 + random.below(case.wire.len().max(1)), usize::MAX];
    // A byte at a time takes long for the long ones.
    let small = if case.wire.len() < 20_000 { 1 } else { 61 };
    vec![vec![], vec![small], at_random(), at_random()]
}

fn feed(world: &mut World, id: ConnId, wire: &[u8], cut: &[usize]) {
    let mut rest = wire;
    let mut cut = cut.iter();
    let mut size = usize::MAX;
    while !rest.is_empty() {
        size = *cut.next().unwrap_or(&size);
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        if world.offer(id, piece, usize::MAX) < piece.len() {
            return;
        }
        rest = behind;
    }
}

// Requests.

/// What came of some bytes of a client's.
struct Seen {
    /// Everything the client was answered.
    answers: String,
    /// Whether our side of its connection was closed.
    closed: bool,
    /// What was sent on, request by request.
    relayed: Vec<Vec<u8>>,
}

impl Seen {
    fn statuses(&self) -> Vec<&str> {
        let heads = self.answers.split_terminator("\r\n\r\n");
        heads.map(|head| &head["HTTP/1.1 ".len()..][..3]).collect()
    }

    /// Whether an interim answer comes depends on the cuts.
    fn without_100(&self) -> (String, bool, &[Vec<u8>]) {
        let answers = self.answers.replace("HTTP/1.1 100 Continue\r\n\r\n", "");
        (answers, self.closed, &self.relayed)
    }
}

/// A client sends this and closes its side; then the server takes everything.
fn serve(wire: &[u8], cut: &[usize]) -> Seen {
    let mut world = World::new(&[RING, ("PYROSCOPE_NUM_WORKERS", "1")]);
    let client = world.client();
    feed(&mut world, client, wire, cut);
    let answers = world.seen(client);
    let closed = world.half_closed.contains(&client);
    world.close(client, End::Eof);
    let mut relayed = Vec::new();
    while world.totals().relayed < world.totals().acknowledged {
        let id = match world.connecting.is_empty() {
            true => *world.written.keys().next_back().expect("an uplink"),
            false => world.connect(),
        };
        let sent = std::mem::take(world.written.get_mut(&id).unwrap());
        relayed.push(in_one_session(sent));
        world.answer(id, OK);
    }
    Seen {
        answers,
        closed,
        relayed,
    }
}

/// The session id is another in every world.
fn in_one_session(mut sent: Vec<u8>) -> Vec<u8> {
    const LABEL: &[u8] = b"__session_id__%3D";
    let found = sent.windows(LABEL.len()).position(|part| part == LABEL);
    if let Some(at) = found {
        let id = sent[at + LABEL.len()..].iter_mut().take(16);
        id.zip(b"0123456789abcdef")
            .for_each(|(old, new)| *old = *new);
    }
    sent
}

/// What a case says about [`Seen`].
struct Expected {
    /// Each answer in full, and whether it may also not come.
    answers: Vec<(String, bool)>,
    closed: bool,
    relayed: Vec<Vec<u8>>,
}

impl Expected {
    fn of(case: &Case) -> Self {
        let mut expected = Self {
            answers: Vec::new(),
            closed: false,
            relayed: Vec::new(),
        };
        let mut parts: Vec<Relayed> = Vec::new();
        for (kind, line) in &case.lines {
            let (line, times) = line.rsplit_once(" * ").unwrap_or((line, "1"));
            let times = || times.parse::<usize>().expect("a number of times");
            match kind {
                '<' => {
                    let (status, maybe) = match line.strip_prefix("? ") {
                        Some(status) => (status, true),
                        None => (line, false),
                    };
                    expected.closed |= status.ends_with(" close");
                    let answer = (answer_text(status), maybe);
                    expected.answers.extend(vec![answer; times()]);
                }
                '=' => parts.extend(vec![Relayed::new(line); times()]),
                '+' => parts.last_mut().unwrap().field(line),
                ':' => parts.last_mut().unwrap().body = Some(unescaped(line)),
                _ => {}
            }
        }
        expected.relayed = parts.iter().map(Relayed::bytes).collect();
        expected
    }

    fn check(&self, case: &Case, seen: &Seen, cut: &[usize]) {
        let name = format!("{}, cut {cut:?}", case.name);
        let mut rest = seen.answers.as_str();
        for (answer, maybe) in &self.answers {
            match rest.strip_prefix(answer.as_str()) {
                Some(behind) => rest = behind,
                None => assert!(maybe, "{name}: {answer:?} is due, not {rest:?}"),
            }
        }
        assert_eq!(rest, "", "{name}: nothing more is due");
        assert_eq!(seen.closed, self.closed, "{name}: closed");
        assert_eq!(seen.relayed.len(), self.relayed.len(), "{name}: sent on");
        for (sent, expected) in seen.relayed.iter().zip(&self.relayed) {
            let shown = String::from_utf8_lossy(&sent[..sent.len().min(500)]);
            assert!(sent == expected, "{name}: what was sent on is {shown}");
        }
    }
}

/// The answer with this status, `close` or `keep-alive` behind it.
fn answer_text(status: &str) -> String {
    let (status, connection) = status.split_once(' ').unwrap_or((status, ""));
    let phrase = match status {
        "100" => return "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        "200" => "OK",
        "400" => "Bad Request",
        "413" => "Content Too Large",
        "414" => "URI Too Long",
        "417" => "Expectation Failed",
        "431" => "Request Header Fields Too Large",
        "501" => "Not Implemented",
        "505" => "HTTP Version Not Supported",
        other => panic!("{other} is no status of ours"),
    };
    let connection = match connection {
        "" => String::new(),
        word => format!("Connection: {word}\r\n"),
    };
    format!("HTTP/1.1 {status} {phrase}\r\nContent-Length: 0\r\n{connection}\r\n")
}

/// A request that is sent on, as a case describes it.
#[derive(Clone)]
struct Relayed {
    line: Vec<u8>,
    fields: Vec<u8>,
    forwarded: Vec<u8>,
    body: Option<Vec<u8>>,
}

impl Relayed {
    fn new(line: &str) -> Self {
        Self {
            line: unescaped(line),
            fields: Vec::new(),
            forwarded: b"X-Forwarded-Host: h\r\n".to_vec(),
            body: None,
        }
    }

    fn field(&mut self, line: &str) {
        let field = [&*unescaped(line), b"\r\n"].concat();
        match line.strip_prefix("X-Forwarded-Host") {
            Some("!") => self.forwarded.clear(),
            Some(_) => self.forwarded = field,
            None => self.fields.extend(field),
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let length = self.body.as_ref().map_or(String::new(), |body| {
            format!("Content-Length: {}\r\n", body.len())
        });
        [
            &*self.line,
            b" HTTP/1.1\r\nHost: 10.0.0.1:4040\r\n",
            &self.fields,
            &self.forwarded,
            length.as_bytes(),
            b"\r\n",
            self.body.as_deref().unwrap_or_default(),
        ]
        .concat()
    }
}

/// One request that no two readers can read in two ways, and nothing behind it.
#[track_caller]
fn well_formed(sent: &[u8]) {
    let shown = String::from_utf8_lossy(&sent[..sent.len().min(2000)]);
    let end = sent.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("a head that ends: {shown}"));
    let (head, body) = (&sent[..end], &sent[end + 4..]);
    let mut lines = head.split(|&b| b == b'\n');
    let line = lines.next().unwrap();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let words: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else {
        panic!("three words: {shown}");
    };
    assert!(is_token(method), "a method: {shown}");
    let is_graphic = target.iter().all(u8::is_ascii_graphic);
    assert!(
        is_graphic && (target[0] == b'/' || target == b"*"),
        "a target: {shown}"
    );
    let (mut hosts, mut lengths) = (0, Vec::new());
    for line in lines {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|&b| b == b':').expect("a colon");
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        assert!(is_token(name) && is_field_value(value), "a field: {shown}");
        let name = String::from_utf8_lossy(name).to_lowercase();
        assert!(
            !["transfer-encoding", "connection", "expect", "upgrade"].contains(&&*name),
            "{name}: {shown}"
        );
        hosts += u32::from(name == "host");
        if name == "content-length" {
            lengths.push(String::from_utf8_lossy(value).trim().parse::<usize>());
        }
    }
    assert_eq!(hosts, 1, "{shown}");
    match &lengths[..] {
        [] => assert_eq!(body, b"", "{shown}"),
        [Ok(length)] => assert_eq!(body.len(), *length, "{shown}"),
        _ => panic!("one length at most: {shown}"),
    }
}

// Answers.

/// What became of the payload and of the connection, in a case's words; and the log.
fn answer(case: &Case, cut: &[usize]) -> (String, String) {
    let marks = case.lines('!');
    let mut world = World::new(&[RING, ("PYROSCOPE_LOG_LEVEL", "debug")]);
    if marks.contains(&"head".to_owned()) {
        let client = world.client();
        world.arrive(client, b"HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", usize::MAX);
    } else {
        world.post("x");
    }
    let id = world.connect();
    feed(&mut world, id, &case.wire, cut);
    if world.written.contains_key(&id) {
        if marks.contains(&"eof".to_owned()) {
            world.close(id, End::Eof);
        } else if marks.contains(&"reset".to_owned()) {
            world.close(id, End::Io(std::io::ErrorKind::ConnectionReset));
        }
    }
    let log = world.log();
    let what = if world.totals().relayed == 1 {
        "relayed"
    } else if world.lost(LossReason::Refused) == 1 {
        "refused"
    } else if log.contains("An attempt failed") && log.contains("cause=\"status ") {
        "again"
    } else if log.contains("An attempt failed") {
        "broken"
    } else {
        "waiting"
    };
    let kept = world.written.contains_key(&id);
    let connection = if kept { "kept" } else { "closed" };
    (format!("{what} {connection}"), log)
}

// Chance.

/// Numbers that look random and are the same each time (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("less than limit")
    }

    /// The same with one to three places changed: a byte replaced, inserted, left out, or a piece repeated.
    fn mutated(&mut self, wire: &[u8]) -> Vec<u8> {
        const SPICE: &[u8] = b"\r\n\0 \t:;,0aF\x7f\xff/*%{=";
        let mut wire = wire.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(wire.len().max(1)).min(wire.len());
            let spice = SPICE[self.below(SPICE.len())];
            match self.below(5) {
                0 if at < wire.len() => wire[at] = spice,
                1 => wire.insert(at, spice),
                2 if at < wire.len() => drop(wire.remove(at)),
                3 => {
                    let end = (at + 1 + self.below(40)).min(wire.len());
                    let piece = wire[at..end].to_vec();
                    wire.splice(at..at, piece);
                }
                _ => {
                    let other = self.below(wire.len().max(1));
                    if at < wire.len() {
                        wire.swap(at, other);
                    }
                }
            }
        }
        wire
    }
}
