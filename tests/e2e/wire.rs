//! What is sent to the extension, listened to on the sandbox's own network.
//!
//! The far end sees what the extension makes of a request. How an SDK has framed it, and what it has asked for on the
//! way, is only here. A request's head is one packet: it is well below what loopback carries in one.

use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::support::monitor::Monitor;

/// The heads of requests to the extension.
pub struct Wire {
    heads: Arc<Monitor<Vec<Vec<String>>>>,
}

impl Wire {
    /// Listens from now on, until the process ends.
    pub fn tapped() -> Result<Self, String> {
        let every_protocol = Protocol::from(i32::from(3_u16.to_be()));
        let mut socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(every_protocol))
            .map_err(|error| format!("to listen to the network: {error}"))?;
        let heads = Arc::new(Monitor::new(Vec::new()));
        let collecting = Arc::clone(&heads);
        thread::spawn(move || {
            let mut packet = vec![0; PACKET_BYTES_MAX];
            while let Ok(length) = socket.read(&mut packet) {
                if let Some(head) = to_extension(&packet[..length]).and_then(head) {
                    collecting.change(|heads| heads.push(head));
                }
            }
        });
        Ok(Self { heads })
    }

    /// What was sent before belongs to another run.
    pub fn forget(&self) {
        self.heads.change(Vec::clear);
    }

    /// Whether a head has a line that begins so, in lower case.
    pub fn has_seen(&self, line: &str) -> bool {
        self.heads.look(|heads| seen(heads, line))
    }

    /// Waits until it has; what was sent is not always listened to at once.
    pub fn sees(&self, line: &str) -> bool {
        let seen = |heads: &mut Vec<Vec<String>>| seen(heads, line).then_some(());
        self.heads.wait_within(LAG_MAX, seen).is_some()
    }
}

fn seen(heads: &[Vec<String>], line: &str) -> bool {
    heads.iter().flatten().any(|other| other.starts_with(line))
}

/// The lines of a request's head, in lower case.
fn head(payload: &[u8]) -> Option<Vec<String>> {
    let text = String::from_utf8_lossy(payload);
    let (head, _) = text.split_once("\r\n\r\n")?;
    if !head.starts_with("POST ") {
        return None;
    }
    Some(head.split("\r\n").map(str::to_lowercase).collect())
}

/// What a TCP packet to the extension's port carries: RFC 791, 8200 and 9293. No SDK's has an extension header.
fn to_extension(packet: &[u8]) -> Option<&[u8]> {
    let segment = match packet.first()? >> 4 {
        4 if packet.get(9)? == &TCP => packet.get(usize::from(packet[0] & 0xf) * 4..)?,
        6 if packet.get(6)? == &TCP => packet.get(40..)?,
        _ => return None,
    };
    if segment.get(2..4)? != PORT.to_be_bytes() {
        return None;
    }
    segment.get(usize::from(segment.get(12)? >> 4) * 4..)
}

/// What the far end cannot see of a request: a line of its head, and what it is called in the report.
pub const MANNERS: [(&str, &str); 2] = [
    ("transfer-encoding: chunked", "chunked"),
    ("expect: 100-continue", "expect"),
];

/// For a busy machine: what is asked for was sent before the sandbox ended.
const LAG_MAX: Duration = Duration::from_secs(5);

const PORT: u16 = 4040;
const TCP: u8 = 6;

/// As large as IP has them.
const PACKET_BYTES_MAX: usize = 65_536;
