//! What is set on relayed requests.

use pyroscope_lambda_extension::config::Config;

use crate::support::pyroscope::Pyroscope;
use crate::support::sandbox::Sandbox;
use crate::{config, expect_default, lines, said, with};

/// The extension we replace: a token is `Bearer`; else user and password together are Basic, Go's `SetBasicAuth`;
/// a tenant is X-Scope-OrgID. On the wire: server.rs.
#[test]
fn credentials_and_tenant() {
    const TOKEN: (&str, &str) = ("PYROSCOPE_AUTH_TOKEN", "t0ken");
    const USER: (&str, &str) = ("PYROSCOPE_BASIC_AUTH_USER", "user");
    const PASSWORD: (&str, &str) = ("PYROSCOPE_BASIC_AUTH_PASSWORD", "pass:wörd");
    const TENANT: (&str, &str) = ("PYROSCOPE_TENANT_ID", "tenant-7");
    let (bearer, basic) = (
        ("Authorization", "Bearer t0ken"),
        ("Authorization", "Basic dXNlcjpwYXNzOnfDtnJk"),
    );
    for (variables, fields) in [
        (&[][..], &[][..]),
        (&[TOKEN], &[bearer]),
        (&[TOKEN, USER], &[bearer]),
        (&[USER, PASSWORD], &[basic]),
        (&[TOKEN, USER, PASSWORD], &[bearer]),
        (&[("PYROSCOPE_AUTH_TOKEN", ""), USER, PASSWORD], &[basic]),
        (&[TENANT], &[("X-Scope-OrgID", "tenant-7")]),
        (&[TENANT, TOKEN], &[bearer, ("X-Scope-OrgID", "tenant-7")]),
    ] {
        let config = config(variables);
        assert_eq!(config.notes, [], "{variables:?}");
        assert_eq!(pairs(&config), fields, "{variables:?}");
    }
}

/// The extension we replace sends no credentials then, and does not say so.
#[test]
fn half_of_basic_credentials_names_the_variable_that_is_missing() {
    const USER: &str = "PYROSCOPE_BASIC_AUTH_USER";
    const PASSWORD: &str = "PYROSCOPE_BASIC_AUTH_PASSWORD";
    for (set, missing) in [(USER, PASSWORD), (PASSWORD, USER)] {
        let problem = format!("is not set, so {set} is not used");
        // Empty is unset.
        for more in [&[][..], &[(missing, "")]] {
            let variables = [&[(set, "s3crethidden")], more].concat();
            assert_eq!(pairs(&config(&variables)), []);
            assert_eq!(said(&variables), lines("error", missing, &[&problem]));
        }
    }
}

/// Go's client refuses every request with such a value: "net/http: invalid header field value". We relay without.
#[test]
fn credentials_that_no_header_can_hold() {
    for (name, field) in [
        ("PYROSCOPE_AUTH_TOKEN", "Authorization"),
        ("PYROSCOPE_TENANT_ID", "X-Scope-OrgID"),
    ] {
        for value in [
            "s3crethidden\n",
            "s3cret\r\nhidden: 1",
            "s3cret\u{1}hidden",
            "s3crethidden\u{7f}",
        ] {
            let problem = format!(
                "the value for \"{field}\" has a line break or control character, it is not sent"
            );
            expect_default(name, value, &problem);
        }
    }
}

fn pairs(config: &Config) -> Vec<(&str, &str)> {
    let server = config.remote.as_ref().expect("a server");
    let fields = server.fields.iter();
    fields
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// What is bad is refused one by one, with a line each that names the header and never its value; what is good is
/// kept. The names are those with which a setting would break the request's framing or its way.
#[test]
fn extra_headers() {
    const NAME: &str = "PYROSCOPE_HTTP_HEADERS";
    let not_settable = |name: &str| format!("\"{name}\" cannot be set, this header is not added");
    let not_a_name =
        |name: &str| format!("\"{name}\" is not a header name, this header is not added");
    let not_a_string =
        |name: &str| format!("the value of \"{name}\" is not a string, this header is not added");
    let not_a_value = |name: &str| {
        format!("the value for \"{name}\" has a line break or control character, it is not sent")
    };
    for (text, kept, problems) in [
        ("{}", &[][..], vec![]),
        (" { } ", &[], vec![]),
        (
            r#"{"X-One":"1","X-Two":""}"#,
            &[("X-One", "1"), ("X-Two", "")],
            vec![],
        ),
        (
            r#"{"X-One":"\"\u00e9\" \/ \ud83d\ude00"}"#,
            &[("X-One", "\"é\" / 😀")],
            vec![],
        ),
        // Go's map has one value for a name, the last; HTTP has one name in all letter cases.
        (r#"{"X-One":"1","x-one":"2"}"#, &[("x-one", "2")], vec![]),
        (
            r#"{"X-One":"1","X-Two":12345678}"#,
            &[("X-One", "1")],
            vec![not_a_string("X-Two")],
        ),
        (
            r#"{"A":true,"B":null,"X-One":"1","C":["s3cretvalue"],"D":{"E":"s3cretvalue"},"F":-1.5e3}"#,
            &[("X-One", "1")],
            ["A", "B", "C", "D", "F"].map(not_a_string).to_vec(),
        ),
        (
            r#"{"X-Bad":"s3cret\r\nvalue: x","X-One":"1"}"#,
            &[("X-One", "1")],
            vec![not_a_value("X-Bad")],
        ),
        (
            r#"{"X-Bad":"s3cret\nvalue","X-Nul":"\u0000","X-Tab":"a\tb"}"#,
            &[("X-Tab", "a\tb")],
            vec![not_a_value("X-Bad"), not_a_value("X-Nul")],
        ),
        (
            r#"{"Host":"s3cret.example","content-length":"12345678","TRANSFER-ENCODING":"s3cretcoding","Connection":"s3cretclose","Expect":"s3cretthing","X-One":"1"}"#,
            &[("X-One", "1")],
            [
                "Host",
                "content-length",
                "TRANSFER-ENCODING",
                "Connection",
                "Expect",
            ]
            .map(not_settable)
            .to_vec(),
        ),
        (
            r#"{"":"s3cretvalue","a b":"s3cretvalue","a:b":"s3cretvalue","ä":"s3cretvalue","X-One":"1"}"#,
            &[("X-One", "1")],
            ["", "a b", "a:b", "ä"].map(not_a_name).to_vec(),
        ),
    ] {
        let (config, notes) = with(NAME, text);
        assert_eq!(
            (pairs(&config), &notes),
            (kept.to_vec(), &problems),
            "{text}"
        );
        let problems: Vec<&str> = problems.iter().map(String::as_str).collect();
        assert_eq!(
            said(&[(NAME, text)]),
            lines("warning", NAME, &problems),
            "{text}"
        );
    }
    // json.Unmarshal takes null for a map without entries.
    assert_eq!(said(&[(NAME, " null ")]), lines("error", NAME, &[]));
    let problem = "is not a JSON object of strings, no headers are added";
    for text in [
        "X-One: s3cretvalue",
        "s3cretvalue",
        "[\"s3cretvalue\"]",
        "\"s3cretvalue\"",
        "12345678",
        "{",
        r#"{"X-One":"s3cretvalue""#,
        r#"{"X-One":"s3cretvalue",}"#,
        r#"{"X-One":"s3cretvalue"} x"#,
        r#"{'X-One':'s3cretvalue'}"#,
        r#"{"X-One" "s3cretvalue"}"#,
        r#"{"X-One":"s3cret\qvalue"}"#,
        "{\"X-One\":\"s3cret\nvalue\"}",
    ] {
        let (config, _) = with(NAME, text);
        assert_eq!(pairs(&config), [], "{text}");
        assert_eq!(
            said(&[(NAME, text)]),
            lines("error", NAME, &[problem]),
            "{text}"
        );
    }
}

/// The good ones among bad ones arrive, and what the settings may not set is as ever.
#[test]
fn extra_headers_on_the_wire() {
    let server = Pyroscope::http();
    let extra = r#"{"Host":"evil.example","Content-Length":"9999","X-One":"one and only","X-Bad":"s3cret\r\nX-Evil: 1","x-forwarded-host":"mine.example","Authorization":"Key s3cretkey"}"#;
    let extension = Sandbox::relay_only(&server)
        .set("PYROSCOPE_HTTP_HEADERS", extra)
        .set("PYROSCOPE_AUTH_TOKEN", "t0ken")
        .listening();
    assert_eq!(extension.post("/ingest", b"body").status, 200);
    let got = server.wait_only();
    let host = server.host();
    let expected = format!(
        "POST /ingest HTTP/1.1\r\nHost: {host}\r\nX-One: one and only\r\nx-forwarded-host: mine.example\r\n\
         Authorization: Key s3cretkey\r\nContent-Length: 4\r\n\r\n"
    );
    assert_eq!(
        (got.head.text(), got.payload()),
        (expected, b"body".as_slice())
    );
    assert_eq!(extension.complaints().len(), 3);
}
