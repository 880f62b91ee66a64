//! ARNs of secrets and parameters: what a store is asked for, and where it is.

use crate::aws::store::{Secret, Service};
use crate::config::remote::Remote;
use crate::config::{Note, warn_once};
use crate::http1::fields::digits;

use super::{Place, Stored};

/// A secret in a store, by its ARN, and the key of the member to use.
pub(super) fn stored<'v>(
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
    let secret = Secret {
        service,
        region,
        body,
    };
    let stored = Stored {
        secret,
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
pub(super) fn is_region(region: &str, partition: &str) -> bool {
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
pub(super) fn endpoint(
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
