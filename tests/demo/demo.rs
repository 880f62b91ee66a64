//! `make demo`: one sandbox's life before the reader's eyes, with no account and no network.
//!
//! The binary given as the first argument is the extension as it ships. Everything around it is the test
//! bench: Lambda's Extensions API, and a Pyroscope that speaks https with a certificate made a moment ago. The
//! function really burns CPU, its profiles are real pprofs, and what is printed was measured in this run.
//! The exit status is 1 when anything did not arrive as it was sent.

#![expect(
    clippy::disallowed_methods,
    reason = "the demo measures, reads its surroundings, and lets time pass where that is the story"
)]

mod page;
mod profiler;
mod shop;
#[path = "../support/mod.rs"]
mod support;
mod upload;

#[path = "../support/decode/mod.rs"]
#[allow(dead_code, reason = "the demo prints a part of what can be read")]
mod decode;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use page::{Page, Who, grouped, short, size};
use profiler::Profiler;
use shop::Event;
use support::certificates::Authority;
use support::client::{Client, with_length};
use support::extensions_api::ExtensionsApi;
use support::play::{Gate, Play};
use support::pyroscope::{LATENCY, Pyroscope, Request, Tls};
use support::sandbox::{Extension, Sandbox};
use upload::Upload;

/// How long Lambda keeps the sandbox frozen, and how long the remote is down. Long enough to be seen.
const FROZEN: Duration = Duration::from_millis(1500);
const DOWN: Duration = Duration::from_millis(700);

/// Profiles that wait as the sandbox ends. The remote takes half a second for each, and Lambda gives two.
const AT_SHUTDOWN: usize = 60;

/// How often the start is measured.
const STARTS: usize = 20;

fn main() -> ExitCode {
    let Some(binary) = env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: demo PATH-OF-THE-EXTENSION");
        return ExitCode::FAILURE;
    };
    // What does not come is waited for in vain, and that ends the thread that tells the story.
    match thread::spawn(|| live(binary)).join() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// The story from start to end; whether everything arrived.
fn live(binary: PathBuf) -> bool {
    let mut demo = Demo::start(binary);
    demo.init();
    demo.ordinary_invocation();
    demo.frozen_in_the_middle();
    demo.remote_down();
    demo.shutdown();
    demo.account()
}

struct Demo {
    page: Page,
    binary: PathBuf,
    lambda: ExtensionsApi,
    remote: Pyroscope,
    extension: Extension,
    /// The function's connection to the extension, kept as SDKs keep theirs.
    sdk: Client,
    sent: Vec<Sent>,
    _roots: tempfile::NamedTempFile,
    resident_bytes: [u64; 2],
    exit_took: Duration,
}

/// An upload that was acknowledged.
struct Sent {
    upload: Upload,
    at: Instant,
}

impl Demo {
    fn start(binary: PathBuf) -> Self {
        let mut page = Page::new();
        let (authority, lambda) = (
            Authority::new("A root made for this demo"),
            ExtensionsApi::start(),
        );
        let remote = Pyroscope::https(Tls::by(&authority));
        let roots = authority.pem_file();
        page.title("One sandbox, from init to shutdown");
        page.fact(
            "extension",
            &format!("{}, {} bytes", binary.display(), grouped(length(&binary))),
        );
        page.fact(
            "remote",
            &format!(
                "{}, with a certificate made just now; takes {} for a profile, as one in production",
                remote.url(),
                short(LATENCY)
            ),
        );
        page.fact(
            "function",
            "a shop that really works, profiled as by the Go and the Python SDK",
        );

        page.title("Init");
        let path = roots.path().to_str().expect("a path in UTF-8");
        let sandbox = Sandbox::with(&lambda, &remote)
            .set("PYROSCOPE_LOG_LEVEL", "info")
            .binary(&binary)
            .set("SSL_CERT_FILE", path);
        let extension = sandbox.start();
        page.zero(extension.started);
        page.line(extension.started, Who::Lambda, "starts the extension");
        let sdk = extension.client();
        Self {
            page,
            binary,
            lambda,
            remote,
            extension,
            sdk,
            sent: Vec::new(),
            _roots: roots,
            resident_bytes: [0; 2],
            exit_took: Duration::ZERO,
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
        self.page.line(registration.at, Who::Extension, &text);
        self.lambda.wait_next();
        self.resident_bytes[0] = self.memory("VmRSS:");
        self.page.now(
            Who::Extension,
            &format!(
                "asks for the first event; {} resident",
                size(self.resident_bytes[0])
            ),
        );
    }

    fn ordinary_invocation(&mut self) {
        self.page.title("Invocation 1: profiles of two SDKs");
        self.invoke();
        self.work(Event::Checkout { items: 60 }, upload::by_go);
        self.say_arrival(0);
        self.work(Event::Search { words: 200 }, upload::by_python);
        self.say_arrival(1);
        let (full, resumed) = self.remote.handshakes();
        self.page.now(
            Who::Remote,
            &format!("TLS handshakes so far: {full} in full, {resumed} resumed"),
        );
    }

    fn frozen_in_the_middle(&mut self) {
        self.page
            .title("Invocation 2: frozen with uploads in flight");
        let never = Gate::new();
        self.invoke();
        let before = self.remote.complete().len();
        for _ in 0..3 {
            self.remote.next(Play::answer(200).unanswered_until(&never));
        }
        for orders in [120, 180, 240] {
            self.work(Event::Report { orders }, upload::by_go);
        }
        self.remote.wait_complete(before + 3);
        self.page
            .now(Who::Remote, "has read 3 profiles and not answered yet");
        self.extension.freeze();
        self.page.now(Who::Lambda, "freezes the sandbox");
        self.remote.reset_all();
        self.page.now(
            Who::Remote,
            "resets every connection; nobody is awake to hear it",
        );
        thread::sleep(FROZEN);
        self.extension.thaw();
        let thawed = Instant::now();
        self.page.line(thawed, Who::Lambda, "thaws it");
        self.remote.wait_answered_count(self.sent.len());
        let text = format!(
            "has the 3 again, and answered; {} after the thaw",
            short(thawed.elapsed())
        );
        self.page.now(Who::Remote, &text);
    }

    fn remote_down(&mut self) {
        self.page.title("Invocation 3: the remote is down");
        self.remote.refuse();
        self.remote.reset_all();
        self.page
            .now(Who::Remote, "is down: connections are refused");
        self.invoke();
        for words in [60, 90, 120, 150] {
            self.work(Event::Search { words }, upload::by_python);
        }
        let answered_before = self.sent.len() - 4;
        let asked = self.lambda.invoke_and_wait();
        self.page.now(
            Who::Extension,
            &format!(
                "takes another event meanwhile, and asks for the next {} later",
                short(asked)
            ),
        );
        thread::sleep(DOWN);
        self.remote.accept();
        let up = Instant::now();
        self.page.line(up, Who::Remote, "is up again");
        self.remote.wait_answered_count(answered_before + 4);
        self.page.now(
            Who::Remote,
            &format!("has all 4, {} later", short(up.elapsed())),
        );
    }

    fn shutdown(&mut self) {
        self.page.title("Shutdown, with profiles still to be sent");
        let uploads: Vec<Upload> = (0..AT_SHUTDOWN)
            .map(|_| profiled(Event::Checkout { items: 2 }, upload::by_go).0)
            .collect();
        let bytes: usize = uploads.iter().map(|upload| upload.body.len()).sum();
        let since = Instant::now();
        for upload in uploads {
            self.upload(upload);
        }
        let text = format!(
            "uploads {AT_SHUTDOWN} profiles, {} bytes: 200 for each, all within {}",
            grouped(bytes as u64),
            short(since.elapsed())
        );
        self.page.line(since, Who::Function, &text);
        self.resident_bytes[1] = self.memory("VmHWM:");
        self.lambda.shutdown(Duration::from_secs(2));
        let told = Instant::now();
        let unanswered = self.sent.len() - self.answered().len();
        self.page.line(
            told,
            Who::Lambda,
            &format!("SHUTDOWN, 2 s left; {unanswered} profiles are not answered yet"),
        );
        let status = self.extension.wait_exit();
        self.exit_took = told.elapsed();
        let code = status
            .code()
            .map_or("killed".to_owned(), |code| format!("exit status {code}"));
        self.page.now(
            Who::Extension,
            &format!("is gone after {}, {code}", short(self.exit_took)),
        );
    }

    /// Prints what arrived and how it adds up; `false` when it does not.
    fn account(&self) -> bool {
        // The extension may be gone before the remote has written down its last answer.
        let relayed = self.extension.totals().count("relayed");
        let relayed = usize::try_from(relayed).expect("a number of profiles");
        self.remote.wait_answered_count(relayed);
        let answered = self.answered();
        self.page.title("What arrived");
        let mut rows = Vec::new();
        let mut missing = 0;
        let mut arrived_at_shutdown = 0;
        let first_at_shutdown = self.sent.len() - AT_SHUTDOWN;
        for (place, sent) in self.sent.iter().enumerate() {
            let arrival = answered
                .iter()
                .find(|request| request.payload() == sent.upload.body);
            missing += usize::from(arrival.is_none());
            if place < first_at_shutdown {
                rows.push(row(place + 1, sent, arrival));
            } else {
                arrived_at_shutdown += usize::from(arrival.is_some());
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
        self.page.table(
            &heading,
            &rows,
            &[true, false, false, false, false, true, true, true],
        );
        self.page.fact(
            "at SHUTDOWN",
            &format!(
                "{arrived_at_shutdown} of {AT_SHUTDOWN} arrived, alike and so not in the table"
            ),
        );
        let twice = answered.len() - (self.sent.len() - missing);
        self.totals(&answered, twice, missing)
    }

    fn totals(&self, answered: &[Request], twice: usize, missing: usize) -> bool {
        let totals = self.extension.totals();
        let [acknowledged, relayed, lost] =
            ["acknowledged", "relayed", "lost"].map(|field| totals.count(field));
        let count = self.sent.len();
        let bytes: usize = answered.iter().map(|request| request.payload().len()).sum();
        let (full, resumed) = self.remote.handshakes();
        let (median, best) = self.starts();

        self.page.title("Totals");
        self.page.fact(
            "acknowledged",
            &format!("{acknowledged} = {relayed} relayed + {lost} lost, says its closing line"),
        );
        self.page.fact(
            "at the remote",
            &format!(
                "{} of {count}, byte for byte as sent, {} bytes; {twice} twice",
                count - missing,
                grouped(bytes as u64)
            ),
        );
        self.page.fact(
            "connections",
            &format!(
                "{}; TLS handshakes: {full} in full, {resumed} resumed",
                self.remote.connections().len()
            ),
        );
        self.page.fact(
            "exec → register",
            &format!(
                "{} at the median of {STARTS} more starts, {} at best",
                short(median),
                short(best)
            ),
        );
        self.page.fact("SHUTDOWN → exit", &short(self.exit_took));
        self.page.fact(
            "memory",
            &format!(
                "{} at rest, {} at most",
                size(self.resident_bytes[0]),
                size(self.resident_bytes[1])
            ),
        );
        self.page.fact(
            "binary",
            &format!("{} bytes", grouped(length(&self.binary))),
        );
        let adds_up = acknowledged == relayed + lost && acknowledged == count as u64 && lost == 0;
        let good = missing == 0 && twice == 0 && adds_up;
        let verdict = if good {
            format!("All {count} profiles arrived, each once.")
        } else {
            format!(
                "{missing} of {count} profiles are missing, {twice} came twice; the log:\n{}",
                self.extension.log()
            )
        };
        self.page.verdict(good, &verdict);
        good
    }

    /// Starts the extension again and again: from exec to registration, the median and the best.
    fn starts(&self) -> (Duration, Duration) {
        let start = |_| {
            let lambda = ExtensionsApi::start();
            let extension = Sandbox::with(&lambda, &self.remote)
                .set("PYROSCOPE_LOG_LEVEL", "info")
                .binary(&self.binary)
                .start();
            lambda.wait_registered().at - extension.started
        };
        let mut took: Vec<Duration> = (0..STARTS).map(start).collect();
        took.sort();
        (took[STARTS / 2], took[0])
    }

    fn invoke(&self) {
        let since = Instant::now();
        let asked = self.lambda.invoke_and_wait();
        self.page.line(
            since,
            Who::Lambda,
            &format!(
                "INVOKE; the extension asks for the next event {} later",
                short(asked)
            ),
        );
    }

    /// Runs the function, and uploads its profile as an SDK does.
    fn work(&mut self, event: Event, sdk: fn(&str, &Profiler) -> Upload) {
        let (upload, burned) = profiled(event, sdk);
        let (bytes, name) = (upload.body.len(), upload.sdk);
        let (at, took) = self.upload(upload);
        let text = format!(
            "burned {} of CPU; uploads {bytes} bytes as {name}'s SDK: 200 after {}",
            short(burned),
            short(took)
        );
        self.page.line(at, Who::Function, &text);
    }

    /// When it was sent, and how long its 200 took.
    fn upload(&mut self, upload: Upload) -> (Instant, Duration) {
        let request = with_length(&upload.head, &upload.body);
        let at = Instant::now();
        self.sdk.send(request);
        self.sdk.expect_ok();
        let took = at.elapsed();
        self.sent.push(Sent { upload, at });
        (at, took)
    }

    fn answered(&self) -> Vec<Request> {
        self.remote
            .requests()
            .into_iter()
            .filter(|request| request.complete && request.answered)
            .collect()
    }

    /// A line of /proc/PID/status that tells a size.
    fn memory(&self, field: &str) -> u64 {
        let value = self.extension.status(field);
        let kib: u64 = value.trim_end_matches(" kB").parse().unwrap_or(0);
        kib * 1024
    }

    fn say_arrival(&self, place: usize) {
        let request = self.remote.wait_answered(place + 1).remove(place);
        let at = request.body_at.unwrap_or(request.head_at);
        let text = format!(
            "got {} bytes on {}",
            request.payload().len(),
            request.path()
        );
        self.page.line(at, Who::Remote, &text);
    }
}

/// Runs the function: the upload of its profile, and the CPU time in it.
fn profiled(event: Event, sdk: fn(&str, &Profiler) -> Upload) -> (Upload, Duration) {
    let mut profiler = Profiler::default();
    profiler.call(shop::handler, event);
    (sdk("shop", &profiler), profiler.total())
}

/// A line of the table: what the remote could read out of this upload.
fn row(number: usize, sent: &Sent, arrival: Option<&Request>) -> Vec<String> {
    let mut cells = vec![number.to_string(), sent.upload.sdk.to_owned()];
    let Some(request) = arrival else {
        cells.extend(["MISSING", "", "", "", "", ""].map(str::to_owned));
        return cells;
    };
    match decode::profiles(
        &request.target(),
        &request.head.headers(),
        request.payload(),
    ) {
        Ok(profiles) => {
            let profile = &profiles[0];
            // The first is the function that calls all others.
            let (name, nanos) = profile.functions.get(1).cloned().unwrap_or_default();
            let cpu = Duration::from_nanos(nanos.unsigned_abs());
            cells.extend([
                profile.app.clone(),
                profile.sample_types.join(" "),
                name,
                short(cpu),
            ]);
        }
        Err(error) => cells.extend([error, String::new(), String::new(), String::new()]),
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

fn length(binary: &Path) -> u64 {
    let metadata =
        fs::metadata(binary).unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    metadata.len()
}
