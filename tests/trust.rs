//! Whom does it trust? The cases of badssl.com and a few more, with certificates made here: what is good is taken,
//! what is bad is refused with its reason, and nothing is said to whoever is not trusted.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nix::sys::signal::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree,
    IsCa, KeyPair, NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519,
    PKCS_RSA_SHA256, PublicKeyData, SanType, SignatureAlgorithm, date_time_ymd,
};
use rustls::version::{TLS12, TLS13};
use support::certificates::{Authority, Leaf, OUR_NAMES, named, pem_file};
use support::pyroscope::{Pyroscope, Tls};
use support::sandbox::{Extension, Sandbox};
use tempfile::NamedTempFile;

const RSA_2048: &str = include_str!("support/keys/rsa2048.pem");
const RSA_1024: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/support/keys/rsa1024.pem"
);

type Adjust = fn(&mut CertificateParams);

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).expect("a key pair")
}

/// What [`KeyPair`] reads of a file that begins with a remark.
fn rsa_2048() -> KeyPair {
    let at = RSA_2048.find("-----BEGIN").expect("PEM");
    KeyPair::from_pem(&RSA_2048[at..]).expect("an RSA key")
}

fn relay(roots: &NamedTempFile, url: &str) -> Extension {
    Sandbox::new()
        .set("PYROSCOPE_DEV_MODE", "true")
        .set("PYROSCOPE_REMOTE_ADDRESS", url)
        .set("SSL_CERT_FILE", path(roots.path()))
        .listening()
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A payload arrives.
#[track_caller]
fn expect_trusted(what: &str, root: &Authority, leaf: Leaf) {
    expect_trusted_with(what, root.pem(), leaf);
}

#[track_caller]
fn expect_trusted_with(what: &str, roots: &str, leaf: Leaf) {
    let server = Pyroscope::https(Tls::with(leaf));
    let roots = pem_file(roots);
    let extension = relay(&roots, &server.url());
    assert_eq!(extension.post("/ingest", b"payload").status, 200, "{what}");
    assert_eq!(server.wait_only().payload(), b"payload", "{what}");
    assert_eq!(extension.complaints(), Vec::<String>::new(), "{what}");
}

/// The payload is taken from the client and kept, the reason told; not a byte of it is sent.
#[track_caller]
fn expect_refused(what: &str, root: &Authority, leaf: Leaf, reason: &str) -> Extension {
    expect_refused_with(what, root.pem(), leaf, reason)
}

#[track_caller]
fn expect_refused_with(what: &str, roots: &str, leaf: Leaf, reason: &str) -> Extension {
    let server = Pyroscope::https(Tls::with(leaf));
    let roots = pem_file(roots);
    let extension = relay(&roots, &server.url());
    assert_eq!(extension.post("/ingest", b"payload").status, 200, "{what}");
    expect_reason(&extension, what, reason);
    assert_eq!(server.requests().len(), 0, "{what}");
    extension
}

#[track_caller]
fn expect_reason(extension: &Extension, what: &str, reason: &str) {
    let line = extension.wait_complaint(&["cannot reach the server"]);
    println!("{what}: {line}");
    assert!(line.contains(reason), "{what}: {line}");
}

#[test]
fn good_ones_are_trusted() {
    let root = Authority::new("Bench Root");
    let roots = root.pem_file();
    let plain: Adjust = |_| {};
    for (what, key) in [
        ("P-256", key(&PKCS_ECDSA_P256_SHA256)),
        ("P-384", key(&PKCS_ECDSA_P384_SHA384)),
        ("RSA", rsa_2048()),
    ] {
        expect_trusted(what, &root, root.issue(&OUR_NAMES, &key, plain));
        for version in [&TLS12, &TLS13] {
            let leaf = root.issue(&OUR_NAMES, &key, plain);
            let server = Pyroscope::https(Tls::with(leaf).only(version));
            let extension = relay(&roots, &server.url());
            assert_eq!(extension.post("/ingest", b"payload").status, 200);
            server.wait_only();
        }
    }
    let three = root.intermediate("Bench Intermediate", plain);
    expect_trusted("a chain of three", &root, three.leaf(&OUR_NAMES));
    let four = three.intermediate("Bench Second", plain);
    expect_trusted("a chain of four", &root, four.leaf(&OUR_NAMES));
    expect_trusted(
        "an intermediate as the root",
        &three,
        three.leaf(&OUR_NAMES),
    );
    let constrained = root.intermediate("Bench Intermediate", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("localhost".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    let host = constrained.leaf(&["localhost"]);
    let server = Pyroscope::https(Tls::with(host));
    let by_name = format!("https://localhost:{}", server.addr().port());
    let extension = relay(&roots, &by_name);
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    server.wait_only();
    // The dates of a root that somebody chose to trust are not looked at (RFC 5280 section 6.1.1).
    let expired = Authority::made("Expired Root", |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    expect_trusted("an expired root", &expired, expired.leaf(&OUR_NAMES));
}

#[test]
fn bad_leaves_are_refused() {
    const CERTIFICATE: &str = "the server's certificate ";
    let root = Authority::new("Bench Root");
    let cases: [(&str, &[&str], Adjust, &str); 7] = [
        (
            "expired",
            &OUR_NAMES,
            |params| params.not_after = date_time_ymd(2024, 1, 1),
            "has expired",
        ),
        (
            "not valid yet",
            &OUR_NAMES,
            |params| params.not_before = date_time_ymd(2900, 1, 1),
            "is not valid yet",
        ),
        (
            "another name",
            &["example.com", "127.0.0.2"],
            |_| {},
            "is not for the host",
        ),
        (
            "a name as the subject alone",
            &[],
            |params| params.distinguished_name = named("localhost"),
            "is not for the host",
        ),
        (
            "a name that only begins like ours",
            &["localhost.example.com"],
            |params| {
                params.subject_alt_names.push(SanType::IpAddress(
                    "127.0.0.11".parse().expect("an address"),
                ));
            },
            "is not for the host",
        ),
        (
            "for a client",
            &OUR_NAMES,
            |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            },
            "is not for a server",
        ),
        (
            "an authority as the server",
            &OUR_NAMES,
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "is an authority's",
        ),
    ];
    for (what, names, adjust, reason) in cases {
        let leaf = root.issue(names, &key(&PKCS_ECDSA_P256_SHA256), adjust);
        let reason = [CERTIFICATE, reason].concat();
        expect_refused(what, &root, leaf, &reason);
    }
    let mut extension = expect_refused(
        "an algorithm of no public authority",
        &root,
        root.issue(&OUR_NAMES, &key(&PKCS_ED25519), |_| {}),
        "the server sent the TLS alert 40, handshake failure",
    );
    extension.signal(Signal::SIGTERM);
    extension.expect_exit(0);
    extension.totals().expect(0, 1);
}

#[test]
fn bad_chains_are_refused() {
    const UNKNOWN: &str = "the server's certificate is issued by nobody we trust";
    let root = Authority::new("Bench Root");
    let refuse = |what: &str, leaf: Leaf, reason: &str| {
        expect_refused(what, &root, leaf, reason);
    };
    refuse("self-signed", Leaf::self_signed(&OUR_NAMES), UNKNOWN);
    let stranger = Authority::new("Somebody Else");
    refuse("an unknown root", stranger.leaf(&OUR_NAMES), UNKNOWN);
    let namesake = Authority::new("Bench Root");
    refuse(
        "a root that only has the name",
        namesake.leaf(&OUR_NAMES),
        "the server's certificate ",
    );
    let mut incomplete = root
        .intermediate("Bench Intermediate", |_| {})
        .leaf(&OUR_NAMES);
    incomplete.chain.truncate(1);
    refuse("an incomplete chain", incomplete, UNKNOWN);
    let expired = root.intermediate("Bench Intermediate", |params| {
        params.not_after = date_time_ymd(2024, 1, 1)
    });
    refuse(
        "an expired intermediate",
        expired.leaf(&OUR_NAMES),
        "the server's certificate has expired",
    );
    let no_authority = root.intermediate("Bench Intermediate", |params| {
        params.is_ca = IsCa::ExplicitNoCa
    });
    refuse(
        "a server as the intermediate",
        no_authority.leaf(&OUR_NAMES),
        "the server's certificate is issued by a server",
    );
    let short = root.intermediate("Bench Intermediate", |params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    refuse(
        "a chain longer than its authority allows",
        short.intermediate("Bench Second", |_| {}).leaf(&OUR_NAMES),
        "the server's certificate is issued by an authority that may not issue it",
    );
    let constrained = root.intermediate("Bench Intermediate", |params| {
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: Vec::new(),
        });
    });
    refuse(
        "a name its authority must not vouch for",
        constrained.leaf(&["localhost", "127.0.0.1"]),
        "the server's certificate is for a host that its authority may not certify",
    );
}

/// A server of one's own often shows a certificate that says it is an authority's, since that is what
/// `openssl req -x509` makes. Whoever names that very certificate trusts that server, as Go has it.
#[test]
fn a_self_signed_authority_that_is_named_may_serve() {
    let plain: Adjust = |_| {};
    for (what, key) in [("P-256", key(&PKCS_ECDSA_P256_SHA256)), ("RSA", rsa_2048())] {
        let (leaf, pem) = Leaf::self_signed_authority(&OUR_NAMES, &key, plain);
        expect_trusted_with(what, &pem, leaf);
        for version in [&TLS12, &TLS13] {
            let (leaf, pem) = Leaf::self_signed_authority(&OUR_NAMES, &key, plain);
            let roots = pem_file(&pem);
            let server = Pyroscope::https(Tls::with(leaf).only(version));
            let extension = relay(&roots, &server.url());
            assert_eq!(extension.post("/ingest", b"payload").status, 200);
            server.wait_only();
        }
    }
    let (leaf, pem) =
        Leaf::self_signed_authority(&OUR_NAMES, &key(&PKCS_ECDSA_P256_SHA256), |params| {
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
    let several = [Authority::new("Other Root").pem(), &pem].concat();
    expect_trusted_with("for a server, one of several", &several, leaf);
    let (leaf, pem) = Leaf::self_signed_authority(&OUR_NAMES, &key(&PKCS_ECDSA_P256_SHA256), plain);
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("0a.pem"), pem).expect("the file written");
    let server = Pyroscope::https(Tls::with(leaf));
    let extension = Sandbox::relay_only(&server)
        .set("SSL_CERT_DIR", path(folder.path()))
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    server.wait_only();
}

#[test]
fn a_self_signed_authority_is_refused_for_all_else() {
    const AUTHORITYS: &str = "the server's certificate is an authority's";
    let ours = key(&PKCS_ECDSA_P256_SHA256);
    let made = |names: &[&str], key: &KeyPair, adjust: Adjust| {
        Leaf::self_signed_authority(names, key, adjust)
    };
    let (leaf, _) = made(&OUR_NAMES, &ours, |_| {});
    let other = Authority::new("Bench Root");
    expect_refused("not named", &other, leaf, AUTHORITYS);
    let (leaf, _) = made(&OUR_NAMES, &ours, |_| {});
    let (_, namesake) = made(&OUR_NAMES, &key(&PKCS_ECDSA_P256_SHA256), |_| {});
    expect_refused_with("a namesake is named", &namesake, leaf, AUTHORITYS);
    // The same name and key; a renewed one is another certificate.
    let (leaf, _) = made(&OUR_NAMES, &ours, |_| {});
    let (_, earlier) = made(&OUR_NAMES, &ours, |params| {
        params.not_after = date_time_ymd(2800, 1, 1);
    });
    expect_refused_with(
        "another of the same key is named",
        &earlier,
        leaf,
        AUTHORITYS,
    );
    let cases: [(&str, &[&str], Adjust, &str); 4] = [
        (
            "expired",
            &OUR_NAMES,
            |params| params.not_after = date_time_ymd(2024, 1, 1),
            "the server's certificate has expired",
        ),
        (
            "not valid yet",
            &OUR_NAMES,
            |params| params.not_before = date_time_ymd(2900, 1, 1),
            "the server's certificate is not valid yet",
        ),
        (
            "another name",
            &["example.com", "127.0.0.2"],
            |params| params.distinguished_name = named("127.0.0.1"),
            "the server's certificate is not for the host",
        ),
        (
            "for a client",
            &OUR_NAMES,
            |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth],
            "the server's certificate is not for a server",
        ),
    ];
    for (what, names, adjust, reason) in cases {
        let (leaf, pem) = made(names, &ours, adjust);
        expect_refused_with(what, &pem, leaf, reason);
    }
}

/// `--check` says who vouches for it: the file alone.
#[test]
fn check_names_the_file_beside_the_built_in_roots() {
    let key = key(&PKCS_ECDSA_P256_SHA256);
    let (leaf, pem) = Leaf::self_signed_authority(&OUR_NAMES, &key, |_| {});
    let server = Pyroscope::https(Tls::with(leaf));
    let roots = pem_file(&pem);
    let output = Command::new(env!("CARGO_BIN_EXE_pyroscope-lambda-extension"))
        .arg("--check")
        .env_clear()
        .env("PYROSCOPE_REMOTE_ADDRESS", server.url())
        .env("SSL_CERT_FILE", roots.path())
        .output()
        .expect("the program runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains(" or SSL_CERT_FILE\n"), "{told}");
    assert!(output.status.success(), "{told}");
}

/// The command that is in every guide, where there is one.
#[test]
fn what_the_openssl_command_makes_may_serve() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let [certificate, key_file] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    let kinds: [&[&str]; 2] = [
        &["-newkey", "rsa:2048"],
        &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"],
    ];
    for kind in kinds {
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-nodes",
                "-days",
                "2",
                "-subj",
                "/CN=pyroscope",
            ])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .args(kind)
            .args(["-out", path(&certificate), "-keyout", path(&key_file)])
            .output();
        let Ok(made) = made else {
            eprintln!("there is no openssl command");
            return;
        };
        assert!(made.status.success(), "{made:?}");
        let pem = fs::read_to_string(&certificate).expect("the certificate");
        let secret = fs::read(&key_file).expect("the key");
        let leaf = Leaf::from_pem(pem.as_bytes(), &secret);
        expect_trusted_with(kind[1], &pem, leaf);
    }
}

/// What this process cannot speak is spoken by OpenSSL, through Python, which the tests need anyway.
struct OpenSsl {
    child: Child,
    port: u16,
}

impl OpenSsl {
    /// A server that makes handshakes, one after another; `settings` are lines of Python about its context.
    fn start(certificate: &str, key: &Path, settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("certificate.pem");
        fs::write(&file, certificate).expect("the file written");
        let program = format!(
            "import socket, ssl, warnings\n\
             warnings.simplefilter('ignore')\n\
             context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
             context.set_ciphers('ALL:@SECLEVEL=0')\n\
             context.load_cert_chain({:?}, {:?})\n\
             {settings}\n\
             listener = socket.create_server(('127.0.0.1', 0))\n\
             print(listener.getsockname()[1], flush=True)\n\
             while True:\n\
             \x20   connection, _ = listener.accept()\n\
             \x20   try:\n\
             \x20       context.wrap_socket(connection, server_side=True).recv(1)\n\
             \x20   except OSError as error:\n\
             \x20       print(error, flush=True)\n\
             \x20   connection.close()\n",
            path(&file),
            path(key)
        );
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let stdout = child.stdout.as_mut().expect("a piped stdout");
        BufReader::new(stdout)
            .read_line(&mut line)
            .expect("a line with the port");
        let port = line.trim().parse().expect("a port");
        Self { child, port }
    }
}

impl Drop for OpenSsl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn expect_openssl_refused(what: &str, root: &Authority, server: &OpenSsl, reason: &str) {
    let roots = root.pem_file();
    let extension = relay(&roots, &format!("https://127.0.0.1:{}", server.port));
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    expect_reason(&extension, what, reason);
}

/// An RSA key that nobody here can use: PKCS #1 in DER.
struct Rsa(Vec<u8>);

impl PublicKeyData for Rsa {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_RSA_SHA256
    }
}

#[test]
fn what_only_openssl_speaks_is_refused() {
    let root = Authority::new("Bench Root");
    let weak = fs::read_to_string(RSA_1024).expect("the key");
    let (_, public) = weak
        .split_once("-----BEGIN RSA PUBLIC KEY-----")
        .expect("the public key behind the private one");
    let (public, _) = public.split_once("-----END").expect("PEM");
    let public = BASE64.decode(public.replace('\n', "")).expect("base64");
    let certificate = root.issue_for(&OUR_NAMES, &Rsa(public), |_| {});
    for version in ["TLSv1_2", "TLSv1_3"] {
        let settings = format!(
            "context.minimum_version = ssl.TLSVersion.{version}\ncontext.maximum_version = ssl.TLSVersion.{version}"
        );
        let server = OpenSsl::start(&certificate, Path::new(RSA_1024), &settings);
        let reason = "the server's certificate has a bad signature, or a key that is too weak";
        expect_openssl_refused("a key of 1,024 bits", &root, &server, reason);
    }

    let key = key(&PKCS_ECDSA_P256_SHA256);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let key_file = folder.path().join("key.pem");
    fs::write(&key_file, key.serialize_pem()).expect("the file written");
    let certificate = root.issue_for(&OUR_NAMES, &key, |_| {});
    for (what, reason, settings) in [
        (
            "TLS 1.1 at most",
            "protocol version",
            "context.minimum_version = ssl.TLSVersion.TLSv1\ncontext.maximum_version = ssl.TLSVersion.TLSv1_1",
        ),
        (
            "no forward secrecy, no authenticated encryption",
            "handshake failure",
            "context.maximum_version = ssl.TLSVersion.TLSv1_2\ncontext.set_ciphers('ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0')",
        ),
    ] {
        let server = OpenSsl::start(&certificate, &key_file, settings);
        expect_openssl_refused(what, &root, &server, reason);
    }
    let odd = root.issue_for(&OUR_NAMES, &key, |params| {
        let mut extension =
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    });
    expect_openssl_refused(
        "a critical extension of nobody's",
        &root,
        &OpenSsl::start(&odd, &key_file, ""),
        "the server's certificate requires an unknown extension",
    );
    // The same server as it is by itself is good, and with each key exchange alone.
    for settings in [
        "",
        "context.set_ecdh_curve('prime256v1')",
        "context.set_ecdh_curve('secp384r1')",
        // Python 3.11.2, Debian 12's own, does not take it. Then OpenSSL prefers it, as it does by itself.
        "try: context.set_ecdh_curve('X25519')\nexcept ssl.SSLError: pass",
        "context.set_ecdh_curve('prime256v1')\ncontext.maximum_version = ssl.TLSVersion.TLSv1_2",
    ] {
        let server = OpenSsl::start(&certificate, &key_file, settings);
        let roots = root.pem_file();
        let extension = relay(&roots, &format!("https://127.0.0.1:{}", server.port));
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        extension.wait_log("TLS handshake done");
    }
}

/// Thousands of files, as some systems have, most of no use: the one that is needed is found.
#[test]
fn a_directory_of_thousands() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = Authority::new("Bench Root");
    let other = Authority::new("Other Root");
    let expired = Authority::made("Expired Root", |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    for number in 0..3000 {
        let pem = match number {
            1234 => root.pem().to_owned(),
            _ if number % 3 == 0 => other.pem().to_owned(),
            _ if number % 3 == 1 => expired.pem().to_owned(),
            // Broken in the middle.
            _ => other.pem().replace("MII", "???"),
        };
        fs::write(folder.path().join(format!("{number}.pem")), pem).expect("a file written");
    }
    let server = Pyroscope::https(Tls::with(root.leaf(&OUR_NAMES)));
    let extension = Sandbox::relay_only(&server)
        .set("SSL_CERT_DIR", path(folder.path()))
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    server.wait_only();
    let complaints = extension.complaints();
    println!("{complaints:?}");
    assert!(complaints.len() <= 1, "{complaints:?}");
}
