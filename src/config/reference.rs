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

mod arn;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::aws::sigv4::Keys;
use crate::aws::store::{self, Secret};
use crate::http1::fields::is_field_value;

use super::remote::Remote;
use super::{Note, fail, warn_once};

use arn::stored;

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
            (Self::Store(stored), Self::Store(other)) => stored.secret.body == other.secret.body,
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

/// A secret in one of AWS's stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What the store is asked for.
    pub secret: Secret,
    /// Where the store is reached.
    pub endpoint: Remote,
    /// The setting that gives the endpoint, if it is not AWS's own.
    pub setting: Option<&'static str>,
}

impl Stored {
    /// The request for it, signed at that time.
    #[must_use]
    pub fn request(&self, keys: &Keys, unix_ms: u64) -> Vec<u8> {
        let (authority, path) = (&self.endpoint.authority, &self.endpoint.path);
        self.secret.request(authority, path, keys, unix_ms)
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
            let request =
                store::keys_request(&endpoint.authority, &endpoint.path, token.as_deref());
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

#[cfg(test)]
mod tests;
