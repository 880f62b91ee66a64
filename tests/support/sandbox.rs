//! A sandbox around the real binary: starts it as Lambda does, reads its log, signals it, waits for its end.
//!
//! Which binary: EXTENSION_BINARY, else the one cargo built for this test. EXTENSION_RUNNER, such as
//! `qemu-aarch64`, is put before it. The port is the kernel's choice (PYROSCOPE_LISTEN_ADDRESS with port 0)
//! and is learned from the line the extension logs when it listens. It logs all it can, unless a test wants
//! otherwise; a secret in any line fails the test.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::client::{Client, Response, post};
use super::extensions_api::ExtensionsApi;
use super::monitor::{GUARD, Monitor};
use super::play::Gate;
use super::pyroscope::{Pyroscope, bound};
use super::secrets::Secrets;

const PRLIMIT: &str = "/usr/bin/prlimit";

/// The smallest pipe there is.
const PIPE_BYTES_MIN: i32 = 4096;

/// What the sandbox will be: the environment, and the name under which the binary is started.
#[derive(Clone)]
pub struct Sandbox {
    variables: Vec<(String, String)>,
    binary: Option<PathBuf>,
    name: Option<String>,
    /// The file with the name servers that stands in for the machine's.
    resolver: Option<PathBuf>,
    /// Put before the binary: it narrows what the system gives.
    wrapper: Vec<String>,
    /// The wrapper runs it as another user, who may not read the folder of this checkout.
    other_user: bool,
    /// Nobody reads its log before this is open.
    log_gate: Option<Gate>,
    log_closed: bool,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self::new()
    }
}

impl Sandbox {
    /// An environment with nothing in it but a listen address on port 0 and the most talkative log.
    pub fn new() -> Self {
        let empty = Self {
            variables: Vec::new(),
            binary: None,
            name: None,
            resolver: None,
            wrapper: Vec::new(),
            other_user: false,
            log_gate: None,
            log_closed: false,
        };
        empty
            .set("PYROSCOPE_LISTEN_ADDRESS", "127.0.0.1:0")
            .set("PYROSCOPE_LOG_LEVEL", "trace")
    }

    /// The usual: registered with `lambda`, relaying to `server`.
    pub fn with(lambda: &ExtensionsApi, server: &Pyroscope) -> Self {
        Self::new().lambda(lambda).server(server)
    }

    /// No Lambda: PYROSCOPE_DEV_MODE, relaying to `server`.
    pub fn relay_only(server: &Pyroscope) -> Self {
        Self::new().set("PYROSCOPE_DEV_MODE", "true").server(server)
    }

    /// Sets an environment variable, in place of an earlier value.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    pub fn lambda(self, lambda: &ExtensionsApi) -> Self {
        self.set("AWS_LAMBDA_RUNTIME_API", lambda.address())
    }

    pub fn server(self, server: &Pyroscope) -> Self {
        self.set("PYROSCOPE_REMOTE_ADDRESS", server.url())
    }

    /// This binary, whatever the environment says.
    pub fn binary(mut self, path: &Path) -> Self {
        self.binary = Some(path.to_owned());
        self
    }

    /// Starts the binary under this file name, as if the layer had called it so.
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Looks names up by what this file says, in the form of `/etc/resolv.conf`. Takes root: the file is mounted,
    /// for the extension alone.
    pub fn resolving_by(mut self, file: &Path) -> Self {
        self.resolver = Some(file.to_owned());
        self
    }

    /// With so many descriptors at most.
    pub fn descriptors(mut self, most: usize) -> Self {
        self.wrapper = vec![PRLIMIT.to_owned(), format!("--nofile={most}")];
        self
    }

    /// On a machine without IPv6, and without anybody to talk to. Takes root: it is a network of its own.
    pub fn alone_without_ipv6(mut self) -> Self {
        // Nothing is up there, so there is no address but those that need not be.
        let script = "echo 1 > /proc/sys/net/ipv4/ip_nonlocal_bind && exec \"$0\" \"$@\"";
        self.wrapper = ["/usr/bin/unshare", "--net", "/bin/sh", "-c", script]
            .map(str::to_owned)
            .into();
        self
    }

    /// Without a second thread. Takes root: the limit is that of a user who has no other process.
    pub fn single_threaded(mut self) -> Self {
        let user = 40_000 + std::process::id() % 20_000;
        self.wrapper = [
            "/usr/bin/setpriv",
            &format!("--reuid={user}"),
            "--clear-groups",
            PRLIMIT,
            "--nproc=1",
        ]
        .map(str::to_owned)
        .into();
        self.other_user = true;
        self
    }

    /// Its log goes to the smallest pipe there is, and nobody reads it until `gate` is open.
    pub fn log_unread_until(mut self, gate: &Gate) -> Self {
        self.log_gate = Some(gate.clone());
        self
    }

    /// Who read its log has gone.
    pub fn log_closed(mut self) -> Self {
        self.log_closed = true;
        self
    }

    /// Starts it, and returns at once.
    pub fn start(self) -> Extension {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = self.placed(folder.path());
        let mut words = Vec::new();
        if let Some(file) = &self.resolver {
            // Each makes way for the next in the same process, so its id stays that of the child.
            let script = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";
            words.extend(
                ["/usr/bin/unshare", "--mount", "/bin/sh", "-c", script].map(str::to_owned),
            );
            words.push(file.display().to_string());
        }
        words.extend(self.wrapper);
        words.extend(runner());
        words.push(
            path.into_os_string()
                .into_string()
                .expect("a path in UTF-8"),
        );
        let secrets = Secrets::set(&self.variables);
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env_clear()
            .envs(self.variables)
            .stdin(Stdio::null());
        let (stderr, far_end) = pipe().expect("a pipe for the log");
        if self.log_gate.is_some() {
            resize(&stderr, PIPE_BYTES_MIN);
        }
        command.stdout(Stdio::null()).stderr(far_end);
        let started = Instant::now();
        let child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        // With it goes our copy of the log's far end.
        drop(command);
        let log = Arc::new(Monitor::new(Log::default()));
        let (collecting, gate, closed) = (Arc::clone(&log), self.log_gate, self.log_closed);
        thread::spawn(move || {
            if closed {
                drop(stderr);
                return collecting.change(|log| log.ended = true);
            }
            if let Some(gate) = gate {
                gate.pass(0);
                resize(&stderr, 4 * PIPE_BYTES_MIN);
            }
            collect(stderr, &collecting);
        });
        Extension {
            child,
            log,
            secrets,
            started,
            _folder: folder,
        }
    }

    /// The path to start it by: its own, or one in this folder.
    fn placed(&self, folder: &Path) -> PathBuf {
        let binary = absolute(self.binary.clone().unwrap_or_else(binary));
        if self.other_user {
            let copy = folder.join("copy");
            fs::copy(&binary, &copy).expect("a copy of the binary");
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
                .expect("a folder that all may read");
            return copy;
        }
        let Some(name) = &self.name else {
            return binary;
        };
        let link = folder.join(name);
        std::os::unix::fs::symlink(binary, &link).expect("a link to the binary");
        link
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn listening(self) -> Extension {
        let extension = self.start();
        extension.addr();
        extension
    }
}

/// The running binary. Killed when dropped; its log is printed when the test fails, and must be free of secrets.
pub struct Extension {
    child: Child,
    log: Arc<Monitor<Log>>,
    secrets: Secrets,
    pub started: Instant,
    _folder: tempfile::TempDir,
}

#[derive(Default)]
struct Log {
    lines: Vec<String>,
    ended: bool,
}

impl Extension {
    /// Where it listens.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        let line = self.wait_log("Starting relay");
        listened(&line).unwrap_or_else(|| panic!("no address in: {line}"))
    }

    /// A new connection to it.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// Posts `body` to `target` on a connection of its own and returns the answer.
    #[track_caller]
    pub fn post(&self, target: &str, body: &[u8]) -> Response {
        let mut client = self.client();
        client.send(post(target, body));
        client.response()
    }

    /// Waits for a log line that holds `part`, in any letter case, and returns it.
    #[track_caller]
    pub fn wait_log(&self, part: &str) -> String {
        self.wait_log_with(&[part])
    }

    /// Waits for a log line that holds all of `parts`, in any letter case, and returns it.
    #[track_caller]
    pub fn wait_log_with(&self, parts: &[&str]) -> String {
        let found = self.log.wait_within(GUARD, |log| {
            let line = log.lines.iter().find(|line| holds(line, parts)).cloned();
            if line.is_none() && log.ended {
                Some(None)
            } else {
                line.map(Some)
            }
        });
        found
            .flatten()
            .unwrap_or_else(|| panic!("no log line with {parts:?}"))
    }

    /// Waits for a warning or an error that holds all of `parts`, in any letter case, and returns it.
    #[track_caller]
    pub fn wait_complaint(&self, parts: &[&str]) -> String {
        let what = format!("a warning or an error with {parts:?}");
        self.log.wait(&what, |log| {
            let mut complaints = log.lines.iter().filter(|line| is_complaint(line));
            complaints.find(|line| holds(line, parts)).cloned()
        })
    }

    /// The warnings and errors so far.
    pub fn complaints(&self) -> Vec<String> {
        self.log.look(|log| {
            log.lines
                .iter()
                .filter(|line| is_complaint(line))
                .cloned()
                .collect()
        })
    }

    /// The log lines so far that hold all of `parts`, in any letter case.
    pub fn log_with(&self, parts: &[&str]) -> Vec<String> {
        self.log.look(|log| {
            log.lines
                .iter()
                .filter(|line| holds(line, parts))
                .cloned()
                .collect()
        })
    }

    pub fn log(&self) -> String {
        self.log.look(|log| log.lines.join("\n"))
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(pid), signal).expect("a process to signal");
    }

    /// Stops it as Lambda's freeze does, and returns when the kernel says that it has stopped.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        let since = Instant::now();
        while !self.status("State:").starts_with('T') {
            assert!(since.elapsed() < GUARD, "the process does not stop");
            thread::yield_now();
        }
    }

    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// How many descriptors it has open.
    pub fn open_files(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a process");
        files.count()
    }

    /// How many sockets it has open.
    pub fn sockets(&self) -> usize {
        let files = fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("a process");
        let targets = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
        targets
            .filter(|target| target.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// Waits until it sleeps, which it does when it has nothing to do.
    #[track_caller]
    pub fn wait_asleep(&self) {
        let since = Instant::now();
        while !self.status("State:").starts_with('S') {
            assert!(since.elapsed() < GUARD, "the process does not come to rest");
            thread::yield_now();
        }
    }

    /// Waits until it has asked for a connection to `addr` that does not stand yet.
    #[track_caller]
    pub fn wait_connecting(&self, addr: SocketAddr) {
        const SYN_SENT: &str = "02";
        let SocketAddr::V4(addr) = addr else {
            panic!("the kernel's list of IPv4 alone is read");
        };
        let ip = u32::from_ne_bytes(addr.ip().octets());
        let far = format!("{ip:08X}:{:04X}", addr.port());
        let since = Instant::now();
        loop {
            let list = fs::read_to_string(format!("/proc/{}/net/tcp", self.pid()));
            let connecting = |line: &str| {
                let mut words = line.split_whitespace().skip(2);
                words.next() == Some(&far) && words.next() == Some(SYN_SENT)
            };
            if list.unwrap_or_default().lines().any(connecting) {
                return;
            }
            assert!(
                since.elapsed() < GUARD,
                "no connection to {addr} is asked for"
            );
            thread::yield_now();
        }
    }

    /// Polls a field of `/proc/PID/status` that counts KiB until it is at most `limit`; what it was last.
    pub fn wait_kib_at_most(&self, field: &str, limit: u64, guard: Duration) -> u64 {
        let since = Instant::now();
        loop {
            let kib = self.status_kib(field);
            if kib <= limit || since.elapsed() > guard {
                return kib;
            }
            thread::yield_now();
        }
    }

    /// A field of `/proc/PID/status` that counts KiB.
    #[track_caller]
    pub fn status_kib(&self, field: &str) -> u64 {
        let value = self.status(field);
        let number = value.split(' ').next().unwrap_or_default();
        number
            .parse()
            .unwrap_or_else(|_| panic!("{field} is {value:?}"))
    }

    /// A field of `/proc/PID/status`, such as `VmRSS:`.
    pub fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let value = status.lines().find_map(|line| line.strip_prefix(field));
        value.unwrap_or_default().trim().to_owned()
    }

    /// Still running, as far as the kernel knows.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child to ask for").is_none()
    }

    /// Waits for its end, whoever reads its log.
    #[track_caller]
    pub fn wait_gone(&mut self) -> ExitStatus {
        let since = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child to ask for") {
                return status;
            }
            assert!(since.elapsed() < GUARD, "the process does not end");
            thread::yield_now();
        }
    }

    /// Waits for its end; all of its log is there afterwards.
    #[track_caller]
    pub fn wait_exit(&mut self) -> ExitStatus {
        let what = "the extension's end";
        self.log.wait(what, |log| log.ended.then_some(()));
        // Its stderr is closed: nothing is left to do for it but to be reaped.
        self.child.wait().expect("a child to wait for")
    }

    /// Waits for its end, which must be exit code `code`.
    #[track_caller]
    pub fn expect_exit(&mut self, code: i32) {
        let status = self.wait_exit();
        assert_eq!(
            status.code(),
            Some(code),
            "exit {status} (signal {:?})",
            status.signal()
        );
    }

    /// It comes to know that secret, and no line may hold it either.
    pub fn must_not_log(&mut self, secret: &str) {
        self.secrets.add("what it was given", secret);
    }

    /// What is wrong, if a line so far holds a secret that was set, or sent by a [`Client`].
    fn leak(&mut self) -> Option<String> {
        let lines = self.log.look(|log| log.lines.clone());
        let starting = lines.iter().find(|line| line.contains("Starting relay"));
        if let Some(addr) = starting.and_then(|line| listened(line)) {
            self.secrets.add_sent(addr.port());
        }
        self.secrets.found_in(&lines)
    }

    /// The line with the totals that it logs last, as `(field, value)`.
    #[track_caller]
    pub fn totals(&self) -> Totals {
        Totals(self.wait_log_with(&["acknowledged=", "relayed=", "lost="]))
    }
}

/// The closing line.
pub struct Totals(pub String);

impl Totals {
    #[track_caller]
    pub fn count(&self, field: &str) -> u64 {
        let prefix = format!("{field}=");
        let value = self
            .0
            .split_whitespace()
            .find_map(|word| word.strip_prefix(&prefix));
        let value = value.unwrap_or_else(|| panic!("no {field} in: {}", self.0));
        value
            .trim_matches('"')
            .parse()
            .unwrap_or_else(|_| panic!("{field} is no number in: {}", self.0))
    }

    /// `acknowledged`, `relayed` and `lost`, which must add up.
    #[track_caller]
    pub fn expect(&self, relayed: u64, lost: u64) {
        let found = (
            self.count("acknowledged"),
            self.count("relayed"),
            self.count("lost"),
        );
        assert_eq!(
            found,
            (relayed + lost, relayed, lost),
            "acknowledged, relayed, lost in: {}",
            self.0
        );
    }
}

impl Drop for Extension {
    fn drop(&mut self) {
        // A frozen process dies of SIGKILL too.
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.log
            .wait_within(Duration::from_secs(5), |log| log.ended.then_some(()));
        let leak = self.leak();
        if thread::panicking() {
            let leak = leak.unwrap_or_default();
            eprintln!("--- the extension's log ---\n{}\n---{leak}", self.log());
        } else if let Some(leak) = leak {
            panic!("{leak}");
        }
    }
}

/// A port of 127.0.0.1 that the kernel gives to nobody else while this lives, though nothing listens on it.
/// For the rare test that must know the port before the extension listens.
pub struct ReservedPort {
    pub number: u16,
    _holder: socket2::Socket,
}

impl ReservedPort {
    pub fn new() -> Self {
        let holder = bound("127.0.0.1:0".parse().expect("an address"));
        let addr = holder.local_addr().expect("a bound socket has an address");
        let number = addr.as_socket().expect("an IP address").port();
        Self {
            number,
            _holder: holder,
        }
    }
}

/// The binary under test.
fn binary() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_pyroscope-lambda-extension").map(PathBuf::from);
    env::var_os("EXTENSION_BINARY")
        .map(PathBuf::from)
        .or(built)
        .expect("EXTENSION_BINARY says which binary")
}

/// The binary with these arguments, for what is over at once.
pub fn command(arguments: &[&str]) -> Command {
    let mut words = runner();
    words.push(binary().display().to_string());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(arguments);
    command
}

fn absolute(path: PathBuf) -> PathBuf {
    fs::canonicalize(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What is put before the binary, word by word; usually nothing.
pub fn runner() -> Vec<String> {
    let runner = env::var("EXTENSION_RUNNER").unwrap_or_default();
    runner.split_whitespace().map(str::to_owned).collect()
}

/// Lets the pipe hold so many bytes.
fn resize(pipe: &PipeReader, bytes: i32) {
    fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)).expect("a pipe of that size");
}

fn collect(stderr: PipeReader, log: &Monitor<Log>) {
    for line in BufReader::new(stderr).split(b'\n') {
        let Ok(line) = line else { break };
        log.change(|log| log.lines.push(String::from_utf8_lossy(&line).into_owned()));
    }
    log.change(|log| log.ended = true);
}

/// The first socket address in the `address` field of a log line, text or JSON.
fn listened(line: &str) -> Option<SocketAddr> {
    let value = line.split_once("address")?.1;
    value
        .split(|c: char| "=\",".contains(c) || c.is_whitespace())
        .find_map(|word| word.parse().ok())
}

fn is_complaint(line: &str) -> bool {
    ["level=warn", "level=error", "level=fatal", "level=panic"]
        .iter()
        .any(|level| line.contains(level))
}

fn holds(line: &str, parts: &[&str]) -> bool {
    let line = line.to_lowercase();
    parts.iter().all(|part| line.contains(&part.to_lowercase()))
}
