//! Does an https server that is behind a proxy get what it should, and does nothing else go through the proxy?

mod support;

use std::time::Duration;

use support::certificates::Authority;
use support::extensions_api::ExtensionsApi;
use support::play::Play;
use support::proxy::{ESTABLISHED, Manner, Proxy};
use support::pyroscope::{Pyroscope, Tls};
use support::sandbox::Sandbox;

const TWO_SECONDS: Duration = Duration::from_secs(2);

/// Nobody but the proxy can look that name up.
const NAME: &str = "pyroscope.invalid";

struct Bench {
    authority: Authority,
    server: Pyroscope,
    proxy: Proxy,
}

/// An https server of that name, and a proxy that leads there.
fn bench() -> Bench {
    let authority = Authority::new("Bench Root");
    let server = Pyroscope::https(Tls::with(authority.leaf(&[NAME])));
    let proxy = Proxy::start(Manner::Tunnel(server.addr(), ESTABLISHED.to_vec()));
    Bench {
        authority,
        server,
        proxy,
    }
}

impl Bench {
    fn sandbox(&self, userinfo: &str, roots: &tempfile::NamedTempFile) -> Sandbox {
        Sandbox::new()
            .set("PYROSCOPE_REMOTE_ADDRESS", format!("https://{NAME}:8443"))
            .set("SSL_CERT_FILE", roots.path().to_str().expect("UTF-8"))
            .set(
                "HTTPS_PROXY",
                format!("http://{userinfo}{}", self.proxy.addr()),
            )
            .set("PYROSCOPE_TIMEOUT", "2s")
            // One connection at a time: the proxy hides from the server what has been read.
            .set("PYROSCOPE_NUM_WORKERS", "1")
    }
}

#[test]
fn profiles_arrive_through_a_tunnel() {
    for (userinfo, credentials) in [
        ("", ""),
        (
            "s3cretuser:s3cret%40pass@",
            "Proxy-Authorization: Basic czNjcmV0dXNlcjpzM2NyZXRAcGFzcw==\r\n",
        ),
    ] {
        let (bench, lambda) = (bench(), ExtensionsApi::start());
        let roots = bench.authority.pem_file();
        let mut extension = bench.sandbox(userinfo, &roots).lambda(&lambda).listening();
        for count in 1..=3 {
            assert_eq!(extension.post("/ingest", b"payload").status, 200);
            bench.server.wait_answered(count);
        }
        let asked = bench.proxy.wait_asked(1);
        assert_eq!(asked.len(), 1, "one tunnel serves all");
        assert_eq!(
            asked[0].text(),
            format!("CONNECT {NAME}:8443 HTTP/1.1\r\nHost: {NAME}:8443\r\n{credentials}\r\n")
        );
        let request = bench.server.requests().remove(0);
        assert_eq!(request.header("Host"), Some(format!("{NAME}:8443")));
        assert_eq!(request.header("Proxy-Authorization"), None);
        assert_eq!(request.payload(), b"payload");

        // A connection that died is replaced by another tunnel, and the handshake resumed.
        bench.server.close_all();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        bench.server.wait_answered(4);
        assert_eq!(bench.proxy.asked(), 2);
        assert_eq!(bench.server.handshakes(), (1, 1));
        lambda.shutdown(TWO_SECONDS);
        extension.expect_exit(0);
        extension.totals().expect(4, 0);
    }
}

/// Lambda's API, a server in clear, and one that is excepted are reached directly.
#[test]
fn nothing_else_goes_through() {
    let (bench, lambda, clear) = (bench(), ExtensionsApi::start(), Pyroscope::http());
    let roots = bench.authority.pem_file();
    let mut extension = bench
        .sandbox("", &roots)
        .lambda(&lambda)
        .server(&clear)
        .listening();
    lambda.invoke_and_wait();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    clear.wait_answered(1);
    lambda.shutdown(TWO_SECONDS);
    extension.expect_exit(0);

    let by_number = Pyroscope::https(Tls::by(&bench.authority));
    let extension = bench
        .sandbox("", &roots)
        .server(&by_number)
        .set("PYROSCOPE_DEV_MODE", "true")
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    by_number.wait_answered(1);
    assert_eq!(bench.proxy.asked(), 0);

    // Excepted: its name is looked up here, where it is not known.
    let extension = bench
        .sandbox("", &roots)
        .set("NO_PROXY", ".invalid")
        .set("PYROSCOPE_DEV_MODE", "true")
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    let line = extension.wait_complaint(&["cannot reach the server"]);
    assert!(line.contains("name lookup: "), "{line}");
    assert_eq!(bench.proxy.asked(), 0);
}

/// Whatever a proxy does, the payload waits, the line names the proxy, and once it works the payload arrives.
#[test]
fn a_proxy_that_fails_costs_no_payload() {
    let answer = |bytes: &[u8]| Manner::Answer(bytes.to_vec());
    let endless = [b"HTTP/1.1 200 OK\r\nX: ".as_slice(), &[b'x'; 70_000]].concat();
    for (manner, cause) in [
        (
            answer(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 5\r\n\r\nno..."),
            "the proxy: status 407, it wants other credentials",
        ),
        (
            answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"),
            "the proxy: status 502",
        ),
        (answer(b"SSH-2.0-OpenSSH\r\n"), "the proxy: "),
        (
            answer(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1"),
            "the proxy: it sent more than its answer",
        ),
        (answer(&endless), "the proxy: "),
        (
            answer(b"HTTP/1.1 200 OK\r\nX: "),
            "the proxy: connection closed",
        ),
        (Manner::Close, "the proxy: connection closed"),
        (Manner::Silence, "the proxy: timed out"),
    ] {
        let (bench, lambda) = (bench(), ExtensionsApi::start());
        let roots = bench.authority.pem_file();
        bench.proxy.change_manner(manner);
        let mut extension = bench
            .sandbox("s3cret:s3cret@", &roots)
            .lambda(&lambda)
            .listening();
        assert_eq!(extension.post("/ingest", b"payload").status, 200);
        let line = extension.wait_complaint(&["cannot reach the server"]);
        let (_, said) = line.split_once("cause=").expect("a cause");
        assert!(
            said.trim_start_matches('"').starts_with(cause),
            "{cause}: {line}"
        );
        assert!(line.contains("proxy=127.0.0.1 remote="), "{line}");
        bench.proxy.change_manner(Manner::Tunnel(
            bench.server.addr(),
            b"HTTP/1.0 299 Whatever\r\nContent-Length: 7\r\nVia: 1.0 a\r\n\r\n".to_vec(),
        ));
        bench.server.wait_answered(1);
        lambda.shutdown(TWO_SECONDS);
        extension.expect_exit(0);
        extension.totals().expect(1, 0);
    }
}

/// TLS is spoken with the server, not with the proxy: a proxy that looks inside is not trusted.
#[test]
fn a_proxy_in_the_middle_is_found_out() {
    let bench = bench();
    let other = Authority::new("Somebody Else");
    let spy = Pyroscope::refusing(Some(Tls::with(other.leaf(&[NAME]))));
    spy.accept();
    spy.always(Play::answer(200));
    bench
        .proxy
        .change_manner(Manner::Tunnel(spy.addr(), ESTABLISHED.to_vec()));
    let roots = bench.authority.pem_file();
    let extension = bench
        .sandbox("", &roots)
        .set("PYROSCOPE_DEV_MODE", "true")
        .listening();
    assert_eq!(extension.post("/ingest", b"payload").status, 200);
    extension.wait_complaint(&["cannot reach the server", "certificate"]);
    assert_eq!(spy.requests().len(), 0);
}
