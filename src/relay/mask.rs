//! Keeps secrets out of the log: a server may quote in its answer what it was sent.
//!
//! Nothing of ours is logged that could be a secret; the beginning of an answer's body is the one text in a log
//! line that somebody else wrote.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Fields whose values are secrets, whoever set them.
const SECRET: [&str; 4] = [
    "Authorization",
    "Cookie",
    "Proxy-Authorization",
    "X-Api-Key",
];

/// The tenant: not for everyone to read either, but a name and no credential.
const TENANT: &str = "X-Scope-OrgID";

/// Fewest bytes that are taken for a tenant in the middle of a word, or at the end of a text for a secret's beginning.
const TELLING_BYTES_MIN: usize = 4;

/// What stands in a secret's place.
const MASK: &str = "***";

/// `text` without the secrets that the relayed `head` holds: credentials, the tenant, and the values of the fields
/// that the settings `set`.
pub(super) fn masked(text: &str, head: &[u8], set: &[(String, String)]) -> String {
    let (mut secrets, mut short_tenant) = (Vec::new(), None);
    for line in String::from_utf8_lossy(head).split("\r\n").skip(1) {
        let Some((name, value)) = line.split_once(": ") else {
            continue;
        };
        let is = |other: &str| other.eq_ignore_ascii_case(name);
        if is(TENANT) && value.len() < TELLING_BYTES_MIN {
            short_tenant = Some(value.to_owned());
        } else if is(TENANT)
            || SECRET.iter().copied().any(is)
            || set.iter().any(|(other, _)| is(other))
        {
            add(&mut secrets, value);
        }
    }
    secrets.retain(|secret| !secret.is_empty());
    // Servers quote in JSON, as Go's encoder escapes it.
    let quoted: Vec<String> = secrets.iter().map(|secret| in_json(secret)).collect();
    secrets.extend(quoted);
    // The longest first: a shorter one may be part of it.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let mut text = secrets.iter().fold(text.to_owned(), |text, secret| {
        text.replace(&**secret, MASK)
    });
    if let Some(tenant) = short_tenant.filter(|tenant| !tenant.is_empty()) {
        text = without_word(&text, &tenant);
    }
    // The beginning of an answer may end in the middle of a secret, and of a character.
    text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
    let begins_secret = |at: &usize| {
        let tail = text.get(*at..).unwrap_or_default();
        tail.len() >= TELLING_BYTES_MIN && secrets.iter().any(|secret| secret.starts_with(tail))
    };
    if let Some(at) = (0..text.len()).find(begins_secret) {
        text.truncate(at);
        text.push_str(MASK);
    }
    text
}

/// `text` with the mask for a short name, such as the tenant `1`, where it stands alone. In other words it is by chance,
/// and a mask there would spoil the text and tell the name.
fn without_word(text: &str, name: &str) -> String {
    let is_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        out.push_str(before);
        if is_word(out.as_bytes().last()) || is_word(after.as_bytes().first()) {
            let first = name.chars().next().map_or(0, char::len_utf8);
            out.push_str(&name[..first]);
            rest = &rest[at + first..];
        } else {
            out.push_str(MASK);
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

/// A secret as it stands in a JSON string that Go's encoder wrote.
fn in_json(secret: &str) -> String {
    let mut out = String::with_capacity(secret.len());
    for c in secret.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            c => out.push(c),
        }
    }
    out
}

/// A field's value, and what it is made of: the token, or user and password.
fn add(secrets: &mut Vec<String>, value: &str) {
    secrets.push(value.to_owned());
    let Some((_, credentials)) = value.split_once(' ') else {
        return;
    };
    secrets.push(credentials.trim().to_owned());
    if let Ok(basic) = BASE64.decode(credentials.trim()) {
        let basic = String::from_utf8_lossy(&basic);
        secrets.extend(
            basic
                .split_once(':')
                .map(|(_, password)| password.to_owned()),
        );
        secrets.push(basic.into_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_not_quoted() {
        let head = b"POST /ingest?name=app HTTP/1.1\r\nHost: h\r\nauthorization: Basic dXNlcjpzM2NyZXQ=\r\n\
            X-Scope-Orgid: tenant-7\r\nX-Key: k3y\r\nAccept: */*\r\n\r\n";
        let set = [("x-key".to_owned(), "k3y".to_owned())];
        for (text, expected) in [
            (
                "bad credentials Basic dXNlcjpzM2NyZXQ=!",
                "bad credentials ***!",
            ),
            ("dXNlcjpzM2NyZXQ= is unknown", "*** is unknown"),
            (
                "user:s3cret: wrong password s3cret",
                "***: wrong password ***",
            ),
            (
                "no org tenant-7, key k3y; app at h",
                "no org ***, key ***; app at h",
            ),
            ("nothing to hide", "nothing to hide"),
        ] {
            assert_eq!(masked(text, head, &set), expected);
        }
        let short = b"POST / HTTP/1.1\r\nX-Scope-OrgID: a\r\nX-Key: 1\r\n\r\n";
        assert_eq!(
            masked("org \"a\" has no app, a=x1 or \\u003c1\\u003e", short, &set),
            "org \"***\" has no app, ***=x*** or \\u003c***\\u003e"
        );
        let odd = b"POST / HTTP/1.1\r\nX-Key: p\"w<1>\\\r\n\r\n";
        assert_eq!(
            masked("wrong p\\\"w\\u003c1\\u003e\\\\", odd, &set),
            "wrong ***"
        );
        let long = format!(
            "POST / HTTP/1.1\r\nAuthorization: Bearer {}\r\n\r\n",
            "t0ken".repeat(50)
        );
        let cut = format!("no {}\u{fffd}", &"t0ken".repeat(50)[..187]);
        assert_eq!(masked(&cut, long.as_bytes(), &[]), "no ***");
        let bearer = b"POST / HTTP/1.1\r\nAuthorization: Bearer t0ken\r\n\r\n";
        assert_eq!(
            masked("token t0ken has expired", bearer, &[]),
            "token *** has expired"
        );
    }
}
