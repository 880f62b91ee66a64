//! Writes heads: parts of outgoing requests, and the local server's answers.

use super::fields;

/// Appends one field line. The caller has checked that name and value are valid.
pub fn field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    debug_assert!(fields::is_token(name) && fields::is_field_value(value));
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the end of a request with a JSON body.
pub fn json(out: &mut Vec<u8>, body: &[u8]) {
    field(out, b"Content-Type", b"application/json");
    out.extend_from_slice(b"Content-Length: ");
    number(out, body.len() as u64);
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(body);
}

/// Appends a number in decimal.
pub fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(decimal(&mut [0; 20], value));
}

/// A number in decimal, written into `digits`.
pub fn decimal(digits: &mut [u8; 20], mut value: u64) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

/// An octet percent-encoded (RFC 3986 section 2.1).
#[must_use]
pub const fn percent_encoded(octet: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', HEX[(octet >> 4) as usize], HEX[(octet & 15) as usize]]
}

/// The answer to a client that waits before it sends its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Appends an answer without content.
///
/// Pyroscope's Go SDK accepts only 200 as success, and Node's does not read a body: so we send 200 and `Content-Length:
/// 0`.
pub fn reply(out: &mut Vec<u8>, status: u16, keep_alive: bool, http10: bool) {
    out.extend_from_slice(b"HTTP/1.1 ");
    number(out, u64::from(status));
    out.push(b' ');
    out.extend_from_slice(phrase(status).as_bytes());
    out.extend_from_slice(b"\r\nContent-Length: 0\r\n");
    match (keep_alive, http10) {
        (false, _) => out.extend_from_slice(b"Connection: close\r\n"),
        (true, true) => out.extend_from_slice(b"Connection: keep-alive\r\n"),
        (true, false) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase of a status we send (RFC 9110 section 15).
const fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies() {
        let text = |status, keep_alive, http10| {
            let mut out = Vec::new();
            reply(&mut out, status, keep_alive, http10);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(200, true, false),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        );
        assert_eq!(
            text(200, true, true),
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"
        );
        assert!(text(405, true, false).starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
        assert_eq!(
            text(413, false, false),
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
    }

    #[test]
    fn numbers() {
        for value in [0, 7, 10, 65536, u64::MAX] {
            let mut out = Vec::new();
            number(&mut out, value);
            assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }
}
