use super::super::Config;
use super::arn::is_region;
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
    let references = config.references.expect("a reference");
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
        assert_eq!(stored(&value, &[]).secret.body, body, "{value}");
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
    let endpoints = ["AWS_ENDPOINT_URL_SECRETS_MANAGER", "AWS_ENDPOINT_URL"];
    let bad = endpoints.map(|variable| (variable, "localhost"));
    let config = config(&[&both[..], &bad[..]].concat());
    let said: Vec<_> = config.notes.iter().map(|note| note.variable).collect();
    assert_eq!(said, endpoints, "each has the same problem");
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
    assert_eq!((remote.withheld, literal.references), (0, None));
    let (fields, kept) = references(&[tenant, token, headers(r#"{"X-SCOPE-ORGID":"file:///x"}"#)]);
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
    assert!(matches!(keys(&[id, secret, uri]), KeySource::Given(keys) if keys.token.is_empty()));
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
