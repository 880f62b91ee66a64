//! A proxy's tunnel to the server: the CONNECT request and its answer (RFC 9110 section 9.3.6).

use crate::config::proxy::Proxy;
use crate::http1::buffer::ReceiveBuffer;
use crate::http1::response::ResponseReader;

/// A tunnel that is being opened.
#[derive(Debug)]
pub(super) struct Tunnel {
    request: Vec<u8>,
    sent: usize,
    reader: ResponseReader,
    status: u16,
}

impl Tunnel {
    /// A tunnel through that proxy, whose request is still to be written.
    pub(super) fn new(proxy: &Proxy) -> Self {
        Self {
            request: proxy.connect.clone(),
            sent: 0,
            // A success has no content (RFC 9112 section 6.3), and the content of a failure is not read.
            reader: ResponseReader::new(true),
            status: 0,
        }
    }

    pub(super) fn pending(&self) -> &[u8] {
        &self.request[self.sent..]
    }

    pub(super) const fn sent(&mut self, n: usize) {
        self.sent += n;
    }

    /// Reads the proxy's answer from `inbox`. Returns whether the tunnel is open: all further bytes are the server's.
    ///
    /// # Errors
    /// Why there is no tunnel, as text.
    pub(super) fn read(&mut self, inbox: &mut ReceiveBuffer) -> Result<bool, String> {
        let status = &mut self.status;
        let read = self
            .reader
            .read(inbox, |head| *status = head.status, |_| ());
        read.map_err(str::to_owned)?;
        if !self.reader.has_head() {
            return Ok(false);
        }
        match self.status {
            200..=299 if inbox.is_empty() => Ok(true),
            // In TLS the client speaks first.
            200..=299 => Err("it sent more than its answer".to_owned()),
            // tinyproxy answers 401.
            401 | 407 => Err(format!(
                "status {}, it wants other credentials",
                self.status
            )),
            status => Err(format!("status {status}")),
        }
    }
}
