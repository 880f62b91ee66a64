//! One sandbox of a fleet: a function with its real SDK, and two extensions that get the very same of it.
//!
//! ```text
//!   Runtime API ── function ── SDK ──▶ 127.0.1.N:4040  tap ─┬▶ 127.0.2.N:4040  extension ── https ──▶ Pyroscope, a tenant
//!                                                           └▶ 127.0.3.N:4040  unchanged ── https ──▶ Pyroscope, another
//! ```
//!
//! The second has PYROSCOPE_UNIQUE_TIMES=false. Each has an Extensions API of its own, and both are real processes.

use std::fmt;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::runtime_api::RuntimeApi;
use super::tap::{Request, Tap};
use crate::judge::WELL;
use crate::server::process::ADDRESS;
use crate::subjects::Subject;
use crate::support::extensions_api::ExtensionsApi;
use crate::support::sandbox::{Extension, Sandbox, Totals};

/// Of the extension with its defaults, and of that which leaves times as they are.
pub const TENANTS: [&str; 2] = ["fleet", "fleet-unchanged"];

/// What came of a sandbox.
pub struct Lived {
    pub requests: Vec<Request>,
    /// The closing account of each extension.
    pub accounts: [Account; 2],
}

/// What an extension says of itself.
#[derive(Clone, Default)]
pub struct Account {
    pub acknowledged: u64,
    pub relayed: u64,
    pub lost: u64,
    /// Empty ones.
    pub left_out: u64,
    /// The first warning or error of any.
    pub complaint: Option<String>,
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            acknowledged,
            relayed,
            lost,
            left_out,
            complaint,
        } = self;
        write!(
            f,
            "{relayed} of {acknowledged}, left out {left_out}, lost {lost}"
        )?;
        match complaint {
            Some(line) => write!(f, ": {line}"),
            None => Ok(()),
        }
    }
}

impl Account {
    fn of(totals: &Totals, complaints: Vec<String>) -> Self {
        Self {
            acknowledged: totals.count("acknowledged"),
            relayed: totals.count("relayed"),
            lost: totals.count("lost"),
            // A field that is only there when there is something to say.
            left_out: if totals.0.contains("empty_left_out=") {
                totals.count("empty_left_out")
            } else {
                0
            },
            complaint: complaints.into_iter().next().map(|line| {
                let words = line.split_once(" level=");
                words.map_or(line.clone(), |(_, words)| words.to_owned())
            }),
        }
    }

    pub fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.relayed += other.relayed;
        self.lost += other.lost;
        self.left_out += other.left_out;
        self.complaint = self.complaint.take().or(other.complaint);
    }

    /// All was relayed but what is empty.
    pub fn is_all(&self, sent: usize) -> bool {
        let sent = sent as u64;
        (self.acknowledged, self.relayed + self.left_out, self.lost) == (sent, sent, 0)
    }
}

/// Two extensions, one per tenant, and Lambda for each.
pub struct Pair {
    extensions: [(Extension, ExtensionsApi); 2],
}

impl Pair {
    /// Starts both where they are to listen, before the server whose certificate was signed by the owner of
    /// `certificate`, and invokes them once.
    pub fn start(certificate: &Path, listen: [SocketAddr; 2]) -> Self {
        let server = format!("https://{ADDRESS}");
        let certificate = certificate.display().to_string();
        Self::before([&server, &server], &certificate, listen, "invoke")
    }

    /// The same before these servers, in this flush mode.
    pub fn before(
        servers: [&str; 2],
        certificate: &str,
        listen: [SocketAddr; 2],
        flush_mode: &str,
    ) -> Self {
        let [address, unchanged] = listen;
        let extensions = [
            (address, servers[0], TENANTS[0], None),
            (unchanged, servers[1], TENANTS[1], Some("false")),
        ];
        let extensions = extensions.map(|(address, server, tenant, unique_times)| {
            let lambda = ExtensionsApi::start();
            let mut sandbox = Sandbox::new()
                .binary(Path::new(BINARY))
                .lambda(&lambda)
                .set("PYROSCOPE_LISTEN_ADDRESS", address.to_string())
                .set("PYROSCOPE_LOG_LEVEL", "info")
                .set("PYROSCOPE_FLUSH_MODE", flush_mode)
                .set("PYROSCOPE_REMOTE_ADDRESS", server)
                .set("PYROSCOPE_TENANT_ID", tenant)
                .set("SSL_CERT_FILE", certificate);
            if let Some(unique_times) = unique_times {
                sandbox = sandbox.set("PYROSCOPE_UNIQUE_TIMES", unique_times);
            }
            let extension = sandbox.listening();
            lambda.invoke_and_wait();
            (extension, lambda)
        });
        Self { extensions }
    }

    pub fn addresses(&self) -> [SocketAddr; 2] {
        [0, 1].map(|which| self.extensions[which].0.addr())
    }

    /// Stops both, as Lambda does when they have asked for the next event.
    pub fn freeze(&self) {
        for (extension, lambda) in &self.extensions {
            lambda.wait_next();
            extension.freeze();
        }
    }

    /// Lets both go on, with an INVOKE that they find or without.
    pub fn thaw(&self, with_invoke: bool) {
        for (extension, lambda) in &self.extensions {
            if with_invoke {
                lambda.invoke_frozen();
            }
            extension.thaw();
        }
    }

    /// Ends both when they have sent what they have, if the server takes it at all.
    pub fn shut_down(self) -> [Account; 2] {
        for (_, lambda) in &self.extensions {
            // An invocation is held until all is sent, for two seconds at most.
            let mut flushes = 0..FLUSHES_MAX;
            while flushes.next().is_some() && lambda.invoke_and_wait() > FLUSH_DONE {}
        }
        self.shut_down_within(SHUTDOWN_TIME)
    }

    pub fn shut_down_within(self, time: Duration) -> [Account; 2] {
        self.extensions.map(|(mut extension, lambda)| {
            lambda.shutdown(time);
            extension.expect_exit(0);
            Account::of(&extension.totals(), extension.complaints())
        })
    }
}

/// The life of the sandbox with this number, until `is_enough` of what was uploaded.
pub fn live(
    subject: &Subject,
    service: &str,
    certificate: &Path,
    number: u8,
    is_enough: impl FnMut(&[Request]) -> bool,
) -> Result<Lived, String> {
    let [address, first, second] = addresses(number);
    let pair = Pair::start(certificate, [first, second]);
    let tap = Tap::listening(address, pair.addresses())?;
    let runtime = RuntimeApi::start(EVENT, usize::MAX)?;
    let name = format!("{}-{number}", subject.name);
    let mut function = Function::start(subject, service, &runtime, address, &name, &[])?;
    let enough = tap.wait_until(UPLOAD_GUARD, || function.is_running(), is_enough);
    enough.map_err(|error| {
        let failure = runtime.failure().unwrap_or_default();
        format!("{error} {failure}, see {}", function.log.display())
    })?;
    for answer in runtime.finish(UPLOAD_GUARD)? {
        if !answer.starts_with(WELL) {
            return Err(format!("an invocation was answered with {answer}"));
        }
    }
    drop(function);
    tap.wait_closed(UPLOAD_GUARD)?;
    let accounts = pair.shut_down();
    Ok(Lived {
        requests: tap.requests(),
        accounts,
    })
}

/// Where a sandbox's SDK uploads to, and where its extensions listen.
pub fn addresses(number: u8) -> [SocketAddr; 3] {
    [1, 2, 3].map(|net| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, net, number)), PORT))
}

/// The runtime with the function; killed when dropped.
pub struct Function {
    child: Child,
    pub log: PathBuf,
}

impl Function {
    pub fn start(
        subject: &Subject,
        service: &str,
        runtime: &RuntimeApi,
        upload_to: SocketAddr,
        name: &str,
        variables: &[(&str, String)],
    ) -> Result<Self, String> {
        let log = subject.log_file.with_file_name(format!("fleet-{name}.log"));
        let failed = |error| format!("{}: {error}", log.display());
        let file = File::create(&log).map_err(failed)?;
        let (program, arguments) = (&subject.command[0], &subject.command[1..]);
        let arguments = arguments.iter().map(|argument| {
            let is_folder = argument.to_string_lossy().starts_with("-Djava.io.tmpdir=");
            let own = PathBuf::from("-Djava.io.tmpdir=/tmp");
            if is_folder { own } else { argument.clone() }
        });
        let handler = subject.command.last().cloned().unwrap_or_default();
        let child = Command::new("/usr/bin/unshare")
            .args(["--mount", "/bin/sh", "-c", OWN_TMP])
            .arg(program)
            .args(arguments)
            .current_dir(&subject.task_folder)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LAMBDA_TASK_ROOT", &subject.task_folder)
            .env("AWS_LAMBDA_RUNTIME_API", runtime.address())
            .env("_HANDLER", handler)
            .envs(FUNCTION_VARIABLES)
            .envs(subject.variables.iter().map(|(name, value)| (name, value)))
            .env("FUNCTION_SERVICE", service)
            .env("FUNCTION_SDK_ADDRESS", format!("http://{upload_to}"))
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone().map_err(failed)?)
            .stderr(file)
            .spawn()
            .map_err(|error| format!("{}: {error}", subject.command[0].display()))?;
        Ok(Self { child, log })
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        let pid = i32::try_from(self.child.id()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), signal).map_err(|error| format!("{signal}: {error}"))
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const BINARY: &str = "/opt/extensions/pyroscope-lambda-extension";

const EVENT: &str = r#"{"seconds":1}"#;

/// What Lambda says of a function.
const FUNCTION_VARIABLES: [(&str, &str); 6] = [
    ("AWS_LAMBDA_FUNCTION_NAME", "fleet"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1024"),
    ("AWS_LAMBDA_LOG_GROUP_NAME", "fleet"),
    ("AWS_LAMBDA_LOG_STREAM_NAME", "fleet"),
    ("AWS_REGION", "eu-central-1"),
];

/// A sandbox has a /tmp of its own: Java's runtime client and its agent write their libraries there, and two of them
/// would write over each other's. Each makes way for the next in the same process.
const OWN_TMP: &str = "mount -t tmpfs tmpfs /tmp && exec \"$0\" \"$@\"";

const PORT: u16 = 4040;

/// For twelve runtimes that start on a busy machine, and an SDK that uploads every ten seconds.
pub const UPLOAD_GUARD: Duration = Duration::from_secs(120);

const SHUTDOWN_TIME: Duration = Duration::from_secs(2);

const FLUSH_DONE: Duration = Duration::from_millis(1900);
const FLUSHES_MAX: u32 = 20;
