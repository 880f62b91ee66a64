//! Reads the credentials that the settings refer to, as the relay would.

use crate::aws::sigv4::Keys;
use crate::aws::store;
use crate::config::reference::{KeySource, Place, References};
use crate::config::{Config, Remote};
use crate::contract::error_words;
use crate::shell::{clock, roots};

use super::Check;
use super::line::Answer;
use super::verdict::{ANSWER, Step};

const SECRET: &Step = &Step {
    name: "secret    ",
    ..ANSWER
};
const STEP: &str = SECRET.name;

impl Check<'_> {
    /// Reads every credential, and sets the fields made of them; `None` if one is missing.
    pub(super) fn read_secrets(&mut self, config: &Config, remote: &mut Remote) -> Option<()> {
        let Some(references) = &config.references else {
            return Some(());
        };
        let (mut values, mut keys) = (Vec::new(), None);
        for source in &references.sources {
            let (variable, place) = (source.variable, source.place.name());
            let value = match &source.place {
                Place::File(path) => read_file(path),
                Place::Store(stored) => {
                    if keys.is_none() {
                        keys = Some(self.keys(config, references, variable)?);
                    }
                    let request = stored.request(keys.as_ref()?, clock().unix_ms);
                    let setting = stored.setting.unwrap_or(variable);
                    let answer = self.ask(config, &stored.endpoint, setting, &request)?;
                    stored.secret.value(answer.status, &answer.body)
                }
            };
            match value {
                Ok(value) => values.push(value),
                Err(cause) => {
                    let words = [variable, " cannot be read from ", place, ": ", &cause];
                    self.fail(STEP, &words);
                    return None;
                }
            }
            self.ok(STEP, &[variable, " is read from ", place]);
        }
        match references.fields(&values) {
            Ok(mut fields) => {
                fields.append(&mut remote.fields.split_off(remote.withheld));
                (remote.fields, remote.withheld) = (fields, 0);
                Some(())
            }
            Err(unfit) => {
                let words = [unfit.variable, ", from ", &unfit.place, ": ", unfit.why];
                self.fail(STEP, &words);
                None
            }
        }
    }

    /// The AWS keys to sign with.
    fn keys(
        &mut self,
        config: &Config,
        references: &References,
        variable: &'static str,
    ) -> Option<Keys> {
        let keys = match &references.keys {
            KeySource::Given(keys) => Ok(keys.clone()),
            KeySource::Missing => Err(store::NO_KEYS.to_owned()),
            KeySource::Asked { endpoint, request } => {
                let setting = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
                let answer = self.ask(config, endpoint, setting, request)?;
                store::keys(answer.status, &answer.body)
            }
        };
        match keys {
            Ok(keys) => Some(keys),
            Err(cause) => {
                self.fail(STEP, &[variable, ": ", &cause]);
                None
            }
        }
    }

    fn ask(
        &mut self,
        config: &Config,
        endpoint: &Remote,
        setting: &'static str,
        request: &[u8],
    ) -> Option<Answer> {
        let mut line = self.reach(config, endpoint, setting)?;
        match line.write(request).and_then(|()| line.answer()) {
            Ok(answer) => Some(answer),
            Err(cause) => {
                self.fail_at(SECRET, &endpoint.authority, &cause, setting);
                None
            }
        }
    }
}

fn read_file(path: &str) -> Result<String, String> {
    let bytes =
        roots::bounded(path.as_ref()).map_err(|error| error_words(error.kind()).to_owned())?;
    String::from_utf8(bytes).map_err(|_| store::NOT_TEXT.to_owned())
}
