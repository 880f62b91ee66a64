//! Certificates made at test time: an authority of our own and leaves signed by it.

use std::io::Write;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority nobody knows but who is handed its [`Authority::pem`].
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A server's certificate and its key.
pub struct Leaf {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// The names under which the stand-ins are reached.
pub const OUR_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key pair");
        let pem = params.self_signed(&key).expect("a root certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// The root certificate as PEM, as SSL_CERT_FILE wants it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The root certificate in a file, for SSL_CERT_FILE; gone when dropped.
    pub fn pem_file(&self) -> tempfile::NamedTempFile {
        let mut file = tempfile::Builder::new()
            .suffix(".pem")
            .tempfile()
            .expect("a temporary file");
        file.write_all(self.pem.as_bytes())
            .expect("the PEM written");
        file
    }

    /// A server certificate for the given DNS names and IP addresses.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names that fit in a certificate");
        params.distinguished_name = named("stand-in for Pyroscope");
        let key = KeyPair::generate().expect("a key pair");
        let certificate = params
            .signed_by(&key, &self.issuer)
            .expect("a leaf certificate");
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        Leaf {
            chain: vec![certificate.der().clone()],
            key: PrivateKeyDer::Pkcs8(der),
        }
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
