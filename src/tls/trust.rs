//! Which authorities a server's certificate must come from: [`Roots`], and the check against them.
//!
//! There is one more case than in `webpki`: `openssl req -x509` makes a certificate that is marked as an authority's,
//! and private servers use it as their own. It is accepted if it is byte for byte one that the user has named.
//! Everything else about it is checked as usual.
//!
//! A chain ends at one root. The built-in roots stay in the binary's read-only data, and only those with the name of an
//! issuer in the chain are copied for the check.

use std::iter;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use webpki::EndEntityCert;

use super::provider::SIGNATURES;

/// Certificate authorities to trust.
#[derive(Debug)]
pub struct Roots {
    /// Roots in addition to the built-in ones.
    added: RootCertStore,
    /// Digests of the certificates that were added.
    named: Vec<Digest>,
}

/// The SHA-256 of a certificate: a system's bundle has 200 KB of certificates, and only whole ones are compared.
type Digest = [u8; 32];

/// The result of reading a PEM file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    /// Number of certificates that are now trusted.
    pub added: usize,
    /// Number of blocks that are not a usable certificate.
    pub bad: usize,
}

impl Roots {
    /// The roots that Mozilla trusted when this program was built.
    #[must_use]
    pub fn mozilla() -> Self {
        Self {
            added: RootCertStore::empty(),
            named: Vec::new(),
        }
    }

    /// Adds the certificates in `pem`.
    pub fn add(&mut self, pem: &[u8]) -> Found {
        let mut found = Found::default();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            match certificate
                .ok()
                .and_then(|certificate| self.add_one(certificate))
            {
                Some(()) => found.added += 1,
                None => found.bad += 1,
            }
        }
        found
    }

    fn add_one(&mut self, certificate: CertificateDer<'_>) -> Option<()> {
        let digest = digest(&certificate)?;
        self.added.add(certificate).ok()?;
        self.named.push(digest);
        Some(())
    }
}

impl ServerCertVerifier for Roots {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(shown)?;
        match verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &self.issuers(shown, intermediates),
            intermediates,
            now,
            SIGNATURES.all,
        ) {
            // At this point the dates have been checked, the purpose has not.
            Err(error) if is_authority(&error) && self.has_named(shown) => check_purpose(shown)?,
            result => result?,
        }
        verify_server_name(&certificate, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &SIGNATURES)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

impl Roots {
    /// The roots that one of these certificates names as its issuer.
    fn issuers(
        &self,
        shown: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> RootCertStore {
        let mut store = RootCertStore::empty();
        for certificate in iter::once(shown).chain(intermediates) {
            // An unreadable certificate is refused later, with the reason.
            let Ok(certificate) = EndEntityCert::try_from(certificate) else {
                continue;
            };
            for roots in [webpki_roots::TLS_SERVER_ROOTS, &self.added.roots] {
                for root in roots {
                    if certificate.issuer() == root.subject.as_ref() {
                        store.roots.push(root.clone());
                    }
                }
            }
        }
        store
    }

    /// Whether the user has named exactly this certificate.
    fn has_named(&self, certificate: &CertificateDer<'_>) -> bool {
        digest(certificate).is_some_and(|digest| self.named.contains(&digest))
    }
}

/// Whether the only error is that the certificate is an authority's.
fn is_authority(error: &Error) -> bool {
    let Error::InvalidCertificate(CertificateError::Other(OtherError(other))) = error else {
        return false;
    };
    matches!(other.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// Refuses a certificate whose stated purposes (RFC 5280 section 4.2.1.12) do not include servers.
///
/// A search for the bytes is enough: only the user can have put others into a certificate that the user has named.
fn check_purpose(certificate: &[u8]) -> Result<(), Error> {
    const PURPOSES: &[u8] = b"\x06\x03\x55\x1d\x25";
    const SERVER: &[u8] = b"\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01";
    let has = |bytes: &[u8]| certificate.windows(bytes.len()).any(|part| part == bytes);
    if has(PURPOSES) && !has(SERVER) {
        return Err(CertificateError::InvalidPurpose.into());
    }
    Ok(())
}

fn digest(certificate: &[u8]) -> Option<Digest> {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    digest.as_ref().try_into().ok()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, Issuer, KeyPair};

    use super::*;

    /// A certificate that says it was issued by "Internet Security Research Group", whose names are in this order.
    fn issued_by_isrg(common_name: &str) -> CertificateDer<'static> {
        let mut name = DistinguishedName::new();
        for (kind, value) in [
            (DnType::CountryName, "US"),
            (DnType::OrganizationName, "Internet Security Research Group"),
            (DnType::CommonName, common_name),
        ] {
            name.push(kind, DnValue::PrintableString(value.try_into().unwrap()));
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = name;
        let issuer = Issuer::new(params, KeyPair::generate().unwrap());
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::default().signed_by(&key, &issuer);
        leaf.unwrap().der().clone()
    }

    fn has(root: &rustls::pki_types::TrustAnchor<'_>, name: &str) -> bool {
        let subject: &[u8] = &root.subject;
        subject.ends_with(name.as_bytes())
    }

    #[test]
    fn of_the_built_in_roots_the_issuers_of_the_chain_are_tried_and_no_others() {
        let roots = Roots::mozilla();
        let [first, second] = ["ISRG Root X1", "ISRG Root X2"].map(issued_by_isrg);
        let stranger = issued_by_isrg("ISRG Root X0");
        let junk = CertificateDer::from(vec![0x30, 0x00]);

        let found = roots.issuers(&first, &[]).roots;
        assert_eq!(found.len(), 1, "of a leaf");
        assert!(has(&found[0], "ISRG Root X1"));
        let found = roots.issuers(&stranger, &[junk, second]).roots;
        assert_eq!(found.len(), 1, "of an intermediate, whatever else is shown");
        assert!(has(&found[0], "ISRG Root X2"));
        assert_eq!(roots.issuers(&stranger, &[]).roots, []);
    }

    #[test]
    fn an_added_root_is_tried_as_well() {
        let mut params = CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let mut roots = Roots::mozilla();
        assert_eq!(roots.issuers(own.der(), &[]).roots, []);
        assert_eq!(roots.add(own.pem().as_bytes()).added, 1);
        assert_eq!(roots.issuers(own.der(), &[]).roots.len(), 1);
    }
}
