//! What went wrong in TLS, in words for the log.

use rustls::{CertificateError, Error, OtherError};

/// An error as text. Written out, because the small build has no `Debug` text.
pub(super) fn words(error: &Error) -> String {
    let text = match error {
        Error::InvalidCertificate(reason) => {
            return format!("the server's certificate {}", certificate_words(reason));
        }
        Error::AlertReceived(alert) => {
            let number = u8::from(*alert);
            return format!(
                "the server sent the TLS alert {number}{}",
                alert_words(number)
            );
        }
        Error::PeerIncompatible(_) => "the server has no TLS version or cipher in common with us",
        Error::PeerMisbehaved(_) => "the server broke the TLS protocol",
        Error::NoCertificatesPresented => "the server showed no certificate",
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => "the server does not speak TLS here",
        Error::DecryptError => "a TLS record was damaged on the way",
        _ => "TLS failed",
    };
    text.to_owned()
}

/// The name of an alert that servers send (RFC 8446 section 6).
const fn alert_words(number: u8) -> &'static str {
    match number {
        40 => ", handshake failure",
        42..=46 | 48 => ", it rejects a certificate",
        70 => ", protocol version",
        71 => ", insufficient security",
        80 => ", internal error",
        112 => ", unrecognized name",
        116 => ", it requires a client certificate",
        _ => "",
    }
}

/// Completes "the server's certificate …".
fn certificate_words(reason: &CertificateError) -> &'static str {
    match reason {
        CertificateError::UnknownIssuer => {
            "is issued by nobody we trust: name a PEM file with its issuer in SSL_CERT_FILE"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "has expired: renew it on the server"
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "is not for the host in the address: use a name that it is for"
        }
        CertificateError::BadSignature => "has a bad signature, or a key that is too weak",
        CertificateError::BadEncoding => "is malformed",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for a server"
        }
        CertificateError::Other(OtherError(other)) => chain_words(other.downcast_ref()),
        _ => "cannot be trusted",
    }
}

/// The same for an error in the chain.
const fn chain_words(reason: Option<&webpki::Error>) -> &'static str {
    match reason {
        Some(webpki::Error::UnsupportedCriticalExtension) => "requires an unknown extension",
        Some(webpki::Error::CaUsedAsEndEntity) => "is an authority's: name it in SSL_CERT_FILE",
        Some(webpki::Error::EndEntityUsedAsCa) => "is issued by a server, not by an authority",
        Some(webpki::Error::PathLenConstraintViolated) => {
            "is issued by an authority that may not issue it"
        }
        Some(webpki::Error::NameConstraintViolation) => {
            "is for a host that its authority may not certify"
        }
        _ => "cannot be trusted",
    }
}
