//! The function's process: it works, keeps its profiles, and uploads them when it is asked to.
//!
//! It is a process of its own so that a freeze stops it as it stops the extension. It is this program again,
//! started with `--function ADDRESS`, and talks with the demo in lines:
//!
//! ```text
//!   burn KIND AMOUNT SDK  ->  burned FROM UNTIL CPU         nanoseconds, the first two by CLOCK_MONOTONIC
//!   upload                ->  uploaded SENT ACKNOWLEDGED SDK BODY     for each profile that is kept
//!                             end
//! ```

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use super::profiler::Profiler;
use super::shop::{self, Event};
use super::support::client::{Client, with_length};
use super::support::monitor::GUARD;
use super::upload::{self, Upload};

/// The argument that makes this program the function.
pub const ARGUMENT: &str = "--function";

/// Which SDK an upload is made as.
#[derive(Clone, Copy)]
pub enum Sdk {
    Go,
    Python,
}

/// The function as the demo sees it.
pub struct Function {
    child: Child,
    asked: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    clock: Clock,
}

/// A stretch of work.
pub struct Burned {
    pub from: Instant,
    pub until: Instant,
    pub cpu: Duration,
}

/// A profile that the extension has answered with 200.
pub struct Sent {
    pub sdk: String,
    pub body: Vec<u8>,
    pub at: Instant,
    pub acknowledged: Instant,
}

impl Function {
    /// Starts the process; it uploads to the extension at `addr`.
    pub fn start(addr: SocketAddr) -> Self {
        let itself = env::current_exe().expect("a program that has a file");
        let mut child = Command::new(itself)
            .args([ARGUMENT, &addr.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the function to start");
        let asked = child.stdin.take().expect("its standard input");
        let answers = child.stdout.take().expect("its standard output");
        Self {
            child,
            asked,
            answers: BufReader::new(answers).lines(),
            clock: Clock::start(),
        }
    }

    /// Has it work, and keep the profile of that.
    pub fn burn(&mut self, event: Event, sdk: Sdk) -> Burned {
        let (kind, amount) = match event {
            Event::Checkout { items } => ("checkout", items),
            Event::Search { words } => ("search", words),
            Event::Report { orders } => ("report", orders),
        };
        self.ask(&format!("burn {kind} {amount} {}", sdk.name()));
        let words = self.answer();
        assert_eq!(words[0], "burned");
        Burned {
            from: self.clock.instant(&words[1]),
            until: self.clock.instant(&words[2]),
            cpu: Duration::from_nanos(number(&words[3])),
        }
    }

    /// Has it upload all that it keeps, one after another; back when each has its 200.
    pub fn upload(&mut self) -> Vec<Sent> {
        self.ask("upload");
        let mut sent = Vec::new();
        loop {
            let words = self.answer();
            if words[0] == "end" {
                return sent;
            }
            sent.push(Sent {
                at: self.clock.instant(&words[1]),
                acknowledged: self.clock.instant(&words[2]),
                sdk: words[3].clone(),
                body: from_hex(&words[4]),
            });
        }
    }

    /// Stops it, and returns when the kernel says that it has stopped.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let since = Instant::now();
        while !self.is_stopped() {
            assert!(since.elapsed() < GUARD, "the function does not stop");
            thread::yield_now();
        }
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn is_stopped(&self) -> bool {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        // The state comes after the name, which is in parentheses.
        stat.is_ok_and(|stat| stat.contains(") T "))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("a process to signal");
    }

    fn ask(&mut self, line: &str) {
        writeln!(self.asked, "{line}").expect("a function that reads");
    }

    fn answer(&mut self) -> Vec<String> {
        let line = self.answers.next().expect("a function that answers");
        let line = line.expect("an answer in UTF-8");
        line.split(' ').map(str::to_owned).collect()
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        // A stopped process dies of SIGKILL too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The function itself, until its standard input ends.
pub fn run(addr: &str) {
    let addr = addr.parse().expect("an address");
    let mut kept: Vec<Upload> = Vec::new();
    // Kept open as SDKs keep theirs.
    let mut client = None;
    for line in stdin().lines() {
        let line = line.expect("a line in UTF-8");
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["burn", kind, amount, sdk] => {
                let event = Event::of(kind, number(amount));
                let mut profiler = Profiler::default();
                let from = monotonic_nanos();
                profiler.call(shop::handler, event);
                let until = monotonic_nanos();
                println!("burned {from} {until} {}", profiler.total().as_nanos());
                kept.push(Sdk::of(sdk).upload(&profiler));
            }
            ["upload"] => {
                let client = client.get_or_insert_with(|| Client::connect(addr));
                let answers: Vec<String> =
                    kept.drain(..).map(|upload| send(client, &upload)).collect();
                answers.iter().for_each(|answer| println!("{answer}"));
                println!("end");
            }
            _ => panic!("{line:?} is no question"),
        }
    }
}

/// Uploads as an SDK does, and says how that went.
fn send(client: &mut Client, upload: &Upload) -> String {
    let request = with_length(&upload.head, &upload.body);
    let at = monotonic_nanos();
    client.send(request);
    client.expect_ok();
    let acknowledged = monotonic_nanos();
    let body = hex(&upload.body);
    format!("uploaded {at} {acknowledged} {} {body}", upload.sdk)
}

impl Sdk {
    fn name(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Python => "python",
        }
    }

    fn of(name: &str) -> Self {
        match name {
            "go" => Self::Go,
            "python" => Self::Python,
            _ => panic!("{name:?} is no SDK"),
        }
    }

    fn upload(self, profiler: &Profiler) -> Upload {
        match self {
            Self::Go => upload::by_go("shop", profiler),
            Self::Python => upload::by_python("shop", profiler),
        }
    }
}

/// Takes times of another process, which are nanoseconds of CLOCK_MONOTONIC, as Instants of this one.
struct Clock {
    instant: Instant,
    nanos: u64,
}

impl Clock {
    fn start() -> Self {
        let (instant, nanos) = (Instant::now(), monotonic_nanos());
        Self { instant, nanos }
    }

    fn instant(&self, nanos: &str) -> Instant {
        let later = number(nanos).checked_sub(self.nanos);
        self.instant + Duration::from_nanos(later.expect("a time after the start"))
    }
}

fn monotonic_nanos() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("a clock that Linux has");
    let nanos = Duration::from(time).as_nanos();
    u64::try_from(nanos).expect("less than 584 years")
}

fn number(text: &str) -> u64 {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let byte = |digits: &[u8]| {
        let text = std::str::from_utf8(digits).expect("ASCII");
        u8::from_str_radix(text, 16).expect("hexadecimal digits")
    };
    digits.map(byte).collect()
}
