//! The Pyroscope server as a child process: all of it in one, on loopback, its storage a folder that goes with it.
//!
//! Its limits are those that it has by default. Of its two architectures it has the second here, which is what the next major version has. There its parts speak
//! gRPC with each other, so its HTTP can be https.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::KeyPair;
use tempfile::TempDir;

use crate::log::Log;
use crate::support::certificates::{Authority, OUR_NAMES};
use crate::support::monitor::Monitor;

pub struct Server {
    child: Child,
    /// Its storage, its certificate and its key.
    _folder: TempDir,
}

impl Server {
    /// Starts it, with a certificate by `authority`, and returns when all its parts run and it has elected itself.
    pub fn start(parts: &Path, authority: &Authority) -> Result<Self, String> {
        let folder = TempDir::new().map_err(|error| format!("a temporary folder: {error}"))?;
        let key = KeyPair::generate().map_err(|error| format!("a key: {error}"))?;
        let certificate = authority.issue_for(&OUR_NAMES, &key, |_| {});
        fs::write(folder.path().join(CERTIFICATE), certificate)
            .and_then(|()| fs::write(folder.path().join(KEY), key.serialize_pem()))
            .map_err(|error| format!("{}: {error}", folder.path().display()))?;
        let (reader, writer) = std::io::pipe().map_err(|error| format!("a pipe: {error}"))?;
        let log_file = parts.join("server.log");
        let copy =
            File::create(&log_file).map_err(|error| format!("{}: {error}", log_file.display()))?;
        let binary = parts.join("server/pyroscope");
        let child = Command::new(&binary)
            .args(ARGUMENTS)
            .current_dir(folder.path())
            .env_clear()
            .env("PYROSCOPE_V2", "true")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let log = Log::collected(reader, copy);
        let server = Self {
            child,
            _folder: folder,
        };
        server.wait_until_started(&log)?;
        Ok(server)
    }

    fn wait_until_started(&self, log: &Monitor<Log>) -> Result<(), String> {
        let started = |log: &mut Log| {
            let is_there = |mark: &&str| log.lines.iter().any(|line| line.contains(*mark));
            let started = STARTED.iter().all(is_there);
            (started || log.closed).then_some(started)
        };
        match log.wait_within(START_GUARD, started) {
            Some(true) => Ok(()),
            Some(false) => {
                let last = log.look(|log| log.lines.last().cloned().unwrap_or_default());
                Err(format!("the server has ended: {last}"))
            }
            None => Err(format!("the server has not started within {START_GUARD:?}")),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // What it has stored goes too, so there is nothing that it would have to bring to an end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In a network where nothing else is; its own port is where SDKs send to.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 4041);

const ARGUMENTS: [&str; 32] = [
    "-target=all",
    "-auth.multitenancy-enabled=true",
    "-server.http-listen-address=127.0.0.1",
    "-server.http-listen-port=4041",
    "-server.http-tls-cert-path=certificate.pem",
    "-server.http-tls-key-path=key.pem",
    "-server.grpc-listen-address=127.0.0.1",
    // The first architecture is the default, and is not started at all.
    "-write-path=segment-writer",
    "-enable-query-backend=true",
    "-all.enable-v1-write-path=false",
    "-all.enable-v1-read-path=false",
    "-storage.backend=filesystem",
    "-storage.filesystem.dir=profiles",
    "-metastore.data-dir=metastore",
    "-metastore.raft.dir=raft",
    "-metastore.raft.snapshots-dir=snapshots",
    "-metastore.raft.server-id=127.0.0.1:9099",
    "-metastore.raft.bind-address=127.0.0.1:9099",
    "-metastore.raft.advertise-address=127.0.0.1:9099",
    // There is only the loopback interface, which none of its parts takes by itself.
    "-distributor.ring.instance-addr=127.0.0.1",
    "-segment-writer.lifecycler.addr=127.0.0.1",
    "-overrides-exporter.ring.instance-addr=127.0.0.1",
    "-query-frontend.instance-addr=127.0.0.1",
    "-memberlist.bind-addr=127.0.0.1",
    "-memberlist.advertise-addr=127.0.0.1",
    "-metastore.address=127.0.0.1:9095",
    "-query-backend.address=127.0.0.1:9095",
    // Nothing to wait for where there is one of each.
    "-metastore.min-ready-duration=0s",
    "-segment-writer.min-ready-duration=0s",
    // Its own profile and its report home are not wanted.
    "-self-profiling.disable-push=true",
    "-usage-stats.enabled=false",
    "-log.level=info",
];

const CERTIFICATE: &str = "certificate.pem";
const KEY: &str = "key.pem";

const STARTED: [&str; 2] = ["msg=\"Pyroscope started\"", "entering leader state"];

/// For an election with one vote, which waits for a leader first.
const START_GUARD: Duration = Duration::from_secs(60);
