//! The programs that are measured: how each is started, and what the system says about it while it runs.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::GUARD;
use crate::lambda::Lambda;
use crate::throttled::Group;

/// Where these are among the subjects.
pub const FLOOR: usize = 0;
pub const OURS: usize = 1;

pub struct Subject {
    binary: PathBuf,
    /// Where it listens, if it cannot be told.
    port: Option<u16>,
}

impl Subject {
    /// size-report/bench/floor.rs.
    pub fn floor(binary: PathBuf) -> Self {
        Self { binary, port: None }
    }

    /// The binary that is shipped.
    pub fn ours(binary: PathBuf) -> Self {
        Self { binary, port: None }
    }

    /// The extension in Go, as released.
    pub fn released(binary: PathBuf) -> Self {
        Self {
            binary,
            port: Some(4040),
        }
    }

    /// Starts it in the surroundings given. No log is written but of errors, and nobody reads that.
    pub fn start(&self, lambda: &Lambda, server: &str, settings: &[(&str, &str)]) -> Running {
        self.spawn(Command::new(&self.binary), lambda, server, settings)
    }

    /// Starts it with the log that a user gets, into a file.
    pub fn start_logging(&self, lambda: &Lambda, server: &str, log: &File) -> Running {
        let mut command = Command::new(&self.binary);
        let own = || Stdio::from(log.try_clone().expect("one more descriptor"));
        command.stdout(own()).stderr(own());
        self.launch(command, lambda, server, &[])
    }

    /// The same with as much of a processor as the group has, from its first instruction on.
    pub fn start_within(
        &self,
        group: &Group,
        lambda: &Lambda,
        server: &str,
        settings: &[(&str, &str)],
    ) -> Running {
        self.spawn(group.command(&self.binary), lambda, server, settings)
    }

    /// What its file takes.
    pub fn bytes(&self) -> f64 {
        let file = fs::metadata(&self.binary);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", self.binary.display()));
        f64::from(u32::try_from(file.len()).unwrap_or(u32::MAX))
    }

    fn spawn(
        &self,
        mut command: Command,
        lambda: &Lambda,
        server: &str,
        settings: &[(&str, &str)],
    ) -> Running {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let quiet = [&[("PYROSCOPE_LOG_LEVEL", "error")], settings].concat();
        self.launch(command, lambda, server, &quiet)
    }

    fn launch(
        &self,
        mut command: Command,
        lambda: &Lambda,
        server: &str,
        settings: &[(&str, &str)],
    ) -> Running {
        command
            .env_clear()
            .env("AWS_LAMBDA_RUNTIME_API", lambda.address().to_string())
            .env("PYROSCOPE_REMOTE_ADDRESS", server)
            .env("PYROSCOPE_LISTEN_ADDRESS", "127.0.0.1:0")
            .envs(settings.iter().copied())
            .stdin(Stdio::null());
        let started = Instant::now();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", self.binary.display()));
        Running {
            child,
            started,
            port: self.port,
        }
    }
}

/// The subjects with their numbers, one after the other, and the other way round every second time: what one leaves
/// behind for the system to clear away slows the next, and so each follows each as often.
pub fn in_turn(subjects: &[Subject], time: usize) -> impl Iterator<Item = (usize, &Subject)> {
    (0..subjects.len()).map(move |place| {
        let number = if time.is_multiple_of(2) {
            place
        } else {
            subjects.len() - 1 - place
        };
        (number, &subjects[number])
    })
}

/// A program under measurement. Killed when dropped.
pub struct Running {
    child: Child,
    pub started: Instant,
    port: Option<u16>,
}

/// What it has in memory.
pub struct Memory {
    pub rss_kib: f64,
    pub private_kib: f64,
}

impl Running {
    /// Where it listens: the system knows, so it need not say.
    pub fn address(&self) -> SocketAddr {
        let port = self
            .port
            .unwrap_or_else(|| wait_until("the port", || listening_port(self.child.id())));
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// CPU time of all its threads, those that have ended too.
    pub fn cpu(&self) -> Duration {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        let clock = ClockId::pid_cpu_clock_id(pid).expect("a CPU clock per process");
        clock_gettime(clock).expect("the time by it").into()
    }

    /// Waits until every thread of it waits.
    pub fn wait_asleep(&self) {
        wait_until("it to wait for something", || {
            let stats = self.tasks("stat");
            // The state follows the name, which is in parentheses and may hold any character.
            let asleep = |stat: &String| {
                stat.rsplit_once(") ")
                    .is_some_and(|(_, state)| state.starts_with('S'))
            };
            stats.iter().all(asleep).then_some(())
        });
    }

    /// Stops it where it is, as a freeze does.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).expect("a process of our own");
    }

    /// Waits until it has ended.
    pub fn wait_ended(&mut self) {
        wait_until("it to end", || self.child.try_wait().ok()?);
    }

    pub fn memory(&self) -> Memory {
        let rollup = self.read("smaps_rollup");
        Memory {
            rss_kib: kib(&rollup, "Rss:"),
            private_kib: kib(&rollup, "Private_Clean:") + kib(&rollup, "Private_Dirty:"),
        }
    }

    pub fn peak_kib(&self) -> f64 {
        kib(&self.read("status"), "VmHWM:")
    }

    pub fn threads(&self) -> usize {
        self.tasks("stat").len()
    }

    fn read(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.child.id());
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn tasks(&self, file: &str) -> Vec<String> {
        let path = format!("/proc/{}/task", self.child.id());
        let tasks = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        // A thread may end while we look.
        tasks
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join(file)).ok())
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks again and again, for what nobody tells of.
pub fn wait_until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + GUARD;
    loop {
        if let Some(result) = found() {
            return result;
        }
        assert!(
            Instant::now() < until,
            "waited {GUARD:?} in vain for {what}"
        );
        thread::yield_now();
    }
}

fn kib(text: &str, field: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no {field}"))
}

/// The port on which the process listens on 127.0.0.1, by the sockets among its descriptors.
fn listening_port(pid: u32) -> Option<u16> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let targets = descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok());
    let sockets: Vec<String> = targets
        .filter_map(|target| {
            Some(
                target
                    .to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let port = local.strip_prefix("0100007F:")?;
        let ours = *state == "0A" && sockets.iter().any(|socket| socket == inode);
        ours.then(|| u16::from_str_radix(port, 16).ok())?
    })
}
