//! Credentials by reference: a setting that says where a credential is kept, instead of what it is.
//!
//! | value | kept in |
//! |---|---|
//! | `arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME[:json-key:version-stage:version-id]` | Secrets Manager |
//! | `arn:PARTITION:ssm:REGION:ACCOUNT:parameter/NAME` | Parameter Store |
//! | `file:///path` | a file of the image, or a mounted secret |
//!
//! The first two are what `valueFrom` takes in an ECS task definition. What is kept there is read long after the settings
//! are, by [`crate::relay`]; here is only where, and what becomes of it: [`Template`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::aws::sigv4::Keys;
use crate::aws::store::{self, Service, Stored};
use crate::http1::head::is_field_value;

use super::remote::{Remote, percent_decode};
use super::{Note, fail, proxy, warn};

/// All that is to be read, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct References {
    /// What is to be read, each once.
    pub sources: Vec<Source>,
    /// The fields made of it.
    pub templates: Vec<Template>,
    /// How we say who asks.
    pub keys: KeySource,
}

/// Something to be read.
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
    /// In the file of that name.
    File(String),
    /// In one of AWS's stores.
    Store(Box<Stored>),
}

impl Place {
    /// Its host, or what it is, for people.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::File(path) => path,
            Self::Store(stored) => &stored.endpoint.authority,
        }
    }
}

/// Where the AWS keys come from that requests to the stores are signed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// The environment has them.
    Given(Keys),
    /// They are asked for: `AWS_CONTAINER_CREDENTIALS_FULL_URI`.
    Asked {
        /// Whom.
        endpoint: Remote,
        /// How.
        request: Vec<u8>,
    },
    /// There are none.
    Missing,
}

/// One field of relayed requests, with gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// The field's name.
    pub name: String,
    form: Form,
    parts: Vec<Part>,
}

/// What is made of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Plain,
    Bearer,
    /// Of two values.
    Basic,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// What the source at that place keeps; if there is a key, the member of that name.
    Kept {
        at: usize,
        key: String,
        /// Where that is asked for.
        variable: &'static str,
    },
}

/// Whether a value says where a credential is kept.
pub(super) fn is_reference(value: &str) -> bool {
    value.starts_with("arn:") || value.starts_with("file://")
}

impl Form {
    /// The field's value, of one value or two.
    pub(super) fn write(self, parts: &[String]) -> String {
        match self {
            Self::Plain => parts.concat(),
            Self::Bearer => "Bearer ".to_owned() + &parts.concat(),
            // RFC 7617.
            Self::Basic => "Basic ".to_owned() + &BASE64.encode(parts.join(":")),
        }
    }
}

impl References {
    /// The fields, of what was read from each source.
    ///
    /// # Errors
    /// A field cannot be made of it.
    pub fn fields(&self, values: &[String]) -> Result<Vec<(String, String)>, Unfit> {
        let mut fields = Vec::new();
        for template in &self.templates {
            let mut parts = Vec::new();
            for part in &template.parts {
                parts.push(match part {
                    Part::Literal(text) => text.clone(),
                    Part::Kept { at, key, variable } => {
                        let value = values.get(*at).map_or("", String::as_str);
                        let source = self.sources.get(*at);
                        member_of(value, key).map_err(|why| Unfit {
                            variable,
                            place: source.map_or("", |own| own.place.name()).to_owned(),
                            why,
                        })?
                    }
                });
            }
            fields.push((template.name.clone(), template.form.write(&parts)));
        }
        Ok(fields)
    }
}

/// What was read cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfit {
    /// The variable that names it.
    pub variable: &'static str,
    /// Where it is kept.
    pub place: String,
    /// What is wrong with it, for the log.
    pub why: &'static str,
}

/// What is meant of a value that was read: all of it, or the member with that key.
fn member_of(value: &str, key: &str) -> Result<String, &'static str> {
    let member;
    let mut value = value;
    if !key.is_empty() {
        member = store::member(value, key).ok_or("it is no JSON object with that key")?;
        value = &member;
    }
    // Editors end a file with a line break, and so do people a secret.
    let value = value.trim_end_matches(['\r', '\n']);
    if value.is_empty() {
        return Err("it is empty");
    }
    if !is_field_value(value.as_bytes()) {
        return Err("it has a line break or control character in it");
    }
    Ok(value.to_owned())
}

/// Reads references as the settings are read.
pub(super) struct Reader<'e, E> {
    pub(super) env: &'e E,
    sources: Vec<Source>,
    templates: Vec<Template>,
}

impl<'e, E: Fn(&str) -> Option<String>> Reader<'e, E> {
    pub(super) const fn new(env: &'e E) -> Self {
        Self {
            env,
            sources: Vec::new(),
            templates: Vec::new(),
        }
    }

    /// A field made of these values, of which one at least is a reference.
    pub(super) fn add(
        &mut self,
        name: &str,
        form: Form,
        values: &[(&'static str, String)],
        notes: &mut Vec<Note>,
    ) {
        let mut parts = Vec::new();
        for (variable, value) in values {
            match self.part(variable, value, notes) {
                Ok(part) => parts.push(part),
                Err(why) => {
                    let problem = format!(
                        "looks like the place of a credential and is none: {why}; \"{name}\" is not sent"
                    );
                    return fail(notes, variable, problem);
                }
            }
        }
        self.templates.push(Template {
            name: name.to_owned(),
            form,
            parts,
        });
    }

    /// Another field takes that one's place.
    pub(super) fn forget(&mut self, name: &str) {
        self.templates
            .retain(|template| !template.name.eq_ignore_ascii_case(name));
    }

    fn part(
        &mut self,
        variable: &'static str,
        value: &str,
        notes: &mut Vec<Note>,
    ) -> Result<Part, &'static str> {
        let (place, key) = if let Some(path) = value.strip_prefix("file://") {
            (Place::File(file(path)?), "")
        } else if is_reference(value) {
            self.stored(value, notes)?
        } else {
            return Ok(Part::Literal(value.to_owned()));
        };
        let known = self.sources.iter().position(|own| own.place == place);
        let at = known.unwrap_or_else(|| {
            self.sources.push(Source { variable, place });
            self.sources.len() - 1
        });
        let key = key.to_owned();
        Ok(Part::Kept { at, key, variable })
    }

    /// A secret in a store, by its ARN, and the key of the member that is meant.
    fn stored<'v>(
        &self,
        arn: &'v str,
        notes: &mut Vec<Note>,
    ) -> Result<(Place, &'v str), &'static str> {
        let mut parts = arn.splitn(6, ':');
        let mut next = || parts.next().unwrap_or_default();
        let (_, partition, service, region, account, resource) =
            (next(), next(), next(), next(), next(), next());
        let domain = match partition {
            "aws" | "aws-us-gov" => "amazonaws.com",
            "aws-cn" => "amazonaws.com.cn",
            _ => return Err("the partition must be aws, aws-cn or aws-us-gov"),
        };
        if !is_region(region, partition) {
            return Err("the region is none of that partition's");
        }
        if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err("the account must be a number of 12 digits");
        }
        let (service, body, key) = match service {
            "secretsmanager" => {
                let (body, key) = secret(arn, resource)?;
                (Service::SecretsManager, body, key)
            }
            "ssm" => (Service::Ssm, parameter(arn, resource)?, ""),
            _ => return Err("the service must be secretsmanager or ssm"),
        };
        let endpoint = self.endpoint(service, region, domain, notes);
        let region = region.to_owned();
        let stored = Stored {
            service,
            region,
            body,
            endpoint: endpoint?,
        };
        Ok((Place::Store(Box::new(stored)), key))
    }

    /// Where the service is reached.
    fn endpoint(
        &self,
        service: Service,
        region: &str,
        domain: &str,
        notes: &mut Vec<Note>,
    ) -> Result<Remote, &'static str> {
        let own = match service {
            Service::SecretsManager => "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            Service::Ssm => "AWS_ENDPOINT_URL_SSM",
        };
        for variable in [own, "AWS_ENDPOINT_URL"] {
            match (self.env)(variable).map(|url| Remote::parse(&url)) {
                None => {}
                Some(Ok(endpoint)) => return Ok(self.through_proxy(endpoint, notes)),
                Some(Err(problem)) => {
                    let problem = format!("{problem}; AWS's own endpoint is used");
                    note(notes, variable, problem);
                    break;
                }
            }
        }
        let wants_fips = (self.env)("AWS_USE_FIPS_ENDPOINT");
        // In GovCloud, all of Parameter Store is.
        let fips = if wants_fips.is_some_and(|word| word.eq_ignore_ascii_case("true"))
            && !(service == Service::Ssm && region.starts_with("us-gov-"))
        {
            "-fips"
        } else {
            ""
        };
        let name = service.name();
        let url = format!("https://{name}{fips}.{region}.{domain}");
        Ok(self.through_proxy(Remote::parse(&url)?, notes))
    }

    fn through_proxy(&self, mut endpoint: Remote, notes: &mut Vec<Note>) -> Remote {
        let mut own = Vec::new();
        endpoint.proxy = proxy::read(self.env, &endpoint, &mut own);
        for Note {
            variable, problem, ..
        } in own
        {
            note(notes, variable, problem);
        }
        endpoint
    }

    /// What only a field named that lost its place is not read.
    fn drop_unused(&mut self) {
        for at in (0..self.sources.len()).rev() {
            let mut parts = self.templates.iter().flat_map(|template| &template.parts);
            if parts.any(|part| matches!(part, Part::Kept { at: own, .. } if *own == at)) {
                continue;
            }
            self.sources.remove(at);
            let all = self.templates.iter_mut();
            for part in all.flat_map(|template| &mut template.parts) {
                if let Part::Kept { at: own, .. } = part
                    && *own > at
                {
                    *own -= 1;
                }
            }
        }
    }

    /// All references, and how we say who asks; `None` where there are none.
    pub(super) fn finish(mut self, notes: &mut Vec<Note>) -> Option<Box<References>> {
        if self.templates.is_empty() {
            return None;
        }
        self.drop_unused();
        let env = |name| (self.env)(name).filter(|value| is_field_value(value.as_bytes()));
        let keys = if let (Some(id), Some(secret)) =
            (env("AWS_ACCESS_KEY_ID"), env("AWS_SECRET_ACCESS_KEY"))
        {
            let token = env("AWS_SESSION_TOKEN").unwrap_or_default();
            KeySource::Given(Keys { id, secret, token })
        } else {
            const URI: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
            match env(URI).map(|uri| Remote::parse(&uri)) {
                None => KeySource::Missing,
                Some(Ok(endpoint)) => {
                    let token = env("AWS_CONTAINER_AUTHORIZATION_TOKEN");
                    let request = store::keys_request(&endpoint, token.as_deref());
                    KeySource::Asked { endpoint, request }
                }
                Some(Err(problem)) => {
                    note(notes, URI, problem.to_owned());
                    KeySource::Missing
                }
            }
        };
        Some(Box::new(References {
            sources: self.sources,
            templates: self.templates,
            keys,
        }))
    }
}

/// Warns, unless the same has been said before.
fn note(notes: &mut Vec<Note>, variable: &'static str, problem: String) {
    let is_known = |note: &Note| note.variable == variable && note.problem == problem;
    if !notes.iter().any(is_known) {
        warn(notes, variable, problem);
    }
}

/// The path in a `file:` URL, after its two slashes (RFC 8089).
fn file(path: &str) -> Result<String, &'static str> {
    let decoded = percent_decode(path, b'+').and_then(|path| String::from_utf8(path).ok());
    decoded
        .filter(|path| path.starts_with('/') && !path.contains('\0'))
        .ok_or("file:// must be followed by an absolute path")
}

/// What `GetSecretValue` takes, and the key of the member that is meant: empty for all of the secret.
fn secret<'v>(arn: &str, resource: &'v str) -> Result<(String, &'v str), &'static str> {
    let mut parts = resource.split(':');
    let mut next = || parts.next().unwrap_or_default();
    let (kind, name, key, stage, version) = (next(), next(), next(), next(), next());
    if kind != "secret" || !is_name(name) || parts.next().is_some() {
        return Err("it must end in secret:NAME[:json-key:version-stage:version-id]");
    }
    if !(stage.is_empty() || is_name(stage)) || !(version.is_empty() || is_name(version)) {
        return Err("a version has letters, digits and hyphens");
    }
    // What comes after the name is not part of the ARN.
    let end = arn.len() - resource.len() + kind.len() + 1 + name.len();
    let mut body = [r#"{"SecretId":""#, &arn[..end], "\""].concat();
    for (field, value) in [("VersionStage", stage), ("VersionId", version)] {
        if !value.is_empty() {
            body += &[",\"", field, "\":\"", value, "\""].concat();
        }
    }
    body.push('}');
    Ok((body, key))
}

/// What `GetParameter` takes.
fn parameter(arn: &str, resource: &str) -> Result<String, &'static str> {
    match resource.strip_prefix("parameter/") {
        // A version or a label may follow the name.
        Some(name) if name.split(':').all(is_name) => {
            Ok([r#"{"Name":""#, arn, r#"","WithDecryption":true}"#].concat())
        }
        _ => Err("it must end in parameter/NAME"),
    }
}

/// Whether AWS lets something be called so.
fn is_name(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"/_+=.@-".contains(&byte);
    !name.is_empty() && name.bytes().all(is_fine)
}

/// Whether a region of that partition can be called so: `eu-west-1`, `us-gov-east-1`.
fn is_region(region: &str, partition: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let fits = match partition {
        "aws-cn" => region.starts_with("cn-"),
        "aws-us-gov" => region.starts_with("us-gov-"),
        _ => !region.starts_with("cn-") && !region.starts_with("us-gov-"),
    };
    fits && region.bytes().all(is_fine)
        && region.split('-').count() >= 3
        && region.split('-').all(|part| !part.is_empty())
        && region.ends_with(|last: char| last.is_ascii_digit())
}
