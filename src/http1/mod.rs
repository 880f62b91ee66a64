//! HTTP/1.1 message framing, shared by the local server, the remote client and the Lambda client.
//!
//! Owns the wire format and nothing else: no connection, no policy, no clock. Bytes come in as slices of
//! any size, cut anywhere; what is returned says how far they were used.
//!
//! * [`buffer`]: where received bytes wait
//! * [`fields`]: names and values of header fields (RFC 9110 section 5)
//! * [`head`]: where a head ends, what it says, which body follows it (RFC 9112 section 6.3)
//! * [`body`]: reading a body by length, by chunks or until the connection closes
//! * [`response`]: a whole answer, for the two clients
//! * [`write`]: heads and canned replies

pub mod body;
pub mod buffer;
pub mod fields;
pub mod head;
pub mod response;
pub mod write;

use std::mem::MaybeUninit;

/// Longest head taken from any peer, in bytes.
///
/// The largest real one is a `name` with 30 labels of 3 KB each,
/// percent-encoded (Pyroscope's own limits); Go's server stops at 1 MiB, Node's at 16 KiB, nginx at 32 KiB.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most header fields in one head. SDKs send a dozen; Apache stops at 100.
pub const HEADERS_MAX: usize = 100;

/// Room for the fields of one head, for [`head::request`] and [`head::response`].
pub type HeaderSlots<'b> = [MaybeUninit<httparse::Header<'b>>; HEADERS_MAX];

/// Empty [`HeaderSlots`].
#[must_use]
pub const fn header_slots<'b>() -> HeaderSlots<'b> {
    [const { MaybeUninit::uninit() }; HEADERS_MAX]
}
