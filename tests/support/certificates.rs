//! Certificates made at test time: an authority of our own and leaves signed by it.

use std::io::Write;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A certificate authority nobody knows but who is handed its [`Authority::pem`].
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    /// What a server shows behind a certificate of this authority: none for a root.
    chain: Vec<CertificateDer<'static>>,
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
        Self::made(name, |_| {})
    }

    /// A root whose certificate says something out of the ordinary.
    pub fn made(name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        Self::keyed(name, KeyPair::generate().expect("a key pair"), adjust)
    }

    /// The same with a key of any kind.
    pub fn keyed(name: &str, key: KeyPair, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        let params = authority(name, adjust);
        let pem = params.self_signed(&key).expect("a root certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
            chain: Vec::new(),
        }
    }

    /// An authority that this one vouches for.
    pub fn intermediate(&self, name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> Self {
        self.intermediate_keyed(name, KeyPair::generate().expect("a key pair"), adjust)
    }

    /// The same with a key of any kind.
    pub fn intermediate_keyed(
        &self,
        name: &str,
        key: KeyPair,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let params = authority(name, adjust);
        let signed = params.signed_by(&key, &self.issuer);
        let certificate = signed.expect("an intermediate certificate");
        let own = vec![certificate.der().clone()];
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            chain: [own, self.chain.clone()].concat(),
        }
    }

    /// The root certificate as PEM, as SSL_CERT_FILE wants it.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The root certificate in a file, for SSL_CERT_FILE; gone when dropped.
    pub fn pem_file(&self) -> tempfile::NamedTempFile {
        pem_file(&self.pem)
    }

    /// A server certificate for the given DNS names and IP addresses.
    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.issue(names, &KeyPair::generate().expect("a key pair"), |_| {})
    }

    /// A server certificate that says something out of the ordinary, for a key of any kind.
    pub fn issue(
        &self,
        names: &[&str],
        key: &KeyPair,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let signed = server(names, adjust).signed_by(key, &self.issuer);
        let certificate = signed.expect("a leaf certificate");
        let own = vec![certificate.der().clone()];
        Leaf::new([own, self.chain.clone()].concat(), key)
    }

    /// A server certificate for a public key, as PEM.
    pub fn issue_for(
        &self,
        names: &[&str],
        key: &impl PublicKeyData,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> String {
        let signed = server(names, adjust).signed_by(key, &self.issuer);
        signed.expect("a leaf certificate").pem()
    }
}

impl Leaf {
    fn new(chain: Vec<CertificateDer<'static>>, key: &KeyPair) -> Self {
        let der = PrivatePkcs8KeyDer::from(key.serialize_der());
        Self {
            chain,
            key: PrivateKeyDer::Pkcs8(der),
        }
    }

    /// What `openssl req -x509` makes: a certificate that only its own key vouches for, and that says it is an
    /// authority's. With it as PEM, for SSL_CERT_FILE.
    pub fn self_signed_authority(
        names: &[&str],
        key: &KeyPair,
        adjust: impl FnOnce(&mut CertificateParams),
    ) -> (Self, String) {
        let mut params = server(names, adjust);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(key).expect("a certificate");
        let leaf = Self::new(vec![certificate.der().clone()], key);
        (leaf, certificate.pem())
    }

    /// A certificate and its key, as PEM.
    pub fn from_pem(certificate: &[u8], key: &[u8]) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate);
        Self {
            chain: chain.collect::<Result<_, _>>().expect("a certificate"),
            key: PrivateKeyDer::from_pem_slice(key).expect("a key"),
        }
    }

    /// A server certificate that only its own key vouches for.
    pub fn self_signed(names: &[&str]) -> Self {
        let key = KeyPair::generate().expect("a key pair");
        let signed = server(names, |_| {}).self_signed(&key);
        let certificate = signed.expect("a leaf certificate");
        Self::new(vec![certificate.der().clone()], &key)
    }
}

/// A file for SSL_CERT_FILE; gone when dropped.
pub fn pem_file(pem: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .suffix(".pem")
        .tempfile()
        .expect("a temporary file");
    file.write_all(pem.as_bytes()).expect("the PEM written");
    file
}

fn authority(name: &str, adjust: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    adjust(&mut params);
    params
}

fn server(names: &[&str], adjust: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names that fit in a certificate");
    params.distinguished_name = named("stand-in for Pyroscope");
    adjust(&mut params);
    params
}

pub fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
