//! The settings of the server: its address, and the fields that they put on every relayed request.

use crate::http1::fields::{is_field_value, is_token};
use crate::json;

use super::reference::{self, Form, References, ReferringField, SettingText, is_reference, join};
use super::remote::Remote;
use super::{Note, fail, warn};

/// The default server: Grafana Cloud.
const REMOTE_DEFAULT: &str = "https://profiles-prod-001.grafana.net";

/// Reads the address and the fields, and where the fields' values come from that are not known yet; `None` if the
/// address is unusable.
pub(super) fn read(
    env: &impl Fn(&str) -> Option<String>,
    references: &mut Option<Box<References>>,
    notes: &mut Vec<Note>,
) -> Option<Remote> {
    const NAME: &str = "PYROSCOPE_REMOTE_ADDRESS";
    let address = env(NAME);
    let address = address.as_deref().unwrap_or(REMOTE_DEFAULT);
    let mut remote = match Remote::parse(address) {
        Ok(remote) => {
            if address.contains(['?', '#']) {
                let problem = "has a query or a fragment, which is not used";
                warn(notes, NAME, problem.to_owned());
            }
            Some(remote)
        }
        Err(problem) => {
            fail(
                notes,
                NAME,
                format!("{problem}; profiles are taken and counted as lost"),
            );
            None
        }
    };
    let fields = set_fields(env, notes);
    if let Some(remote) = &mut remote {
        remote.fields = fields.set;
        remote.proxy = remote.read_proxy(env, notes);
        *references = reference::read(env, &fields.kept, notes);
        if let Some(references) = references {
            remote.withheld = references.templates.len();
            let mut names = references.names();
            names.append(&mut remote.fields);
            remote.fields = names;
        }
    }
    remote
}

/// Reads all fields that the settings put on relayed requests; later ones replace earlier ones of the same name.
fn set_fields(env: &impl Fn(&str) -> Option<String>, notes: &mut Vec<Note>) -> Fields {
    const EXTRA: &str = "PYROSCOPE_HTTP_HEADERS";
    const TOKEN: &str = "PYROSCOPE_AUTH_TOKEN";
    const USER: &str = "PYROSCOPE_BASIC_AUTH_USER";
    const PASSWORD: &str = "PYROSCOPE_BASIC_AUTH_PASSWORD";
    const TENANT: &str = "PYROSCOPE_TENANT_ID";
    let mut fields = Fields {
        set: Vec::new(),
        kept: Vec::new(),
    };
    if let Some(token) = env(TOKEN) {
        fields.set(notes, "Authorization", Form::Bearer, vec![(TOKEN, token)]);
    } else {
        let half = match (env(USER), env(PASSWORD)) {
            (Some(user), Some(password)) => {
                let values = vec![(USER, user), (PASSWORD, password)];
                fields.set(notes, "Authorization", Form::Basic, values);
                None
            }
            (Some(_), None) => Some((PASSWORD, USER)),
            (None, Some(_)) => Some((USER, PASSWORD)),
            (None, None) => None,
        };
        if let Some((missing, set)) = half {
            let problem = ["is not set, so ", set, " is not used"];
            fail(notes, missing, problem.concat());
        }
    }
    if let Some(tenant) = env(TENANT) {
        fields.set(notes, "X-Scope-OrgID", Form::Plain, vec![(TENANT, tenant)]);
    }
    // In Go, null is an object without fields.
    if let Some(text) = env(EXTRA).filter(|text| text.trim() != "null") {
        let mut extra = Vec::new();
        if json::object(&text, |name, value| extra.push((name, value))).is_err() {
            fail(
                notes,
                EXTRA,
                "is not a JSON object of strings, no headers are added".to_owned(),
            );
            extra.clear();
        }
        for (name, value) in &extra {
            match value {
                json::Value::String(value) => {
                    let value = vec![(EXTRA, value.as_ref().to_owned())];
                    fields.set(notes, name, Form::Plain, value);
                }
                _ => warn(
                    notes,
                    EXTRA,
                    format!("the value of \"{name}\" is not a string, this header is not added"),
                ),
            }
        }
    }
    fields
}

/// Fields that the framing and routing of relayed requests depend on: no setting may change them.
const NOT_SETTABLE: [&str; 5] = [
    "Host",
    "Content-Length",
    "Transfer-Encoding",
    "Connection",
    "Expect",
];

/// The fields, while the settings are read.
struct Fields {
    /// The fields whose value is known.
    set: Vec<(String, String)>,
    /// The others.
    kept: Vec<ReferringField>,
}

impl Fields {
    /// Sets a field from one or two variables' values.
    fn set(&mut self, notes: &mut Vec<Note>, name: &str, form: Form, values: Vec<SettingText>) {
        let variable = values.first().map_or("", |(variable, _)| variable);
        if NOT_SETTABLE
            .iter()
            .any(|not| name.eq_ignore_ascii_case(not))
        {
            let problem = format!("\"{name}\" cannot be set, this header is not added");
            return warn(notes, variable, problem);
        }
        if !is_token(name.as_bytes()) {
            let problem = format!("\"{name}\" is not a header name, this header is not added");
            return warn(notes, variable, problem);
        }
        if values.iter().any(|(_, value)| is_reference(value)) {
            self.forget(name);
            return self.kept.push((name.to_owned(), form, values));
        }
        let mut value = String::new();
        for (_, part) in &values {
            join(&mut value, part);
        }
        let value = form.write(value);
        if is_field_value(value.as_bytes()) {
            self.forget(name);
            self.set.push((name.to_owned(), value));
        } else {
            let problem = format!(
                "the value for \"{name}\" has a line break or control character, it is not sent"
            );
            warn(notes, variable, problem);
        }
    }

    fn forget(&mut self, name: &str) {
        self.set
            .retain(|(before, _)| !before.eq_ignore_ascii_case(name));
        self.kept
            .retain(|(before, ..)| !before.eq_ignore_ascii_case(name));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn config(vars: &[(&str, &str)]) -> Config {
        Config::read(|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| (*v).to_owned())
        })
    }

    #[test]
    fn fields_replace_each_other() {
        let fields = |vars: &[(&str, &str)]| config(vars).remote.unwrap().fields;
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let basic = [
            ("PYROSCOPE_BASIC_AUTH_USER", "u"),
            ("PYROSCOPE_BASIC_AUTH_PASSWORD", "p"),
        ];
        assert_eq!(fields(&basic), [pair("Authorization", "Basic dTpw")]);
        assert_eq!(fields(&basic[..1]), []);
        let all = [
            basic[0],
            basic[1],
            ("PYROSCOPE_AUTH_TOKEN", "t"),
            ("PYROSCOPE_TENANT_ID", "me"),
            (
                "PYROSCOPE_HTTP_HEADERS",
                r#"{"X-Test":"1","x-scope-orgid":"you","n":2}"#,
            ),
        ];
        assert_eq!(
            fields(&all),
            [
                pair("Authorization", "Bearer t"),
                pair("X-Test", "1"),
                pair("x-scope-orgid", "you")
            ]
        );
    }
}
