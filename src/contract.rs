//! What the core and the shell say to each other: times, names of connections, commands.
//!
//! The facts are the methods of [`Relay`]; these are the words in them.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[cfg(doc)]
use crate::relay::Relay;

/// The time, read once per turn by the shell.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For every deadline.
    pub mono: Instant,
    /// For log lines, Lambda's deadlines, and how long a connection has been idle.
    pub unix_ms: u64,
}

impl Now {
    /// Minutes since 1970.
    #[must_use]
    pub const fn minute(self) -> u64 {
        self.unix_ms / 60_000
    }

    /// Time since `then`, by the clock that ran further: a monotonic clock may stand still in a freeze.
    #[must_use]
    pub fn since(self, then: Self) -> Duration {
        let wall = Duration::from_millis(self.unix_ms.saturating_sub(then.unix_ms));
        self.mono.saturating_duration_since(then.mono).max(wall)
    }
}

/// Names a connection. Never used twice, so a stale report finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub(crate) u64);

/// The two ends of a connection that stands, as the system names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Ours.
    pub local: SocketAddr,
    /// The peer's.
    pub peer: SocketAddr,
}

impl Ends {
    /// Whether the peer is one of the `listeners` of this process. However the peer was named: `0.0.0.0`, another name
    /// of this machine and an IPv4 address written as IPv6 show here as what they are.
    #[must_use]
    pub fn are_both_ours(self, listeners: &[SocketAddr]) -> bool {
        let (local, peer) = (
            self.local.ip().to_canonical(),
            self.peer.ip().to_canonical(),
        );
        let on_this_machine = peer == local || peer.is_loopback();
        let is_served = |listener: &SocketAddr| {
            let ip = listener.ip().to_canonical();
            // `[::]` takes IPv4 too.
            let serves_all = ip.is_unspecified() && (ip.is_ipv6() || peer.is_ipv4());
            listener.port() == self.peer.port() && (ip == peer || serves_all)
        };
        on_this_machine && listeners.iter().any(is_served)
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed its side.
    Eof,
    /// It failed.
    Io(ErrorKind),
}

impl End {
    /// In words, for the log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Eof => "connection closed",
            Self::Io(kind) => error_words(kind),
        }
    }
}

/// An error of the system in words.
#[must_use]
pub const fn error_words(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ConnectionRefused => "connection refused",
        ErrorKind::ConnectionReset => "connection reset",
        ErrorKind::ConnectionAborted => "connection aborted",
        ErrorKind::BrokenPipe => "connection closed while sending",
        ErrorKind::HostUnreachable => "host unreachable",
        ErrorKind::NetworkUnreachable => "network unreachable",
        ErrorKind::TimedOut => "timed out",
        ErrorKind::AddrInUse => "address in use",
        ErrorKind::AddrNotAvailable => "address not available",
        ErrorKind::PermissionDenied => "permission denied",
        ErrorKind::NotFound => "not found",
        _ => "input/output error",
    }
}

/// Whose name is to be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The Pyroscope server.
    Remote,
    /// Lambda's Extensions API.
    Lambda,
    /// One of AWS's stores of secrets.
    Store,
}

/// What the shell is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Close the connection; report nothing more of it.
    Close(ConnId),
    /// Close our side of the connection, go on reading.
    HalfClose(ConnId),
    /// Connect, and report [`Relay::connected`] or [`Relay::ended`].
    Connect(ConnId, SocketAddr),
    /// Look up `host:port`, and report [`Relay::resolved`].
    Resolve(Peer, String),
    /// Listen for clients at these addresses, as far as that is possible, and report [`Relay::started`].
    Listen(Vec<SocketAddr>),
    /// Listen for Lambda's telemetry on a port of the system's choice, and report [`Relay::telemetry_bound`].
    ListenForTelemetry,
    /// Read the file and the directories of trusted roots, and report [`Relay::roots`].
    ReadRoots(Option<String>, Vec<String>),
    /// Read that file, which holds a credential, and report [`Relay::file_read`].
    ReadFile(String),
    /// Report what has come by now on listeners and connections, whatever was told of it: we are about to leave.
    LookOnceMore,
    /// Leave with that exit status.
    Exit(u8),
}

/// Trusted roots, read from where one setting says.
#[derive(Debug)]
pub struct RootSource {
    /// The setting.
    pub variable: &'static str,
    /// What was there.
    pub pem: Result<Vec<u8>, ErrorKind>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_to_ourselves_is_known_by_its_two_ends() {
        for (listener, local, peer, ours) in [
            ("127.0.0.1:4040", "127.0.0.1:5", "127.0.0.1:4040", true),
            ("[::1]:4040", "[::1]:5", "[::1]:4040", true),
            (
                "127.0.0.1:4040",
                "[::ffff:127.0.0.1]:5",
                "[::ffff:127.0.0.1]:4040",
                true,
            ),
            ("0.0.0.0:4040", "127.0.0.1:5", "127.0.0.2:4040", true),
            ("0.0.0.0:4040", "10.1.2.3:5", "10.1.2.3:4040", true),
            ("[::]:4040", "10.1.2.3:5", "10.1.2.3:4040", true),
            ("[::]:4040", "[fd00::3]:5", "[fd00::3]:4040", true),
            ("10.1.2.3:4040", "10.1.2.3:5", "10.1.2.3:4040", true),
            // Another port, another machine, another listener of this machine.
            ("127.0.0.1:4040", "127.0.0.1:5", "127.0.0.1:4041", false),
            ("0.0.0.0:4040", "10.1.2.3:5", "10.1.2.4:4040", false),
            ("127.0.0.1:4040", "10.1.2.3:5", "10.1.2.3:4040", false),
            ("127.0.0.1:4040", "127.0.0.1:5", "127.0.0.2:4040", false),
            ("0.0.0.0:4040", "[::1]:5", "[::1]:4040", false),
        ] {
            let ends = Ends {
                local: local.parse().unwrap(),
                peer: peer.parse().unwrap(),
            };
            let listeners = ["192.0.2.1:4040".parse().unwrap(), listener.parse().unwrap()];
            assert_eq!(
                ends.are_both_ours(&listeners),
                ours,
                "{listener} {local} {peer}"
            );
            assert!(!ends.are_both_ours(&[]));
        }
    }
}
