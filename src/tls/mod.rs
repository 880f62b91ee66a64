//! TLS 1.2 and 1.3 to the server: the only module that uses `rustls`. [`trust`] decides which certificates are trusted.
//!
//! [`Client`] holds the trusted roots and the sessions to resume. [`Tls`] is one connection without a socket:
//! ciphertext is read into [`Tls::space`] and [`Tls::received`] returns plaintext; [`Tls::seal`] takes plaintext and
//! [`Tls::pending`] returns ciphertext.
//!
//! The provider is written out field by field, because using rustls' default links everything it supports. It omits
//! what a client without a certificate never does (signing), and ChaCha20-Poly1305: every Lambda processor has AES
//! instructions, and TLS 1.3 requires servers to offer AES-128-GCM.

mod provider;
mod trust;
mod words;

use std::fmt;
use std::sync::Arc;

use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{ClientConfig, ProtocolVersion};

use crate::http1::buffer::ReceiveBuffer;

use provider::provider;
pub use provider::random;
pub use trust::{Found, Roots};
use words::words;

/// Sessions kept for resumption. There is one server; the others are for more names.
const SESSIONS: usize = 4;

/// First size of the ciphertext buffer: a record of a short answer.
const INBOX_START: usize = 4096;

/// Longest flight of handshake messages accepted: rustls' own limit for one message is 64 KiB.
const INBOX_MAX: usize = 128 * 1024;

/// Most plaintext encrypted at once: full records, which with their overhead fit into one write.
pub const SEAL_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;

/// Most ciphertext that may be waiting when more is encrypted, to write both together: a head before its body.
const WAITING_MAX: usize = 4096;

/// More than TLS 1.2 or 1.3 adds to a record: header 5, explicit nonce 8, tag 16, content type 1.
const RECORD_OVERHEAD: usize = 32;

/// More than rustls itself must send before data: the answer to a server's `KeyUpdate`.
const QUEUED_MAX: usize = 64;

/// Most plaintext in one record (RFC 8446 section 5.1).
const RECORD_BYTES_MAX: usize = 16 * 1024;

/// The trusted roots, and the sessions of earlier connections.
#[derive(Debug)]
pub struct Client {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Client {
    /// A client for the server called `host`, which trusts `roots`.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub fn new(host: &str, roots: Roots) -> Result<Self, String> {
        let name = ServerName::try_from(host)
            .map_err(|_| "is not a name a certificate can have".to_owned())?
            .to_owned();
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| words(&error))?
            .dangerous() // rustls' word for any check that is not its own; ours is its own and one case more
            .with_custom_certificate_verifier(Arc::new(roots))
            .with_no_client_auth();
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            config: Arc::new(config),
            name,
        })
    }
}

/// One connection.
pub struct Tls {
    connection: UnbufferedClientConnection,
    /// Ciphertext that is not processed yet.
    inbox: ReceiveBuffer,
    /// The ciphertext to write is `outbox[sent..out_end]`.
    outbox: Vec<u8>,
    sent: usize,
    out_end: usize,
    may_send: bool,
    is_closed: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("may_send", &self.may_send)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// A connection with its first message pending.
    ///
    /// # Errors
    /// What is wrong, as text.
    pub fn new(client: &Client) -> Result<Self, String> {
        let connection =
            UnbufferedClientConnection::new(Arc::clone(&client.config), client.name.clone())
                .map_err(|error| words(&error))?;
        let mut tls = Self {
            connection,
            inbox: ReceiveBuffer::new(),
            outbox: Vec::new(),
            sent: 0,
            out_end: 0,
            may_send: false,
            is_closed: false,
        };
        tls.process(&mut ReceiveBuffer::new())?;
        Ok(tls)
    }

    /// Where the next ciphertext from the server is read to.
    pub fn space(&mut self) -> &mut [u8] {
        self.inbox.space(INBOX_START, INBOX_MAX)
    }

    /// `n` bytes of [`Tls::space`] have been read. Plaintext is appended to `plain`.
    ///
    /// # Errors
    /// Why the connection cannot continue, as text. Plaintext from before the error, even from the same read, is in
    /// `plain`.
    pub fn received(&mut self, n: usize, plain: &mut ReceiveBuffer) -> Result<(), String> {
        self.inbox.received(n);
        self.process(plain)?;
        if self.inbox.is_full(INBOX_MAX) {
            Err("a TLS message is too large".to_owned())
        } else {
            Ok(())
        }
    }

    /// Whether the handshake is done.
    #[must_use]
    pub const fn may_send(&self) -> bool {
        self.may_send
    }

    /// Whether the server has said that it sends no more (`close_notify`): it accepts no further request, even if the
    /// connection below stays open.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Whether the handshake resumed an earlier session. Only for the log.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// The version agreed on, once the handshake is done.
    #[must_use]
    pub fn version(&self) -> &'static str {
        match self.connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3",
            Some(ProtocolVersion::TLSv1_2) => "1.2",
            _ => "unknown",
        }
    }

    /// Encrypts the front of `plain`, as much as can be sent at once. Returns how many bytes that was.
    ///
    /// # Errors
    /// Why it is not possible, as text.
    pub fn seal(&mut self, plain: &[u8]) -> Result<usize, String> {
        let n = if self.out_end <= WAITING_MAX {
            plain.len().min(SEAL_BYTES_MAX)
        } else {
            0
        };
        let room = n + n.div_ceil(RECORD_BYTES_MAX) * RECORD_OVERHEAD + QUEUED_MAX;
        reserve(&mut self.outbox, self.out_end + room);
        // Always pass the received bytes: rustls remembers the positions of a split handshake message in them.
        let UnbufferedStatus { discard, state, .. } =
            self.connection.process_tls_records(self.inbox.bytes_mut());
        let sealed = match state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic
                .encrypt(&plain[..n], &mut self.outbox[self.out_end..])
                .map_err(|_| "the TLS connection is used up".to_owned())?,
            Ok(_) => return Err("the TLS connection does not take data".to_owned()),
            Err(error) => return Err(words(&error)),
        };
        self.out_end += sealed;
        self.inbox.consume(discard);
        Ok(n)
    }

    /// Ciphertext to write.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        &self.outbox[self.sent..self.out_end]
    }

    /// `n` bytes of [`Tls::pending`] have been written.
    pub const fn sent(&mut self, n: usize) {
        self.sent += n;
        if self.sent == self.out_end {
            (self.sent, self.out_end) = (0, 0);
        }
    }

    /// Frees the buffers while they are empty.
    pub fn trim(&mut self) {
        self.inbox.release();
        if self.out_end == 0 {
            self.outbox = Vec::new();
        }
    }

    fn process(&mut self, plain: &mut ReceiveBuffer) -> Result<(), String> {
        loop {
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(self.inbox.bytes_mut());
            let goes_on = match state {
                Err(error) => return Err(words(&error)),
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    loop {
                        match data.encode(&mut self.outbox[self.out_end..]) {
                            Ok(n) => {
                                self.out_end += n;
                                break;
                            }
                            Err(EncodeError::InsufficientSize(size)) => {
                                reserve(&mut self.outbox, self.out_end + size.required_size);
                            }
                            Err(EncodeError::AlreadyEncoded) => break,
                        }
                    }
                    true
                }
                // Encoded bytes are pending and are sent in order, so they count as transmitted.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        plain.append(record.map_err(|error| words(&error))?.payload);
                    }
                    true
                }
                Ok(ConnectionState::WriteTraffic(_)) => {
                    self.may_send = true;
                    false
                }
                // Reported once; the state of our own direction follows.
                Ok(ConnectionState::PeerClosed) => {
                    self.is_closed = true;
                    true
                }
                // It waits for more bytes.
                Ok(_) => false,
            };
            self.inbox.consume(discard);
            if !goes_on {
                return Ok(());
            }
        }
    }
}

/// Makes `buffer` at least `len` long.
fn reserve(buffer: &mut Vec<u8>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_nothing_waits_in_it() {
        let client = Client::new("localhost", Roots::mozilla()).unwrap();
        let mut tls = Tls::new(&client).unwrap();
        let hello = tls.pending().to_vec();
        tls.trim();
        assert_eq!(tls.pending(), hello, "it waits");
        tls.sent(hello.len());
        tls.trim();
        assert_eq!(tls.outbox.capacity(), 0);
    }
}
