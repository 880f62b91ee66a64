use super::super::header_slots;
use super::*;

#[test]
fn line_feeds() {
    // Bytes similar to a line feed, at every offset.
    let bytes: Vec<u8> = (0..5000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 14)
        .collect();
    for at in 0..bytes.len() {
        let rest = &bytes[at..bytes.len().min(at + 40)];
        assert_eq!(line_feed(rest), rest.iter().position(|&b| b == b'\n'));
    }
    for b in 0..=255 {
        let found = (b == b'\n').then_some(3);
        assert_eq!(line_feed(&[b'\x0b', 0x8a, 9, b, 0, 0, 0, 0, 0]), found);
    }
}

fn framing(head: &str) -> Result<Framing, u16> {
    let mut slots = header_slots();
    request(head.as_bytes(), &mut slots)
        .and_then(|r| r.framing())
        .map_err(Refusal::status)
}

fn framed(fields: &str) -> Result<Framing, u16> {
    framing(&format!(
        "POST /ingest HTTP/1.1\r\nHost: localhost:4040\r\n{fields}\r\n"
    ))
}

#[test]
fn end_is_found_at_any_cut() {
    let wire = b"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody";
    let mut searched = 0;
    for cut in 0..wire.len() - 4 {
        assert_eq!(end(&wire[..cut], &mut searched), None, "after {cut} bytes");
    }
    assert_eq!(end(wire, &mut searched), Some(wire.len() - 4));
    assert_eq!(end(b"GET / HTTP/1.1\n\n", &mut 0), Some(16));
}

#[test]
fn bodies() {
    let plain = framed("").unwrap();
    assert_eq!(
        (plain.body, plain.has_body, plain.keep_alive),
        (BodyReader::Length(0), false, true)
    );
    let empty = framed("Content-Length: 0\r\n").unwrap();
    assert_eq!((empty.body, empty.has_body), (BodyReader::Length(0), true));
    assert_eq!(
        framed("Content-Length: 12\r\nContent-Length: 12\r\n")
            .unwrap()
            .body,
        BodyReader::Length(12)
    );
    assert_eq!(
        framed("Transfer-Encoding: Chunked\r\n").unwrap().body,
        BodyReader::chunked()
    );
}

#[test]
fn doubtful_framing_is_refused() {
    for (fields, status) in [
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: \r\n", 400),
        ("Content-Length: 99999999999999999999\r\n", 400),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        ("Transfer-Encoding: identity\r\n", 400),
        ("Host: again\r\n", 400),
        ("Expect: the unexpected\r\n", 417),
        ("Name : value\r\n", 400),
        ("Folded: a\r\n b\r\n", 400),
        ("Nul: a\0b\r\n", 400),
        ("Bare: a\nb: c\r\n", 400),
    ] {
        assert_eq!(framed(fields), Err(status), "{fields:?}");
    }
}

#[test]
fn versions_and_methods() {
    assert!(!framing("POST / HTTP/1.0\r\n\r\n").unwrap().keep_alive);
    assert!(
        framing("POST / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            .unwrap()
            .keep_alive
    );
    assert!(
        !framing("POST / HTTP/1.1\r\nHost: x\r\nConnection: x, Close\r\n\r\n")
            .unwrap()
            .keep_alive
    );
    assert_eq!(framing("POST / HTTP/1.1\r\n\r\n"), Err(400));
    assert_eq!(
        framing("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        Err(400)
    );
    assert_eq!(framing("PRI * HTTP/2.0\r\n\r\n"), Err(505));
    assert_eq!(
        framing("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"),
        Err(501)
    );
    assert_eq!(framing("P(ST / HTTP/1.1\r\nHost: x\r\n\r\n"), Err(400));
    let many = "A: b\r\n".repeat(HEADER_COUNT_OVER);
    assert_eq!(framed(&many), Err(431));
}

#[test]
fn targets() {
    for (line, status) in [
        ("GET /", None),
        ("GET /*", None),
        ("OPTIONS *", None),
        ("OPTIONS /", None),
        ("GET *", Some(400)),
        ("OPTIONS **", Some(400)),
        ("OPTIONS x", Some(400)),
        ("GET http://h", None),
        ("GET HTTPS://h:1/x", None),
        ("GET http://h?x", None),
        ("GET http://h#x", None),
        ("GET http://", Some(400)),
        ("GET http:///x", Some(400)),
        ("GET http://a^b/", Some(400)),
        ("GET ftp://h/", Some(400)),
        ("GET h:80", Some(400)),
    ] {
        let framing = framing(&format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(framing.err(), status, "{line}");
    }
}

#[test]
fn a_head_ends_where_it_says_and_names_a_version() {
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\nX: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET / HTTP/3.0\r\n\r\n", 505),
        ("GET / FTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
    ] {
        assert_eq!(framing(head), Err(status), "{head:?}");
    }
}

#[test]
fn a_client_may_name_a_kilobyte_of_connection_options() {
    for (spaces, status) in [(1019, None), (1020, Some(431))] {
        let fields = format!(
            "Connection: a{}b\r\nConnection: cde\r\n",
            ",".repeat(spaces)
        );
        assert_eq!(framed(&fields).err(), status);
    }
}

#[test]
fn an_answer_that_is_no_success_has_to_be_well_formed() {
    let many = format!(
        "HTTP/1.1 404 X\r\n{}\r\n",
        "A: b\r\n".repeat(HEADER_COUNT_OVER)
    );
    for (head, reason) in [
        (many.as_str(), "too many header fields in the answer"),
        ("HTTP/1.1 404 X\r\n\r\nmore", "malformed answer"),
        ("HTTP/1.1 404 X\r\nA: b\r\n", "malformed answer"),
        ("HTTP/1.1 404 X\r\nA b\r\n\r\n", "malformed answer"),
    ] {
        let mut slots = header_slots();
        let refused = response(head.as_bytes(), &mut slots).err();
        assert_eq!(refused, Some(reason), "{head:?}");
    }
}

#[test]
fn hosts() {
    for host in [
        "",
        "h",
        "h:1",
        "h:",
        "a.b-c_d~e",
        "[::1]",
        "[::1]:1",
        "[::1.2.3.4]",
        "%41",
        "1.2.3.4:5",
    ] {
        assert!(is_host(host.as_bytes()), "{host}");
    }
    for host in [
        "h:1a", "h:1:2", "h x", "h/", "u@h", "[", "[::1", "[::1]x", "[g]", "::1", "]", "[]]",
        "h\u{e9}",
    ] {
        assert!(!is_host(host.as_bytes()), "{host}");
    }
}

const HEADER_COUNT_OVER: usize = super::super::HEADERS_MAX + 1;

#[test]
fn expectations() {
    assert!(
        framed("Expect: 100-Continue\r\nContent-Length: 3\r\n")
            .unwrap()
            .expects_continue
    );
    assert!(!framed("Expect: 100-continue\r\n").unwrap().expects_continue);
    assert!(
        !framed("Expect:\r\nContent-Length: 3\r\n")
            .unwrap()
            .expects_continue
    );
}

#[test]
fn answers() {
    let framing = |head: &str, to_head| {
        let mut slots = header_slots();
        response(head.as_bytes(), &mut slots).and_then(|r| r.framing(to_head))
    };
    let ok = "HTTP/1.1 200 OK\r\n";
    assert_eq!(
        framing(&format!("{ok}Content-Length: 3\r\n\r\n"), false),
        Ok((BodyReader::Length(3), true))
    );
    assert_eq!(
        framing(&format!("{ok}Content-Length: 3\r\n\r\n"), true),
        Ok((BodyReader::Length(0), true))
    );
    assert_eq!(
        framing(&format!("{ok}\r\n"), false),
        Ok((BodyReader::UntilClose, false))
    );
    assert_eq!(
        framing(&format!("{ok}Transfer-Encoding: chunked\r\n\r\n"), false),
        Ok((BodyReader::chunked(), true))
    );
    assert_eq!(
        framing("HTTP/1.1 204 No Content\r\n\r\n", false),
        Ok((BodyReader::Length(0), true))
    );
    assert_eq!(
        framing("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        Ok((BodyReader::Length(0), false))
    );
    assert!(framing(&format!("{ok}Content-Length: x\r\n\r\n"), false).is_err());
    assert!(framing("ICY 200 OK\r\n\r\n", false).is_err());
}

#[test]
fn a_success_is_known_by_its_first_line() {
    for (bytes, status) in [
        ("HTTP/1.1 200 OK\r\n", Some(200)),
        ("HTTP/1.0 204 \r\n\0garbage", Some(204)),
        ("HTTP/1.1 299\r\n", Some(299)),
        ("HTTP/1.1 200 OK\r", None),
        ("HTTP/1.1 200 OK\n", None),
        ("HTTP/1.1 2000 OK\r\n", None),
        ("HTTP/1.1 20\r\n", None),
        ("HTTP/1.1 503 No\r\n", None),
        ("HTTP/1.1 100 Continue\r\n", None),
        ("HTTP/2.0 200 OK\r\n", None),
        ("HTTP/1.2 200 OK\r\n", None),
        ("", None),
    ] {
        assert_eq!(success_line(bytes.as_bytes()), status, "{bytes:?}");
    }
}

#[test]
fn a_success_is_one_whatever_its_fields_are() {
    let many = "A: b\r\n".repeat(HEADER_COUNT_OVER);
    let malformed = [
        "A b\r\n",
        " A: b\r\n",
        "A : b\r\n",
        ": b\r\n",
        "A: \0\r\n",
        "A: b\rC: d\r\n",
        "A: b\r\n c\r\n",
        "\u{e9}: b\r\n",
        &many,
    ];
    for fields in malformed {
        let head = |line: &str| format!("{line}\r\nContent-Length: 9\r\n{fields}\r\n");
        for line in ["HTTP/1.1 200 OK", "HTTP/1.0 299 A", "HTTP/1.1 204 No"] {
            let (head, mut slots) = (head(line), header_slots());
            let response = response(head.as_bytes(), &mut slots).unwrap();
            assert_eq!(response.status.to_string(), line[9..12], "{fields:?}");
            assert!(response.headers.is_empty());
            let framing = response.framing(false);
            assert_eq!(framing, Ok((BodyReader::Length(0), false)));
        }
        for line in [
            "HTTP/1.1 199 A",
            "HTTP/1.1 302 Found",
            "HTTP/1.1 500 No",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 200 O\0K",
            "HTTP/2.0 200 OK",
        ] {
            let (head, mut slots) = (head(line), header_slots());
            let refused = response(head.as_bytes(), &mut slots).is_err();
            assert!(refused, "{line} {fields:?}");
        }
    }
}
