//! The server's address, the local one, Lambda's.

use crate::{alone, expect_default, lines, said, with};

/// Go, `url.Parse` and `http.Transport`: the scheme in any letter case; the port from the scheme where there is
/// none; the Host as the address spells it; userinfo percent-decoded and sent as Basic credentials.
#[test]
fn server_addresses() {
    let profiles = "profiles.example";
    for (address, tls, host, port, authority, path) in [
        (
            "https://profiles.example",
            true,
            profiles,
            443,
            profiles,
            "",
        ),
        ("http://profiles.example", false, profiles, 80, profiles, ""),
        (
            "HTTPS://profiles.example/",
            true,
            profiles,
            443,
            profiles,
            "",
        ),
        (
            "http://profiles.example:4040",
            false,
            profiles,
            4040,
            "profiles.example:4040",
            "",
        ),
        (
            "http://profiles.example:/a",
            false,
            profiles,
            80,
            profiles,
            "/a",
        ),
        (
            "https://user:pass@profiles.example:8443/a/b/",
            true,
            profiles,
            8443,
            "profiles.example:8443",
            "/a/b",
        ),
        (
            "http://a:b@c@profiles.example",
            false,
            profiles,
            80,
            profiles,
            "",
        ),
        (
            "http://127.0.0.1:1",
            false,
            "127.0.0.1",
            1,
            "127.0.0.1:1",
            "",
        ),
        ("http://[::1]", false, "::1", 80, "[::1]", ""),
        (
            "https://[2001:db8::1]:65535/x",
            true,
            "2001:db8::1",
            65_535,
            "[2001:db8::1]:65535",
            "/x",
        ),
        (
            "http://Profiles_1.Example.",
            false,
            "Profiles_1.Example.",
            80,
            "Profiles_1.Example.",
            "",
        ),
        (
            "http://profiles.example/a%20b",
            false,
            profiles,
            80,
            profiles,
            "/a%20b",
        ),
    ] {
        let (config, notes) = with("PYROSCOPE_REMOTE_ADDRESS", address);
        assert_eq!(notes, [""; 0], "{address}");
        let server = config.remote.expect("a server");
        assert_eq!(
            (
                server.tls,
                server.host.as_str(),
                server.port,
                server.authority.as_str(),
                server.path.as_str()
            ),
            (tls, host, port, authority, path),
            "{address}"
        );
    }
}

/// They are of no use to a relay. They may hold a key, so they are not quoted.
#[test]
fn a_query_or_fragment_of_the_address_costs_one_line() {
    const NAME: &str = "PYROSCOPE_REMOTE_ADDRESS";
    for (address, path) in [
        ("http://127.0.0.1:9?key=s3cret", ""),
        ("http://127.0.0.1:9/p?key=s3cret#c", "/p"),
        ("http://127.0.0.1:9/p#s3cret", "/p"),
        ("http://127.0.0.1:9/p?", "/p"),
    ] {
        let (config, _) = with(NAME, address);
        assert_eq!(config.remote.expect("a server").path, path, "{address}");
        let problem = "has a query or a fragment, which is not used";
        assert_eq!(said(&[(NAME, address)]), lines("warning", NAME, &[problem]));
    }
}

/// Go, `http.Client.send`: `if u := req.URL.User; u != nil && req.Header.Get("Authorization") == ""`, with user and
/// password percent-decoded, either of them empty where it is missing.
#[test]
fn userinfo() {
    for (userinfo, credentials) in [
        ("user:pass@", Some("Basic dXNlcjpwYXNz")),
        ("user@", Some("Basic dXNlcjo=")),
        (":pass@", Some("Basic OnBhc3M=")),
        ("us%65r:p%40s%3as@", Some("Basic dXNlcjpwQHM6cw==")),
        ("%C3%A9:%ff@", Some("Basic w6k6/w==")),
        ("@", Some("Basic Og==")),
        ("", None),
    ] {
        let address = format!("http://{userinfo}profiles.example");
        let server = with("PYROSCOPE_REMOTE_ADDRESS", &address)
            .0
            .remote
            .expect("a server");
        assert_eq!(
            server.fallback_authorization.as_deref(),
            credentials,
            "{address}"
        );
    }
}

/// Without a server there is nothing to fall back to: profiles are taken, so that the function does not notice, and
/// counted as lost. The address may hold a password, so it is never quoted.
#[test]
fn server_addresses_that_cannot_be() {
    for (address, problem) in [
        ("profiles.example", "is not an http:// or https:// URL"),
        ("profiles.example:4040", "is not an http:// or https:// URL"),
        (
            "s3cretuser:s3cretpass@profiles.example",
            "is not an http:// or https:// URL",
        ),
        (
            "ftp://s3cretuser:s3cretpass@profiles.example",
            "is not an http:// or https:// URL",
        ),
        (
            " https://profiles.example",
            "is not an http:// or https:// URL",
        ),
        ("//profiles.example", "is not an http:// or https:// URL"),
        ("http://", "has no host name"),
        ("http://:80", "has no host name"),
        ("http://s3cretuser:s3cretpass@", "has no host name"),
        (
            "http://s3cretuser:s3cretpass@pro files",
            "has a character in its host name that a name cannot have",
        ),
        (
            "https://profiles.example\n",
            "has a character in its host name that a name cannot have",
        ),
        ("https://profiles.example:0", "has a bad port"),
        ("https://profiles.example:65536", "has a bad port"),
        ("https://profiles.example:s3cretport", "has a bad port"),
        ("https://[::1]s3cret", "has a bad port"),
        (
            "https://[::1",
            "has an IPv6 address without its closing bracket",
        ),
        ("https://[profiles]", "has a bad IPv6 address"),
        (
            "https://s3cret%zzuser:x@profiles.example",
            "has a bad percent-encoding in its user or password",
        ),
        (
            "https://profiles..example",
            "has a host name that cannot be",
        ),
        (
            "https://profiles.example/\u{7f}",
            "has a character in its path that a URL cannot have",
        ),
    ] {
        const NAME: &str = "PYROSCOPE_REMOTE_ADDRESS";
        let (config, _) = with(NAME, address);
        assert_eq!(config.remote, None, "{address:?}");
        let said = said(&[(NAME, address)]);
        let problem = format!("{problem}; profiles are taken and counted as lost");
        assert_eq!(said, lines("error", NAME, &[&problem]), "{address:?}");
        assert!(!said[0].contains("s3cret"), "{said:?}");
    }
}

/// A setting of ours: `net.Listen`'s addresses, and `localhost` as both of the loopback addresses.
#[test]
fn listen_addresses() {
    const NAME: &str = "PYROSCOPE_LISTEN_ADDRESS";
    for (text, addresses) in [
        ("localhost:4041", &["127.0.0.1:4041", "[::1]:4041"][..]),
        ("LocalHost:1", &["127.0.0.1:1", "[::1]:1"]),
        ("127.0.0.1:0", &["127.0.0.1:0"]),
        ("0.0.0.0:4040", &["0.0.0.0:4040"]),
        (":4040", &["0.0.0.0:4040"]),
        ("[::]:65535", &["[::]:65535"]),
    ] {
        let (config, notes) = with(NAME, text);
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(
            (listen, notes.len()),
            (addresses.iter().map(ToString::to_string).collect(), 0),
            "{text}"
        );
    }
    for text in [
        "4040",
        "localhost",
        "localhost:",
        "localhost:65536",
        "localhost:-1",
        "localhost:http",
        "::1:4040",
        "example.com:4040",
        "256.0.0.1:4040",
    ] {
        let problem =
            format!("\"{text}\" is not an address and port, using the default localhost:4040");
        expect_default(NAME, text, &problem);
    }
}

/// Set by Lambda. Without it there is nothing to register with, and whoever starts us by hand is told.
#[test]
fn runtime_api() {
    assert_eq!(
        with("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")
            .0
            .runtime_api
            .as_deref(),
        Some("127.0.0.1:9001")
    );
    let mut extension = alone(&[("PYROSCOPE_DEV_MODE", "false")]);
    extension.expect_exit(1);
    extension.wait_complaint(&["level=error", "AWS_LAMBDA_RUNTIME_API is not set"]);
    assert_eq!(extension.log().lines().count(), 1);
}
