//! AWS's Lambda emulator as a child process: starts it with a function, invokes, shuts down, keeps its log.
//!
//! Like Lambda it starts every file in /opt/extensions and then the function's runtime, at the first
//! invocation. Unlike Lambda it never freezes, and answers an invocation only when the extension too has asked
//! for the next event. SIGTERM to it is the end of the sandbox: SHUTDOWN to the extension, SIGKILL 2 s later.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::log::Log;
use crate::support::message::{Body, Messages};
use crate::support::monitor::{GUARD, Monitor};

/// What is to run under the emulator.
pub struct Sandbox {
    /// The runtime with its arguments.
    pub command: Vec<PathBuf>,
    /// The function's code, Lambda's /var/task.
    pub task_folder: PathBuf,
    pub variables: Vec<(&'static str, String)>,
    /// Where a copy of the log goes.
    pub log_file: PathBuf,
}

pub struct Emulator {
    child: Child,
    log: Arc<Monitor<Log>>,
}

impl Emulator {
    pub fn start(binary: &Path, sandbox: &Sandbox) -> Result<Self, String> {
        let (reader, writer) = io::pipe().map_err(|error| format!("a pipe: {error}"))?;
        let copy = File::create(&sandbox.log_file)
            .map_err(|error| format!("{}: {error}", sandbox.log_file.display()))?;
        let mut command = Command::new(binary);
        command
            .args(["--log-level", "debug"])
            .args(&sandbox.command)
            .current_dir(&sandbox.task_folder)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LAMBDA_TASK_ROOT", &sandbox.task_folder)
            .envs(sandbox.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(
                writer
                    .try_clone()
                    .map_err(|error| format!("a pipe: {error}"))?,
            )
            .stderr(writer);
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        // The command holds ends of the pipe; with it they go, and the log ends when its writers do.
        drop(command);
        let log = Log::collected(reader, copy);
        let emulator = Self { child, log };
        // Managed Instances start everything beforehand, and say what they do in other words.
        let is_managed = |(name, _): &(&str, String)| *name == "AWS_LAMBDA_MAX_CONCURRENCY";
        if !sandbox.variables.iter().any(is_managed) {
            emulator.wait_until_ready()?;
        }
        Ok(emulator)
    }

    /// Lambda's API listens before anything is started that needs it. The emulator is less careful: invoked
    /// within its first milliseconds, it starts the extension before its own API listens.
    fn wait_until_ready(&self) -> Result<(), String> {
        self.wait_logged("Runtime API Server listening", 1)
    }

    /// Waits until the emulator has said this so many times.
    pub fn wait_logged(&self, mark: &str, times: usize) -> Result<(), String> {
        let said = |log: &mut Log| {
            let said = log.lines.iter().filter(|line| line.contains(mark)).count() >= times;
            (said || log.closed).then_some(said)
        };
        match self.log.wait_within(GUARD, said) {
            Some(true) => Ok(()),
            Some(false) => Err("the emulator has ended".to_owned()),
            None => Err(format!(
                "the emulator does not say {mark:?} within {GUARD:?}"
            )),
        }
    }

    /// Invokes the function and returns what it answers.
    pub fn invoke(&self, event: &str) -> Result<String, String> {
        match self.answer_to(event)? {
            (200, body) => Ok(body),
            (status, body) => Err(format!("the invocation was answered with {status} {body}")),
        }
    }

    /// Invokes the function and returns the status and what is answered, well or not.
    pub fn answer_to(&self, event: &str) -> Result<(u16, String), String> {
        let stream = self.connect()?;
        let sent = (&stream).write_all(
            format!(
                "POST /2015-03-31/functions/function/invocations HTTP/1.1\r\nHost: {INVOKE_ADDRESS}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{event}",
                event.len()
            )
            .as_bytes(),
        );
        sent.map_err(|error| format!("to invoke: {error}"))?;
        let mut messages = Messages::new(stream);
        let response = messages.head().and_then(|head| {
            let head = head.ok_or(ErrorKind::UnexpectedEof)?;
            let mut body = Body::default();
            messages.body(head.response_framing(), &mut body)?;
            Ok((
                head.status(),
                String::from_utf8_lossy(&body.decoded).into_owned(),
            ))
        });
        response.map_err(|error| format!("the invocation was not answered: {error}"))
    }

    /// Nothing tells that the emulator listens but a connection, so it is tried until one is made.
    fn connect(&self) -> Result<TcpStream, String> {
        let until = Instant::now() + GUARD;
        loop {
            match TcpStream::connect(INVOKE_ADDRESS) {
                Ok(stream) => {
                    let guarded = stream.set_read_timeout(Some(GUARD));
                    return guarded
                        .map(|()| stream)
                        .map_err(|error| format!("a guard on reads: {error}"));
                }
                Err(_) if self.log.look(|log| log.closed) => {
                    return Err("the emulator has ended".to_owned());
                }
                Err(error)
                    if error.kind() == ErrorKind::ConnectionRefused && Instant::now() < until =>
                {
                    thread::yield_now();
                }
                Err(error) => return Err(format!("the emulator does not listen: {error}")),
            }
        }
    }

    /// Ends the sandbox and returns the whole log.
    pub fn shut_down(mut self) -> Result<Log, String> {
        let pid = i32::try_from(self.child.id()).map_err(|_| "a process id too large")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|error| format!("SIGTERM: {error}"))?;
        let log = self
            .log
            .wait_within(SHUTDOWN_GUARD, |log| log.closed.then(|| log.clone()))
            .ok_or(format!("not shut down {SHUTDOWN_GUARD:?} after SIGTERM"))?;
        let status = self
            .child
            .wait()
            .map_err(|error| format!("to wait: {error}"))?;
        if status.success() {
            Ok(log)
        } else {
            Err(format!("the emulator ended with {status}"))
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        // After shut_down there is nothing to kill. What it leaves behind, the sandbox ends.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The emulator's own, in a network where nothing else is.
const INVOKE_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The emulator gives the extension 2 s.
const SHUTDOWN_GUARD: Duration = Duration::from_secs(10);
