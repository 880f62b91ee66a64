//! HTTP/1.1 message framing, shared by the local server, the client for the server and the Lambda client.
//!
//! Knows the wire format and nothing else: no connection, no policy, no clock. Input is slices of any size, cut
//! anywhere; results say how much of them was used.
//!
//! * [`buffer`]: the buffer for received bytes
//! * [`fields`]: names and values of header fields (RFC 9110 section 5)
//! * [`head`]: where a head ends, what it says, which body follows it (RFC 9112 section 6.3)
//! * [`body`]: reading a body by length, by chunks or until the connection closes
//! * [`refusal`]: why a request is refused, and with which status
//! * [`request`]: a whole request, for the two servers: of the clients, and of Lambda's telemetry
//! * [`response`]: a whole answer, for the two clients
//! * [`write`]: heads and canned replies

pub mod body;
pub mod buffer;
pub mod fields;
pub mod head;
pub mod refusal;
pub mod request;
pub mod response;
pub mod write;

use std::mem::MaybeUninit;

/// Longest head accepted from any peer, in bytes.
///
/// The largest real one is a `name` with 30 labels of 3 KB each, percent-encoded (Pyroscope's own limits); Go's server
/// stops at 1 MiB, Node's at 16 KiB, nginx at 32 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most header fields in one head. SDKs send about twelve; Apache stops at 100.
pub const HEADERS_MAX: usize = 100;

/// Storage for the fields of one head, for [`head::request`] and [`head::response`].
pub type HeaderSlots<'b> = [MaybeUninit<httparse::Header<'b>>; HEADERS_MAX];

/// Empty [`HeaderSlots`].
#[must_use]
pub const fn header_slots<'b>() -> HeaderSlots<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}
