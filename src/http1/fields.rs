//! Header fields: their names and values (RFC 9110 section 5).

/// The first field of that name.
#[must_use]
pub fn value<'b>(headers: &[httparse::Header<'b>], name: &str) -> Option<&'b [u8]> {
    lines(headers, name).next()
}

/// Whether two field names are equal (RFC 9110 section 5.1). Most are not, and differ in the first byte compared.
#[must_use]
pub fn is_same_name(a: &str, b: &str) -> bool {
    const CASE: u8 = 0x20;
    let first = |name: &str| name.as_bytes().first().map(|b| b | CASE);
    a.len() == b.len() && first(a) == first(b) && a.eq_ignore_ascii_case(b)
}

/// All fields of that name.
pub(super) fn lines<'h, 'b>(
    headers: &'h [httparse::Header<'b>],
    name: &'h str,
) -> impl Iterator<Item = &'b [u8]> + 'h {
    headers
        .iter()
        .filter(move |h| is_same_name(h.name, name))
        .map(|h| h.value)
}

/// The members of a comma-separated field, in all of its lines.
pub(super) fn members<'h, 'b>(
    headers: &'h [httparse::Header<'b>],
    name: &'h str,
) -> impl Iterator<Item = &'b [u8]> + 'h {
    lines(headers, name)
        .flat_map(|line| line.split(|&b| b == b','))
        .map(<[u8]>::trim_ascii)
}

/// Whether a comma-separated field of that name holds `token`, in any of its lines and any letter case.
#[must_use]
pub fn names_token(headers: &[httparse::Header], name: &str, token: &str) -> bool {
    members(headers, name).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// Whether `name` is a valid field name: a token (RFC 9110 section 5.6.2).
#[must_use]
pub fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&b| is_token_byte(b))
}

/// Whether `value` is a valid field value: no control characters except tab (RFC 9110 section 5.5).
#[must_use]
pub fn is_field_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f))
}

/// Parses digits; nothing else, not even a sign.
#[must_use]
pub fn digits(text: &[u8]) -> Option<u64> {
    let mut value: u64 = 0;
    for &b in text {
        if !b.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(b - b'0'))?;
    }
    (!text.is_empty()).then_some(value)
}

pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
