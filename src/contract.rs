//! The types that the core and the shell share: times, connection ids, commands.
//!
//! The facts are the methods of [`Relay`]; these are their arguments.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[cfg(doc)]
use crate::relay::Relay;

/// The time. The shell reads it once per turn.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Used for all deadlines.
    pub mono: Instant,
    /// Used for log lines, Lambda's deadlines, and the age of idle connections.
    pub unix_ms: u64,
}

impl Now {
    /// Minutes since 1970.
    #[must_use]
    pub const fn minute(self) -> u64 {
        self.unix_ms / 60_000
    }

    /// Time since `then`, by the clock that advanced more: a monotonic clock may stop during a freeze.
    #[must_use]
    pub fn since(self, then: Self) -> Duration {
        let wall = Duration::from_millis(self.unix_ms.saturating_sub(then.unix_ms));
        self.mono.saturating_duration_since(then.mono).max(wall)
    }
}

/// Identifies a connection. Never reused, so a late report finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnId(pub(crate) u64);

/// The two ends of an open connection, as the system reports them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Our end.
    pub local: SocketAddr,
    /// The peer's end.
    pub peer: SocketAddr,
}

impl Ends {
    /// Whether the peer is one of the `listeners` of this process, whatever name it was reached by: the system reports
    /// `0.0.0.0`, other names of this machine and IPv4 addresses written as IPv6 as real addresses.
    #[must_use]
    pub fn are_both_ours(self, listeners: &[SocketAddr]) -> bool {
        let (local, peer) = (
            self.local.ip().to_canonical(),
            self.peer.ip().to_canonical(),
        );
        let on_this_machine = peer == local || peer.is_loopback();
        let is_served = |listener: &SocketAddr| {
            let ip = listener.ip().to_canonical();
            // `[::]` accepts IPv4 too.
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
    /// It failed with this error.
    Io(ErrorKind),
}

impl End {
    /// As text for the log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Eof => "connection closed",
            Self::Io(kind) => error_words(kind),
        }
    }
}

/// A system error as text.
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

/// The peer whose name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// The Pyroscope server.
    Remote,
    /// Lambda's Extensions API.
    Lambda,
    /// One of AWS's stores of secrets.
    Store,
}

/// What the shell must do.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Close the connection and report nothing more about it.
    Close(ConnId),
    /// Close our side of the connection, and continue to read.
    HalfClose(ConnId),
    /// Connect, and report [`Relay::connected`] or [`Relay::ended`].
    Connect(ConnId, SocketAddr),
    /// Look up `host:port`, and report [`Relay::resolved`].
    Resolve(Peer, String),
    /// Listen for clients at as many of these addresses as possible, and report [`Relay::started`].
    Listen(Vec<SocketAddr>),
    /// Listen for Lambda's telemetry on a port that the system chooses, and report [`Relay::telemetry_bound`].
    ListenForTelemetry,
    /// Read the file and the directories of trusted roots, and report [`Relay::roots`].
    ReadRoots(Option<String>, Vec<String>),
    /// Read this file, which holds a credential, and report [`Relay::file_read`].
    ReadFile(String),
    /// Report everything that has arrived on listeners and connections by now: we are about to exit.
    LookOnceMore,
    /// Exit with this status.
    Exit(u8),
}

/// Trusted roots, read from the place that one setting names.
#[derive(Debug)]
pub struct RootSource {
    /// The setting.
    pub variable: &'static str,
    /// The content, or the error.
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
