//! One reading of all sources in the settings, one after another.

use std::time::Instant;

use crate::aws::sigv4::Keys;
use crate::aws::store;
use crate::config::Remote;
use crate::config::reference::{KeySource, Place, References};
use crate::contract::Now;
use crate::relay::inquiry::Inquiry;
use crate::relay::wakes::Wakes;

#[derive(Debug)]
pub(super) struct Reading {
    /// The values so far, in the order of the sources.
    pub(super) values: Vec<String>,
    pub(super) keys: Option<Keys>,
    pub(super) step: Step,
    /// A freeze has already cost one inquiry.
    pub(super) resent: bool,
}

/// The current step for the next source.
#[derive(Debug)]
pub(super) enum Step {
    None,
    File,
    Inquiry(Box<Inquiry>),
}

/// What could not be read, and why.
#[derive(Debug)]
pub(in crate::relay) struct Failure {
    pub(in crate::relay) variable: &'static str,
    pub(in crate::relay) place: String,
    pub(in crate::relay) cause: String,
}

impl Reading {
    /// The endpoint of the inquiry that is due or under way.
    pub(super) fn endpoint<'r>(&self, references: &'r References) -> Option<&'r Remote> {
        let Place::Store(stored) = &references.sources.get(self.values.len())?.place else {
            return None;
        };
        match &references.keys {
            KeySource::Asked { endpoint, .. } if self.keys.is_none() => Some(endpoint),
            _ => Some(&stored.endpoint),
        }
    }

    /// Begins to read the next source. Returns the file to read, if it is one.
    pub(super) fn next(
        &mut self,
        references: &References,
        deadline: Instant,
        wakes: Wakes,
        now: Now,
    ) -> Result<Option<String>, String> {
        let Some(source) = references.sources.get(self.values.len()) else {
            return Ok(None);
        };
        let stored = match &source.place {
            Place::File(path) => {
                self.step = Step::File;
                return Ok(Some(path.clone()));
            }
            Place::Store(stored) => stored,
        };
        let request = match (&references.keys, &self.keys) {
            (KeySource::Given(keys), _) | (_, Some(keys)) => stored.request(keys, now.unix_ms),
            (KeySource::Asked { request, .. }, None) => request.clone(),
            (KeySource::Missing, None) => {
                return Err(store::NO_KEYS.to_owned());
            }
        };
        let inquiry = Inquiry::new(request, deadline, wakes);
        self.step = Step::Inquiry(Box::new(inquiry));
        Ok(None)
    }

    /// Takes the result of an inquiry that has ended.
    pub(super) fn conclude(&mut self, references: &References, wakes: Wakes) -> Result<(), String> {
        let Step::Inquiry(inquiry) = &self.step else {
            return Ok(());
        };
        let asks_keys = matches!(references.keys, KeySource::Asked { .. }) && self.keys.is_none();
        let source = references.sources.get(self.values.len());
        let (Some(answer), Some(Place::Store(stored))) =
            (inquiry.answer(), source.map(|source| &source.place))
        else {
            return Ok(());
        };
        match answer {
            // Only the freeze was the cause.
            Err(_) if inquiry.was_frozen(wakes) && !self.resent => self.resent = true,
            Err(cause) => return Err(cause.to_owned()),
            Ok((status, body)) if asks_keys => self.keys = Some(store::keys(status, body)?),
            Ok((status, body)) => self.values.push(stored.secret.value(status, body)?),
        }
        Ok(())
    }
}
