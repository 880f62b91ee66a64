//! Proxies and trusted roots.

use std::io::Write;

use crate::support::certificates::Authority;
use crate::support::pyroscope::{Pyroscope, Tls};
use crate::support::sandbox::Sandbox;
use crate::{config, with};

/// Which servers are reached through which proxy is Go's to say, in logging.rs; what goes through, in proxy.rs.
#[test]
fn proxies() {
    const SERVER: (&str, &str) = ("PYROSCOPE_REMOTE_ADDRESS", "https://pyroscope.example");
    let through = |vars: &[(&str, &str)]| {
        let config = config(&[&[SERVER], vars].concat());
        assert_eq!(config.notes, []);
        config
            .remote
            .expect("a server")
            .proxy
            .map(|proxy| proxy.host)
    };
    let (upper, lower) = (("HTTPS_PROXY", "http://a:1"), ("https_proxy", "b:2"));
    assert_eq!(through(&[]), None);
    assert_eq!(through(&[upper]).as_deref(), Some("a"));
    assert_eq!(through(&[lower]).as_deref(), Some("b"));
    assert_eq!(through(&[lower, upper]).as_deref(), Some("a"));
    assert_eq!(through(&[upper, ("NO_PROXY", "example")]), None);
    assert_eq!(through(&[upper, ("no_proxy", "example")]), None);
    let both = [upper, ("no_proxy", "example"), ("NO_PROXY", "other")];
    assert_eq!(through(&both).as_deref(), Some("a"));
    // In clear there is nothing that a tunnel would be for.
    let clear = ("PYROSCOPE_REMOTE_ADDRESS", "http://pyroscope.example");
    let clear = config(&[clear, upper]).remote.expect("a server");
    assert_eq!(clear.proxy, None);
    // Without its bracket that is no address, however the rest of it is read.
    let number = ("PYROSCOPE_REMOTE_ADDRESS", "https://[fd00::]");
    for (exception, excepted) in [("[fd00::]:443", true), ("[fd00::1:443", false)] {
        let config = config(&[number, upper, ("NO_PROXY", exception)]);
        let proxy = config.remote.expect("a server").proxy;
        assert_eq!(proxy.is_none(), excepted, "{exception}");
    }

    for (name, value, problem) in [
        ("HTTPS_PROXY", "socks5://s3cret@a", "is not an http:// URL"),
        ("https_proxy", "http://s3cret:@b:0", "has a bad port"),
        (
            "HTTPS_PROXY",
            "https://s3cret@a",
            "is https://, and only http:// proxies are supported",
        ),
        (
            "HTTPS_PROXY",
            "s3cret\r\nX: y",
            "has a character in its host name that a name cannot have",
        ),
    ] {
        let (config, notes) = with(name, value);
        assert_eq!(config.remote.expect("a server").proxy, None);
        assert_eq!(
            notes,
            [format!("{problem}; the server is connected to directly")]
        );
    }
}

/// Go, `crypto/x509`: SSL_CERT_FILE is one file of PEM, SSL_CERT_DIR a list of directories with colons between.
/// What they hold comes on top of the built-in roots; what cannot be used costs one line. More in tls.rs.
#[test]
fn roots() {
    assert_eq!(
        with("SSL_CERT_FILE", "/a:b").0.ca_file.as_deref(),
        Some("/a:b")
    );
    for (list, directories) in [
        ("/a", &["/a"][..]),
        ("/a:/b", &["/a", "/b"]),
        (":/a::/b:", &["/a", "/b"]),
    ] {
        assert_eq!(with("SSL_CERT_DIR", list).0.ca_directories, directories);
    }
    let rubbish = tempfile::NamedTempFile::new().expect("a temporary file");
    rubbish
        .as_file()
        .write_all(b"no PEM")
        .expect("the file written");
    let rubbish = rubbish.path().to_str().expect("a path in UTF-8");
    let authority = Authority::new("Bench Root");
    for (name, path) in [
        ("SSL_CERT_FILE", "/there/is/no/such/file.pem"),
        ("SSL_CERT_FILE", "/proc"),
        ("SSL_CERT_FILE", rubbish),
        ("SSL_CERT_DIR", "/there/is/no/such"),
    ] {
        let server = Pyroscope::https(Tls::by(&authority));
        let extension = Sandbox::relay_only(&server).set(name, path).listening();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        extension.wait_complaint(&["certificate", "cannot reach"]);
        let complaints = extension.log_with(&["variable="]);
        assert_eq!(complaints.len(), 1, "{name}={path}: {complaints:?}");
        assert!(complaints[0].contains("level=warning msg=\"Bad setting\" problem="));
        assert!(
            complaints[0].ends_with(&format!("variable={name}")),
            "{complaints:?}"
        );
    }
}
