//! Credentials by reference: a setting that says where a credential is kept, instead of the credential itself.
//!
//! | value | kept in |
//! |---|---|
//! | `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME[:json-key:version-stage:version-id]` | Secrets Manager |
//! | `arn:PARTITION:ssm:REGION:ACCOUNT:parameter/NAME` | Parameter Store |
//! | `file:///path` | a file of the image, or a mounted secret: the path as it is, without percent-encoding |
//!
//! The first two forms are those of `valueFrom` in an ECS task definition. [`crate::relay`] reads the credentials, long
//! after the settings. This file only knows where they are kept, and which field each one becomes: [`Template`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::aws::sigv4::Keys;
use crate::aws::store::{self, Service, Stored};
use crate::http1::fields::{digits, is_field_value};

use super::remote::Remote;
use super::{Note, fail, warn_once};

/// All credentials to read, and what is made of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct References {
    /// The credentials to read, each once.
    pub sources: Vec<Source>,
    /// The fields made of them.
    pub templates: Vec<Template>,
    /// How requests to the stores are signed.
    pub keys: KeySource,
}

/// A credential to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The first variable that names it.
    pub variable: &'static str,
    /// Where it is kept.
    pub place: Place,
}

/// Where a credential is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In the file at that path.
    File(String),
    /// In one of AWS's stores.
    Store(Box<Stored>),
}

impl Place {
    /// Whether that is the same secret: the request for one in a store contains its ARN.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::File(path), Self::File(other)) => path == other,
            (Self::Store(stored), Self::Store(other)) => stored.body == other.body,
            _ => false,
        }
    }

    /// Its host, or its kind, for messages.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::File(path) => path,
            Self::Store(stored) => &stored.endpoint.authority,
        }
    }
}

/// The source of the AWS keys that sign requests to the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The environment has them.
    Given(Keys),
    /// They must be requested: `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    Asked {
        /// The endpoint.
        endpoint: Remote,
        /// The request.
        request: Vec<u8>,
    },
    /// There are none.
    Missing,
}

/// One field of relayed requests, with gaps for credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The field's name.
    pub name: String,
    form: Form,
    parts: Vec<Part>,
}

/// How a value becomes a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Bearer,
    /// From two values, user and password.
    Basic,
}

/// A value, and the variable that it comes from.
pub(super) type SettingText = (&'static str, String);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    variable: &'static str,
    /// The value itself; or for a reference the key of the member to use, empty for the whole secret.
    text: String,
    /// The index of its source, if it is a reference.
    kept: Option<usize>,
}

/// Whether a value says where a credential is kept.
pub(super) fn is_reference(value: &str) -> bool {
    value.starts_with("arn:") || value.starts_with("file://")
}

impl Form {
    /// The field's value, from one value, or from two with a colon between them.
    pub(super) fn write(self, value: String) -> String {
        match self {
            Self::Plain => value,
            Self::Bearer => ["Bearer ", &value].concat(),
            // RFC 7617.
            Self::Basic => ["Basic ", &BASE64.encode(value)].concat(),
        }
    }
}

/// Adds a value after those before it.
pub(super) fn join(all: &mut String, value: &str) {
    if !all.is_empty() {
        all.push(':');
    }
    all.push_str(value);
}

impl References {
    /// The fields' names, each with an empty value.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        let all = self.templates.iter();
        all.map(|template| (template.name.clone(), String::new()))
            .collect()
    }

    /// The fields, made of what was read from each source.
    ///
    /// # Errors
    /// A field cannot be made of it.
    pub fn fields(&self, values: &[String]) -> Result<Vec<(String, String)>, UnusableCredential> {
        let mut fields = Vec::new();
        for template in &self.templates {
            let mut value = String::new();
            for part in &template.parts {
                if let Some(at) = part.kept
                    && let (Some(read), Some(source)) = (values.get(at), self.sources.get(at))
                {
                    append_member(&mut value, read, &part.text).map_err(|why| {
                        UnusableCredential {
                            variable: part.variable,
                            place: source.place.name().to_owned(),
                            why,
                        }
                    })?;
                } else {
                    join(&mut value, &part.text);
                }
            }
            fields.push((template.name.clone(), template.form.write(value)));
        }
        Ok(fields)
    }
}

/// A credential was read but cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableCredential {
    /// The variable that names it.
    pub variable: &'static str,
    /// Where it is kept.
    pub place: String,
    /// What is wrong with it, for the log.
    pub why: &'static str,
}

/// Appends the part of a value that is meant: all of it, or the member with that key.
fn append_member(all: &mut String, read: &str, key: &str) -> Result<(), &'static str> {
    let member;
    let mut value = read;
    if !key.is_empty() {
        member = store::member(read, key).ok_or("it is no JSON object with that key")?;
        value = &member;
    }
    // Editors end a file with a line break, and people often end a secret with one.
    let value = value.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err("it is empty");
    }
    if !is_field_value(value.as_bytes()) {
        return Err("it has a line break or control character in it");
    }
    join(all, value);
    Ok(())
}

/// A field with at least one reference: its name, how it is made, and its values.
pub(super) type ReferringField = (String, Form, Vec<SettingText>);

/// Reads the references in these fields, and how to sign requests; `None` if there are no references.
pub(super) fn read(
    env: &impl Fn(&str) -> Option<String>,
    fields: &[ReferringField],
    notes: &mut Vec<Note>,
) -> Option<Box<References>> {
    let (mut sources, mut templates) = (Vec::new(), Vec::new());
    'fields: for (name, form, values) in fields {
        let mut parts = Vec::new();
        for (variable, value) in values {
            match part(env, variable, value, &mut sources, notes) {
                Ok(part) => parts.push(part),
                Err(why) => {
                    let problem = [
                        "looks like the place of a credential and is none: ",
                        why,
                        "; this header is not added",
                    ];
                    fail(notes, variable, problem.concat());
                    continue 'fields;
                }
            }
        }
        templates.push(Template {
            name: name.clone(),
            form: *form,
            parts,
        });
    }
    if templates.is_empty() {
        return None;
    }
    Some(Box::new(References {
        sources,
        templates,
        keys: keys(env, notes),
    }))
}

fn keys(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> KeySource {
    const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
    let env = |name| env(name).filter(|value| is_field_value(value.as_bytes()));
    if let (Some(id), Some(secret)) = (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY")) {
        let token = env("AWS_SESSION_TOKEN").unwrap_or_default();
        return KeySource::Given(Keys { id, secret, token });
    }
    match env(URI).map(|uri| Remote::parse(&uri)) {
        None => KeySource::Missing,
        Some(Ok(endpoint)) => {
            let token = env("AWS_CONTAINER_AUTHORIZATION_TOKEN");
            let request = store::keys_request(&endpoint, token.as_deref());
            KeySource::Asked { endpoint, request }
        }
        Some(Err(problem)) => {
            warn_once(notes, URI, problem.to_owned());
            KeySource::Missing
        }
    }
}

fn part(
    env: &impl Fn(&str) -> Option<String>,
    variable: &'static str,
    text: &str,
    sources: &mut Vec<Source>,
    notes: &mut Vec<Note>,
) -> Result<Part, &'static str> {
    let (mut key, mut kept) = (text, None);
    if is_reference(text) {
        let place;
        (place, key) = match text.strip_prefix("file://") {
            Some(path) if path.starts_with('/') => (Place::File(path.to_owned()), ""),
            Some(_) => return Err("file:// must be followed by an absolute path"),
            None => stored(env, text, notes)?,
        };
        let known = sources.iter().position(|own| own.place.is_same(&place));
        kept = Some(known.unwrap_or(sources.len()));
        if known.is_none() {
            sources.push(Source { variable, place });
        }
    }
    Ok(Part {
        variable,
        text: key.to_owned(),
        kept,
    })
}

/// A secret in a store, by its ARN, and the key of the member to use.
fn stored<'v>(
    env: &impl Fn(&str) -> Option<String>,
    arn: &'v str,
    notes: &mut Vec<Note>,
) -> Result<(Place, &'v str), &'static str> {
    let parts: Vec<&str> = arn.split(':').collect();
    let [_, partition, service, region, account, kind, rest @ ..] = &parts[..] else {
        return Err("an ARN has six parts");
    };
    let domain = match *partition {
        "aws" | "aws-us-gov" => "amazonaws.com",
        "aws-cn" => "amazonaws.com.cn",
        _ => return Err("the partition must be aws, aws-cn or aws-us-gov"),
    };
    if !is_region(region, partition) {
        return Err("the region is none of that partition's");
    }
    if account.len() != 12 || digits(account.as_bytes()).is_none() {
        return Err("the account must be a number of 12 digits");
    }
    let (service, body, key) = match *service {
        "secretsmanager" => {
            let (body, key) = secret(arn, kind, rest)?;
            (Service::SecretsManager, body, key)
        }
        "ssm" => (Service::Ssm, parameter(arn, kind, rest)?, ""),
        _ => return Err("the service must be secretsmanager or ssm"),
    };
    let (endpoint, setting) = endpoint(env, service, region, domain, notes)?;
    let region = (*region).to_owned();
    let stored = Stored {
        service,
        region,
        body,
        endpoint,
        setting,
    };
    Ok((Place::Store(Box::new(stored)), key))
}

/// The request of `GetSecretValue`, and the key of the member to use: empty for the whole secret.
fn secret<'v>(arn: &str, kind: &str, rest: &[&'v str]) -> Result<(String, &'v str), &'static str> {
    let mut own = [""; 4];
    for (own, part) in own.iter_mut().zip(rest) {
        *own = part;
    }
    let [name, key, stage, version] = own;
    let is_version = |name: &str| name.is_empty() || is_name(name);
    if kind != "secret"
        || rest.len() > 4
        || !is_name(name)
        || !is_version(stage)
        || !is_version(version)
    {
        return Err("it must end in secret:NAME[:json-key:version-stage:version-id]");
    }
    // Text after the name is not part of the ARN.
    let after = rest.len() - 1 + key.len() + stage.len() + version.len();
    let mut body = [r#"{"SecretId":""#, &arn[..arn.len() - after], "\""].concat();
    for (field, value) in [("Stage", stage), ("Id", version)] {
        if !value.is_empty() {
            body += &[",\"Version", field, "\":\"", value, "\""].concat();
        }
    }
    body.push('}');
    Ok((body, key))
}

/// The request of `GetParameter`. A version or a label may follow the name.
fn parameter(arn: &str, kind: &str, rest: &[&str]) -> Result<String, &'static str> {
    let name = kind.strip_prefix("parameter/").unwrap_or_default();
    if !is_name(name) || !rest.iter().all(|part| is_name(part)) {
        return Err("it must end in parameter/NAME");
    }
    Ok([r#"{"Name":""#, arn, r#"","WithDecryption":true}"#].concat())
}

/// Whether AWS allows that name.
fn is_name(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    !name.is_empty() && name.bytes().all(is_fine)
}

/// Whether that is a possible region of that partition: `eu-west-1`, `us-gov-east-1`.
fn is_region(region: &str, partition: &str) -> bool {
    let own = if region.starts_with("cn-") {
        "aws-cn"
    } else if region.starts_with("us-gov-") {
        "aws-us-gov"
    } else {
        "aws"
    };
    let (mut hyphens, mut last) = (0, b'-');
    for byte in region.bytes() {
        match byte {
            b'-' if last != b'-' => hyphens += 1,
            b'a'..=b'z' | b'0'..=b'9' => {}
            _ => return false,
        }
        last = byte;
    }
    partition == own && hyphens >= 2 && last.is_ascii_digit()
}

/// The endpoint of the service, and which setting gives it.
fn endpoint(
    env: &impl Fn(&str) -> Option<String>,
    service: Service,
    region: &str,
    domain: &str,
    notes: &mut Vec<Note>,
) -> Result<(Remote, Option<&'static str>), &'static str> {
    let own = match service {
        Service::SecretsManager => "AWS_ENDPOINT_URL_SECRETS_MANAGER",
        Service::Ssm => "AWS_ENDPOINT_URL_SSM",
    };
    let mut found = None;
    for variable in [own, "AWS_ENDPOINT_URL"] {
        let Some(url) = env(variable) else {
            continue;
        };
        match Remote::parse(&url) {
            Ok(endpoint) => {
                found = Some((endpoint, Some(variable)));
                break;
            }
            Err(problem) => {
                let problem = [problem, "; it is not used"].concat();
                warn_once(notes, variable, problem);
            }
        }
    }
    let (mut endpoint, setting) = match found {
        Some(found) => found,
        None => (Remote::parse(&aws_url(env, service, region, domain))?, None),
    };
    endpoint.proxy = endpoint.read_proxy(env, notes);
    Ok((endpoint, setting))
}

fn aws_url(
    env: &impl Fn(&str) -> Option<String>,
    service: Service,
    region: &str,
    domain: &str,
) -> String {
    let wants_fips = env("AWS_USE_FIPS_ENDPOINT");
    // In GovCloud every endpoint of Parameter Store is a FIPS one.
    let fips = if wants_fips.is_some_and(|word| word.eq_ignore_ascii_case("true"))
        && !(service == Service::Ssm && region.starts_with("us-gov-"))
    {
        "-fips."
    } else {
        "."
    };
    ["https://", service.name(), fips, region, ".", domain].concat()
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const SECRET: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:a/b-AbCdEf";

    fn config(vars: &[(&str, &str)]) -> Config {
        Config::read(|name| {
            let mut same = vars.iter().filter(|(other, _)| *other == name);
            same.next().map(|(_, value)| (*value).to_owned())
        })
    }

    fn references(vars: &[(&str, &str)]) -> (Vec<(String, String)>, References) {
        let config = config(vars);
        assert_eq!(config.notes, []);
        let remote = config.remote.unwrap();
        let references = remote.references.expect("a reference");
        assert_eq!(remote.withheld, references.templates.len());
        (remote.fields, *references)
    }

    fn stored(value: &str, vars: &[(&str, &str)]) -> Stored {
        let (_, references) = references(&[&[("PYROSCOPE_AUTH_TOKEN", value)], vars].concat());
        match references.sources.into_iter().next().unwrap().place {
            Place::Store(stored) => *stored,
            Place::File(path) => unreachable!("{path}"),
        }
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_is_named_is_asked_for_as_the_store_wants_it() {
        for (value, body) in [
            (SECRET.to_owned(), format!(r#"{{"SecretId":"{SECRET}"}}"#)),
            (format!("{SECRET}:key::"), format!(r#"{{"SecretId":"{SECRET}"}}"#)),
            (
                format!("{SECRET}:::EXAMPLE1-90ab-cdef"),
                format!(r#"{{"SecretId":"{SECRET}","VersionId":"EXAMPLE1-90ab-cdef"}}"#),
            ),
            (
                format!("{SECRET}:key:AWSPREVIOUS:"),
                format!(r#"{{"SecretId":"{SECRET}","VersionStage":"AWSPREVIOUS"}}"#),
            ),
            (
                "arn:aws-cn:ssm:cn-north-1:123456789012:parameter/a/b:3".to_owned(),
                r#"{"Name":"arn:aws-cn:ssm:cn-north-1:123456789012:parameter/a/b:3","WithDecryption":true}"#.to_owned(),
            ),
        ] {
            assert_eq!(stored(&value, &[]).body, body, "{value}");
        }
    }

    #[test]
    fn the_endpoint_is_the_services_own_setting_or_that_of_all_or_aws() {
        let own = ("AWS_ENDPOINT_URL_SECRETS_MANAGER", "http://own:1");
        let all = ("AWS_ENDPOINT_URL", "http://all:2/base/");
        let other = ("AWS_ENDPOINT_URL_SSM", "http://other:3");
        let fips = ("AWS_USE_FIPS_ENDPOINT", "TRUE");
        let at = |vars: &[(&str, &str)]| stored(SECRET, vars).endpoint;
        assert_eq!(at(&[own, all, other, fips]).authority, "own:1");
        assert_eq!(at(&[all, other]).authority, "all:2");
        assert_eq!(at(&[all]).path, "/base");
        let aws = at(&[other]);
        let host = "secretsmanager.eu-west-1.amazonaws.com";
        assert_eq!((aws.tls, aws.host.as_str(), aws.port), (true, host, 443));
        assert!(
            at(&[fips])
                .host
                .starts_with("secretsmanager-fips.eu-west-1.")
        );
        assert_eq!(at(&[("AWS_USE_FIPS_ENDPOINT", "false")]).host, host);
        let proxy = ("HTTPS_PROXY", "http://proxy:3128");
        assert_eq!(at(&[proxy]).peer(), ("proxy", 3128));
        assert_eq!(at(&[proxy, ("NO_PROXY", ".amazonaws.com")]).proxy, None);
        assert_eq!(at(&[proxy, all]).proxy, None, "in clear");
    }

    #[test]
    fn what_is_wrong_with_an_endpoint_or_a_proxy_is_said_once() {
        let both = [
            ("PYROSCOPE_AUTH_TOKEN", SECRET),
            (
                "PYROSCOPE_TENANT_ID",
                "arn:aws:secretsmanager:eu-west-1:123456789012:secret:c",
            ),
        ];
        for (variable, value) in [
            ("AWS_ENDPOINT_URL", "localhost"),
            ("HTTPS_PROXY", "socks5://p"),
        ] {
            let config = config(&[&both[..], &[(variable, value)]].concat());
            let said: Vec<_> = config.notes.iter().map(|note| note.variable).collect();
            assert_eq!(said, [variable], "{:?}", config.notes);
        }
    }

    #[test]
    fn fields_are_made_of_what_was_read() {
        let (names, references) = references(&[
            ("PYROSCOPE_BASIC_AUTH_USER", "user"),
            ("PYROSCOPE_BASIC_AUTH_PASSWORD", &format!("{SECRET}:p::")),
            ("PYROSCOPE_TENANT_ID", "file:///etc/tenant"),
            (
                "PYROSCOPE_HTTP_HEADERS",
                &format!(r#"{{"X-Set":"1","X-Kept":"{SECRET}:n::"}}"#),
            ),
        ]);
        let kept = ["Authorization", "X-Scope-OrgID", "X-Kept"].map(|name| pair(name, ""));
        assert_eq!(names, [&kept[..], &[pair("X-Set", "1")]].concat());
        let places: Vec<_> = references
            .sources
            .iter()
            .map(|own| own.place.name())
            .collect();
        let host = "secretsmanager.eu-west-1.amazonaws.com";
        assert_eq!(places, [host, "/etc/tenant"], "each once");
        let values = [r#"{"p":"pass","n":7}"#.to_owned(), "me\r\n".to_owned()];
        assert_eq!(
            references.fields(&values),
            Ok(vec![
                pair("Authorization", "Basic dXNlcjpwYXNz"),
                pair("X-Scope-OrgID", "me"),
                pair("X-Kept", "7")
            ])
        );
        for (secret, tenant, variable, why) in [
            (
                "[]",
                "me",
                "PYROSCOPE_BASIC_AUTH_PASSWORD",
                "it is no JSON object with that key",
            ),
            (
                r#"{"p":"pass"}"#,
                "me",
                "PYROSCOPE_HTTP_HEADERS",
                "it is no JSON object with that key",
            ),
            (
                r#"{"p":"pass","n":7}"#,
                "\n",
                "PYROSCOPE_TENANT_ID",
                "it is empty",
            ),
            (
                r#"{"p":"pass","n":7}"#,
                "a\nb",
                "PYROSCOPE_TENANT_ID",
                "it has a line break or control character in it",
            ),
        ] {
            let unfit = references
                .fields(&[secret.to_owned(), tenant.to_owned()])
                .unwrap_err();
            assert_eq!((unfit.variable, unfit.why), (variable, why));
        }
    }

    #[test]
    fn the_last_of_a_name_wins_and_nothing_is_read_for_the_others() {
        let tenant = ("PYROSCOPE_TENANT_ID", "file:///tenant");
        let token = ("PYROSCOPE_AUTH_TOKEN", SECRET);
        let headers = |text| ("PYROSCOPE_HTTP_HEADERS", text);
        let literal = config(&[tenant, headers(r#"{"x-scope-orgid":"me"}"#)]);
        let remote = literal.remote.unwrap();
        assert_eq!(remote.fields, [pair("x-scope-orgid", "me")]);
        assert_eq!((remote.withheld, remote.references), (0, None));
        let (fields, kept) =
            references(&[tenant, token, headers(r#"{"X-SCOPE-ORGID":"file:///x"}"#)]);
        assert_eq!(
            fields,
            [pair("Authorization", ""), pair("X-SCOPE-ORGID", "")]
        );
        let places: Vec<_> = kept.sources.iter().map(|own| own.place.name()).collect();
        assert_eq!(places, ["secretsmanager.eu-west-1.amazonaws.com", "/x"]);
        let values = ["t".to_owned(), "me".to_owned()];
        let made = [
            pair("Authorization", "Bearer t"),
            pair("X-SCOPE-ORGID", "me"),
        ];
        assert_eq!(kept.fields(&values), Ok(made.to_vec()));
    }

    #[test]
    fn a_place_is_read_once_and_another_one_beside_it() {
        let count = |token, tenant| {
            let vars = [
                ("PYROSCOPE_AUTH_TOKEN", token),
                ("PYROSCOPE_TENANT_ID", tenant),
            ];
            references(&vars).1.sources.len()
        };
        assert_eq!(count("file:///a", "file:///a"), 1);
        assert_eq!(count("file:///a", "file:///b"), 2);
        assert_eq!(count(SECRET, "file:///a"), 2);
    }

    #[test]
    fn each_part_of_a_secrets_arn_must_be_one() {
        let start = "arn:aws:secretsmanager:eu-west-1:123456789012";
        for end in [
            "secrets:a",
            "secret:",
            "secret:a b",
            "secret:a:k:s t",
            "secret:a:k::v w",
            "secret:a:k:s:v:more",
        ] {
            let value = format!("{start}:{end}");
            let config = config(&[("PYROSCOPE_AUTH_TOKEN", &value)]);
            let problems: Vec<_> = config.notes.iter().map(|note| &note.problem).collect();
            let is_named = |problem: &&String| problem.contains("it must end in secret:NAME");
            assert!(problems.iter().any(is_named), "{end}: {problems:?}");
        }
        for end in ["secret:a", "secret:a:k", "secret:a:k:s", "secret:a:k:s:v"] {
            stored(&format!("{start}:{end}"), &[]);
        }
    }

    #[test]
    fn in_govcloud_parameter_store_is_fips_as_it_is() {
        let fips = [("AWS_USE_FIPS_ENDPOINT", "true")];
        let host = |arn: &str| stored(arn, &fips).endpoint.host;
        for (service, region, end, expected) in [
            (
                "ssm",
                "us-gov-west-1",
                "parameter/a",
                "ssm.us-gov-west-1.amazonaws.com",
            ),
            (
                "ssm",
                "us-east-1",
                "parameter/a",
                "ssm-fips.us-east-1.amazonaws.com",
            ),
            (
                "secretsmanager",
                "us-gov-west-1",
                "secret:a",
                "secretsmanager-fips.us-gov-west-1.amazonaws.com",
            ),
        ] {
            let partition = if region.starts_with("us-gov") {
                "aws-us-gov"
            } else {
                "aws"
            };
            let arn = format!("arn:{partition}:{service}:{region}:123456789012:{end}");
            assert_eq!(host(&arn), expected);
        }
    }

    #[test]
    fn keys_are_the_environments_or_asked_for() {
        let id = ("AWS_ACCESS_KEY_ID", "id");
        let secret = ("AWS_SECRET_ACCESS_KEY", "key");
        let uri = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/c");
        let keys = |vars: &[(&str, &str)]| {
            references(&[&[("PYROSCOPE_AUTH_TOKEN", SECRET)], vars].concat())
                .1
                .keys
        };
        assert!(
            matches!(keys(&[id, secret, uri]), KeySource::Given(keys) if keys.token.is_empty())
        );
        assert!(matches!(keys(&[id, uri]), KeySource::Asked { .. }));
        assert_eq!(keys(&[id]), KeySource::Missing);
        assert_eq!(
            keys(&[("AWS_ACCESS_KEY_ID", "i\nd"), secret]),
            KeySource::Missing
        );
    }

    #[test]
    fn regions() {
        for (region, partition) in [
            ("eu-west-1", "aws"),
            ("ap-southeast-10", "aws"),
            ("cn-northwest-1", "aws-cn"),
            ("us-gov-east-1", "aws-us-gov"),
        ] {
            assert!(is_region(region, partition), "{region}");
        }
        for (region, partition) in [
            ("", "aws"),
            ("eu-west", "aws"),
            ("euwest1", "aws"),
            ("eu--1", "aws"),
            ("eu_west_1", "aws"),
            ("EU-west-1", "aws"),
            ("eu-west-1a", "aws"),
            ("eu-west-1.evil.example/", "aws"),
            ("cn-north-1", "aws"),
            ("us-gov-west-1", "aws"),
            ("eu-west-1", "aws-cn"),
            ("us-east-1", "aws-us-gov"),
        ] {
            assert!(!is_region(region, partition), "{region}");
        }
    }
}
