//! `make demo`: one sandbox's life before the reader's eyes, with no account and no network.
//!
//! The binary given as the first argument is the extension as it ships. Everything around it is the test
//! bench: Lambda's Extensions API, and a Pyroscope that speaks https with a certificate made a moment ago. The
//! function is a process of its own that really burns CPU, its profiles are real pprofs, and what is printed was
//! measured in this run. The exit status is 1 when anything did not arrive as it was sent.
//!
//! `--page FILE` also writes the run as one HTML page, `--pictures FOLDER` its timeline and flame graph as
//! `demo-light.svg` and `demo-dark.svg`: `make demo PICTURES=docs` makes README's picture again.

#![expect(
    clippy::disallowed_methods,
    reason = "the demo measures, reads its surroundings, and lets time pass where that is the story"
)]

mod function;
mod page;
mod profiler;
mod shop;
mod story;
#[path = "../support/mod.rs"]
mod support;
mod terminal;
mod units;
mod upload;

#[path = "../support/decode/mod.rs"]
#[allow(dead_code, reason = "the demo prints a part of what can be read")]
mod decode;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use function::{Function, Sdk, Sent};
use shop::Event;
use story::{Account, Burned, Note, Profile, Span, Story, Who};
use support::certificates::Authority;
use support::extensions_api::ExtensionsApi;
use support::play::{Gate, Play};
use support::pyroscope::{LATENCY, Pyroscope, Request, Tls};
use support::sandbox::{Extension, Sandbox};
use terminal::Terminal;
use units::{grouped, short, size};

/// How long Lambda keeps the sandbox frozen, and how long the server is down. Long enough to be seen.
const FROZEN: Duration = Duration::from_millis(1500);
const DOWN: Duration = Duration::from_millis(700);

/// Profiles that wait as the sandbox ends. The server takes half a second for each, and Lambda gives two.
const AT_SHUTDOWN: usize = 60;

/// How often the start is measured.
const STARTS: usize = 20;

const USAGE: &str = "usage: demo PATH-OF-THE-EXTENSION [--page FILE] [--pictures FOLDER]";

/// What is asked for.
struct Options {
    binary: PathBuf,
    page: Option<PathBuf>,
    pictures: Option<PathBuf>,
}

impl Options {
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            binary: arguments.next()?.into(),
            page: None,
            pictures: None,
        };
        while let Some(name) = arguments.next() {
            let value = arguments.next()?.into();
            match name.as_str() {
                "--page" => options.page = Some(value),
                "--pictures" => options.pictures = Some(value),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [argument, addr] = arguments.as_slice()
        && argument == function::ARGUMENT
    {
        function::run(addr);
        return ExitCode::SUCCESS;
    }
    let Some(options) = Options::read(arguments.into_iter()) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    // What does not come is waited for in vain, and that ends the thread that tells the story.
    match thread::spawn(|| live(options)).join() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// The story from start to end; whether everything arrived.
fn live(options: Options) -> bool {
    let mut demo = Demo::start(options.binary);
    demo.init();
    demo.ordinary_invocation();
    demo.frozen_in_the_middle();
    demo.server_down();
    demo.shutdown();
    demo.account();
    demo.totals();
    let good = demo.verdict();
    if let Some(folder) = options.pictures {
        demo.write_pictures(&folder);
    }
    if let Some(file) = options.page {
        demo.write_page(&file);
    }
    good
}

struct Demo {
    terminal: Terminal,
    story: Story,
    binary: PathBuf,
    lambda: ExtensionsApi,
    server: Pyroscope,
    extension: Extension,
    function: Function,
    sent: Vec<Sent>,
    _roots: tempfile::NamedTempFile,
    resident_bytes: [u64; 2],
}

impl Demo {
    fn start(binary: PathBuf) -> Self {
        let mut terminal = Terminal::new();
        let (authority, lambda) = (
            Authority::new("A root made for this demo"),
            ExtensionsApi::start(),
        );
        let server = Pyroscope::https(Tls::by(&authority));
        let roots = authority.pem_file();
        terminal.title("One sandbox, from init to shutdown");
        terminal.fact(
            "extension",
            &format!("{}, {} bytes", binary.display(), grouped(length(&binary))),
        );
        terminal.fact(
            "server",
            &format!(
                "{}, with a certificate made just now; takes {} for a profile, as one in production",
                server.url(),
                short(LATENCY)
            ),
        );
        terminal.fact(
            "function",
            "a shop that really works, profiled as by the Go and the Python SDK",
        );

        terminal.chapter("Init");
        let path = roots.path().to_str().expect("a path in UTF-8");
        let sandbox = Sandbox::with(&lambda, &server)
            .set("PYROSCOPE_LOG_LEVEL", "info")
            .binary(&binary)
            .set("SSL_CERT_FILE", path);
        let extension = sandbox.start();
        terminal.zero(extension.started);
        terminal.line(extension.started, Who::Lambda, "starts the extension");
        // Its start takes CPU, which is not to make the init longer.
        lambda.wait_next();
        let function = Function::start(extension.addr());
        Self {
            terminal,
            story: Story::default(),
            binary,
            lambda,
            server,
            extension,
            function,
            sent: Vec::new(),
            _roots: roots,
            resident_bytes: [0; 2],
        }
    }

    fn init(&mut self) {
        let registration = self.lambda.wait_registered();
        let after = short(registration.at - self.extension.started);
        let text = format!(
            "listens on {} and registers as {}, {after} after exec",
            self.extension.addr(),
            registration.name
        );
        self.terminal.line(registration.at, Who::Extension, &text);
        let calls = self.lambda.calls();
        let ready = calls.last().map_or_else(Instant::now, |call| call.at);
        self.story.init.until = self.terminal.time(ready);
        self.resident_bytes[0] = self.memory("VmRSS:");
        let text = format!(
            "asks for the first event; {} resident",
            size(self.resident_bytes[0])
        );
        self.terminal.line(ready, Who::Extension, &text);
        let text = format!("init, {}", short(self.story.init.until));
        self.note(self.extension.started, Who::Lambda, &text);
    }

    fn ordinary_invocation(&mut self) {
        self.terminal.chapter("Invocation 1: profiles of two SDKs");
        self.invoke();
        self.work(Event::Checkout { items: 120 }, Sdk::Go);
        self.say_arrival(0);
        self.work(Event::Search { words: 320 }, Sdk::Python);
        self.say_arrival(1);
        self.returned("2 profiles");
        self.server.wait_answered_count(2);
        let (full, resumed) = self.server.handshakes();
        self.terminal.now(
            Who::Server,
            &format!("TLS handshakes so far: {full} in full, {resumed} resumed"),
        );
    }

    fn frozen_in_the_middle(&mut self) {
        self.terminal
            .chapter("Invocation 2: frozen with uploads in flight");
        let never = Gate::new();
        self.invoke();
        let before = self.server.complete().len();
        for _ in 0..3 {
            self.server.next(Play::answer(200).unanswered_until(&never));
        }
        for orders in [250, 400, 550] {
            self.work(Event::Report { orders }, Sdk::Go);
        }
        self.returned("3 profiles");
        self.server.wait_complete(before + 3);
        self.terminal
            .now(Who::Server, "has read 3 profiles and not answered yet");
        let frozen = Instant::now();
        self.extension.freeze();
        self.function.freeze();
        self.terminal.line(
            frozen,
            Who::Lambda,
            "freezes the sandbox: extension and function are stopped",
        );
        self.note(frozen, Who::Lambda, "freeze");
        self.server.reset_all();
        self.terminal.now(
            Who::Server,
            "resets every connection; the extension is frozen and cannot see it",
        );
        self.note(Instant::now(), Who::Server, "resets every connection");
        thread::sleep(FROZEN);
        let thawed = Instant::now();
        self.extension.thaw();
        self.function.thaw();
        self.terminal.line(thawed, Who::Lambda, "thaws it");
        self.note(thawed, Who::Lambda, "thaw");
        self.story.freezes.push(self.span(frozen, thawed));
        self.server.wait_answered_count(self.sent.len());
        let took = short(thawed.elapsed());
        let text = format!("has the 3 again, and answered; {took} after the thaw");
        self.terminal.now(Who::Server, &text);
        self.note(thawed, Who::Server, "gets the 3 again");
    }

    fn server_down(&mut self) {
        self.terminal.chapter("Invocation 3: the server is down");
        let down = Instant::now();
        self.server.refuse();
        self.server.reset_all();
        self.terminal
            .line(down, Who::Server, "is down: connections are refused");
        self.invoke();
        for words in [120, 180, 240, 300] {
            self.work(Event::Search { words }, Sdk::Python);
        }
        self.returned("4 profiles");
        let since = Instant::now();
        let asked = self.lambda.invoke_and_wait();
        self.story.invocations.push(self.span(since, since + asked));
        self.note(since, Who::Lambda, "invocation 4");
        self.terminal.now(
            Who::Extension,
            &format!(
                "takes another event meanwhile, and asks for the next {} later",
                short(asked)
            ),
        );
        thread::sleep(DOWN);
        self.server.accept();
        let up = Instant::now();
        self.terminal.line(up, Who::Server, "is up again");
        self.story.outages.push(self.span(down, up));
        self.server.wait_answered_count(self.sent.len());
        let took = short(up.elapsed());
        let text = format!("has all 4, {took} later");
        self.terminal.now(Who::Server, &text);
        self.note(up, Who::Server, "up again");
    }

    fn shutdown(&mut self) {
        self.terminal
            .chapter("Shutdown, with profiles still to be sent");
        self.invoke();
        for _ in 0..AT_SHUTDOWN {
            let burned = self.function.burn(Event::Checkout { items: 2 }, Sdk::Go);
            self.record(&burned);
        }
        let sent = self.upload();
        let (first, last) = (&self.sent[sent], &self.sent[self.sent.len() - 1]);
        let (since, took) = (first.at, short(last.acknowledged - first.at));
        let bytes: usize = self.sent[sent..].iter().map(|sent| sent.body.len()).sum();
        let text = format!(
            "uploads {AT_SHUTDOWN} profiles, {} bytes: 200 for each, all within {took}",
            grouped(bytes as u64)
        );
        self.terminal.line(since, Who::Function, &text);
        let text = format!("{AT_SHUTDOWN} profiles, 200 for each within {took}");
        self.returned(&text);
        self.resident_bytes[1] = self.memory("VmHWM:");
        let told = Instant::now();
        self.lambda.shutdown(Duration::from_secs(2));
        let unanswered = self.sent.len() - self.answered().len();
        self.terminal.line(
            told,
            Who::Lambda,
            &format!("SHUTDOWN, 2 s left; {unanswered} profiles are not answered yet"),
        );
        self.note(told, Who::Lambda, "SHUTDOWN");
        let status = self.extension.wait_exit();
        let gone = Instant::now();
        let took = short(gone - told);
        self.story.shutdown = self.span(told, gone);
        let code = status
            .code()
            .map_or("killed".to_owned(), |code| format!("exit status {code}"));
        let text = format!("is gone after {took}, {code}");
        self.terminal.line(gone, Who::Extension, &text);
        self.note(
            gone,
            Who::Extension,
            &format!("gone after {took} of 2 s, {code}"),
        );
    }

    /// Compares what was sent with what arrived, and prints it.
    fn account(&mut self) {
        let totals = self.extension.totals();
        // The extension may be gone before the server has written down its last answers.
        self.server.wait_all_ended();
        let answered = self.answered();
        self.terminal.title("What arrived");
        let mut rows = Vec::new();
        let mut arrived = 0;
        let mut arrived_at_shutdown = 0;
        let first_at_shutdown = self.sent.len() - AT_SHUTDOWN;
        for (place, sent) in self.sent.iter().enumerate() {
            let arrival = answered
                .iter()
                .find(|request| request.payload() == sent.body);
            arrived += usize::from(arrival.is_some());
            if place < first_at_shutdown {
                rows.push(row(place + 1, sent, arrival));
            } else {
                arrived_at_shutdown += usize::from(arrival.is_some());
            }
            self.story.profiles.push(Profile {
                sent: self.terminal.time(sent.at),
                acknowledged: self.terminal.time(sent.acknowledged),
                answered: arrival
                    .and_then(|request| request.ended_at)
                    .map(|at| self.terminal.time(at)),
                text: format!("{} bytes as {}'s SDK", sent.body.len(), sent.sdk),
            });
            for decoded in arrival.iter().flat_map(|request| decoded(request)) {
                for (stack, nanos) in decoded.stacks {
                    *self.story.stacks.entry(stack).or_default() += nanos;
                }
            }
        }
        let heading = [
            "#",
            "sdk",
            "application",
            "type",
            "most CPU in",
            "of",
            "bytes",
            "after",
        ];
        self.terminal.table(
            &heading,
            &rows,
            &[true, false, false, false, false, true, true, true],
        );
        self.terminal.fact(
            "at SHUTDOWN",
            &format!(
                "{arrived_at_shutdown} of {AT_SHUTDOWN} arrived, alike and so not in the table"
            ),
        );
        let bytes: usize = answered.iter().map(|request| request.payload().len()).sum();
        self.story.account = Account {
            closing_line: totals.0,
            uploaded: self.sent.len(),
            arrived,
            twice: answered.len() - arrived,
            bytes: bytes as u64,
        };
        self.story.requests = self.requests();
        self.story.recorded_on = recorded_on();
        let text = format!("answers {arrived_at_shutdown} side by side");
        self.note(self.sent[first_at_shutdown].at, Who::Server, &text);
    }

    fn totals(&mut self) {
        let account = &self.story.account;
        let parts: Vec<String> = account
            .parts()
            .iter()
            .map(|(name, count)| format!("{count} {name}"))
            .collect();
        let acknowledged = account.count("acknowledged").unwrap_or_default();
        self.terminal.title("Totals");
        self.terminal.fact(
            "acknowledged",
            &format!(
                "{acknowledged} = {}, says its closing line",
                parts.join(" + ")
            ),
        );
        self.terminal.fact(
            "at the server",
            &format!(
                "{} of {}, byte for byte as sent, {} bytes; {} twice",
                account.arrived,
                account.uploaded,
                grouped(account.bytes),
                account.twice
            ),
        );
        let (full, resumed) = self.server.handshakes();
        let (median, best) = self.starts();
        let [at_rest, at_most] = self.resident_bytes.map(size);
        let mut measured = |name: &str, text: String| {
            self.terminal.fact(name, &text);
            self.story.measured.push((name.to_owned(), text));
        };
        measured(
            "connections",
            format!(
                "{}; TLS handshakes: {full} in full, {resumed} resumed",
                self.server.connections().len()
            ),
        );
        measured(
            "exec → register",
            format!(
                "{} at the median of {STARTS} more starts, {} at best",
                short(median),
                short(best)
            ),
        );
        measured("SHUTDOWN → exit", short(self.story.shutdown.length()));
        measured("memory", format!("{at_rest} at rest, {at_most} at most"));
        measured("binary", format!("{} bytes", grouped(length(&self.binary))));
    }

    /// Prints the run in one sentence; `false` when not everything arrived.
    fn verdict(&mut self) -> bool {
        self.story.log = self.extension.log();
        self.story.lines = self.terminal.take_lines();
        let good = self.story.account.is_good();
        let mut verdict = self.story.account.verdict();
        if !good {
            verdict = format!("{verdict} The log:\n{}", self.story.log);
        }
        self.terminal.verdict(good, &verdict);
        good
    }

    fn write_page(&self, file: &Path) {
        fs::write(file, page::html(&self.story))
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.terminal
            .fact("page", &format!("{}: open it in a browser", file.display()));
        self.terminal.fact("next", page::NEXT);
        println!();
    }

    fn write_pictures(&self, folder: &Path) {
        for theme in page::Theme::ALL {
            let file = folder.join(format!("demo-{}.svg", theme.name()));
            fs::write(&file, page::picture(&self.story, theme))
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            self.terminal.fact("picture", &file.display().to_string());
        }
    }

    /// Starts the extension again and again: from exec to registration, the median and the best.
    fn starts(&self) -> (Duration, Duration) {
        let start = |_| {
            let lambda = ExtensionsApi::start();
            let extension = Sandbox::with(&lambda, &self.server)
                .set("PYROSCOPE_LOG_LEVEL", "info")
                .binary(&self.binary)
                .start();
            lambda.wait_registered().at - extension.started
        };
        let mut took: Vec<Duration> = (0..STARTS).map(start).collect();
        took.sort();
        (took[STARTS / 2], took[0])
    }

    fn invoke(&mut self) {
        let since = Instant::now();
        let asked = self.lambda.invoke_and_wait();
        self.terminal.line(
            since,
            Who::Lambda,
            &format!(
                "INVOKE; the extension asks for the next event {} later",
                short(asked)
            ),
        );
        self.story.invocations.push(self.span(since, since + asked));
        let text = format!("invocation {}", self.story.invocations.len());
        self.note(since, Who::Lambda, &text);
    }

    /// The function is done with its invocation, which `text` sums up.
    fn returned(&mut self, text: &str) {
        let last = self.sent.last().expect("an invocation that uploads");
        let until = self.terminal.time(last.acknowledged);
        let invocation = self.story.invocations.last_mut();
        let invocation = invocation.expect("an invocation");
        invocation.until = until;
        let at = invocation.from;
        self.story.notes.push(Note {
            at,
            who: Who::Function,
            text: text.to_owned(),
        });
    }

    /// Has the function work, and upload the profile of that as an SDK does.
    fn work(&mut self, event: Event, sdk: Sdk) {
        let burned = self.function.burn(event, sdk);
        self.record(&burned);
        let place = self.upload();
        let sent = &self.sent[place];
        let text = format!(
            "burned {} of CPU; uploads {} bytes as {}'s SDK: 200 after {}",
            short(burned.cpu),
            sent.body.len(),
            sent.sdk,
            short(sent.acknowledged - sent.at)
        );
        self.terminal.line(sent.at, Who::Function, &text);
    }

    /// Has the function upload what it keeps; the place of the first among all that was sent.
    fn upload(&mut self) -> usize {
        let place = self.sent.len();
        self.sent.extend(self.function.upload());
        place
    }

    fn record(&mut self, burned: &function::Burned) {
        self.story.burned.push(Burned {
            span: self.span(burned.from, burned.until),
            text: format!("burns {} of CPU", short(burned.cpu)),
        });
    }

    fn note(&mut self, at: Instant, who: Who, text: &str) {
        self.story.notes.push(Note {
            at: self.terminal.time(at),
            who,
            text: text.to_owned(),
        });
    }

    fn span(&self, from: Instant, until: Instant) -> Span {
        Span {
            from: self.terminal.time(from),
            until: self.terminal.time(until),
        }
    }

    fn answered(&self) -> Vec<Request> {
        self.server
            .requests()
            .into_iter()
            .filter(|request| request.complete && request.answered)
            .collect()
    }

    /// Every request that came, as the page shows it.
    fn requests(&self) -> Vec<story::Request> {
        let requests = self.server.requests().into_iter();
        let shown = |request: Request| {
            let ended = request.ended_at?;
            let how = if request.answered {
                "answered"
            } else {
                "not answered: the connection was reset"
            };
            Some(story::Request {
                span: self.span(request.head_at, ended),
                answered: request.answered,
                text: format!(
                    "{} bytes on {}, {how}",
                    request.payload().len(),
                    request.path()
                ),
            })
        };
        requests.filter_map(shown).collect()
    }

    /// A line of /proc/PID/status that tells a size.
    fn memory(&self, field: &str) -> u64 {
        let value = self.extension.status(field);
        let kib: u64 = value.trim_end_matches(" kB").parse().unwrap_or(0);
        kib * 1024
    }

    fn say_arrival(&mut self, place: usize) {
        let request = self.server.wait_complete(place + 1).remove(place);
        let at = request.body_at.unwrap_or(request.head_at);
        let text = format!(
            "got {} bytes on {}",
            request.payload().len(),
            request.path()
        );
        self.terminal.line(at, Who::Server, &text);
    }
}

/// The profiles in a request; none when it cannot be read.
fn decoded(request: &Request) -> Vec<decode::Decoded> {
    let headers = request.head.headers();
    decode::profiles(&request.target(), &headers, request.payload()).unwrap_or_default()
}

/// One profile of the table: what it says itself, and how long it took.
fn row(number: usize, sent: &Sent, arrival: Option<&Request>) -> Vec<String> {
    let mut cells = vec![number.to_string(), sent.sdk.clone()];
    let Some(request) = arrival else {
        cells.extend(["MISSING", "", "", "", "", ""].map(str::to_owned));
        return cells;
    };
    if let Some(profile) = decoded(request).first() {
        let most = profile.stacks.iter().max_by_key(|(_, nanos)| **nanos);
        let (stack, nanos) = most.expect("a profile with samples");
        cells.extend([
            profile.app.clone(),
            profile.sample_types.join(" "),
            stack.last().cloned().unwrap_or_default(),
            short(Duration::from_nanos(nanos.unsigned_abs())),
        ]);
    } else {
        cells.extend(["not a profile", "", "", ""].map(str::to_owned));
    }
    let after = request
        .body_at
        .map(|at| short(at.saturating_duration_since(sent.at)));
    cells.extend([
        grouped(request.payload().len() as u64),
        after.unwrap_or_default(),
    ]);
    cells
}

/// When what `make bench` records was last recorded, as far as git knows.
fn recorded_on() -> Option<String> {
    let asked = Command::new("git")
        .args(["log", "-1", "--format=%cs", "--", "size-report/latency.tsv"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let date = String::from_utf8(asked.ok()?.stdout).ok()?;
    let date = date.trim();
    (!date.is_empty()).then(|| date.to_owned())
}

fn length(binary: &Path) -> u64 {
    let metadata =
        fs::metadata(binary).unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    metadata.len()
}
