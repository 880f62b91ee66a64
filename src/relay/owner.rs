//! The owner of a connection, looked up once for each fact.

use crate::contract::ConnId;

use super::Relay;

/// The owner of a connection; inlets and uplinks with their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Inlet(usize),
    Uplink(usize),
    Lambda,
    Telemetry,
    Store,
    Unknown,
}

impl Relay {
    /// The owner of that connection; `Unknown` if it is closed.
    pub(super) fn owner(&self, id: ConnId) -> Owner {
        if let Some(at) = self.inlets.iter().position(|(own, _)| *own == id) {
            Owner::Inlet(at)
        } else if let Some(at) = self.uplinks.iter().position(|uplink| uplink.owns(id)) {
            Owner::Uplink(at)
        } else if self.lambda.as_ref().is_some_and(|own| own.owns(id)) {
            Owner::Lambda
        } else if self.telemetry.as_ref().is_some_and(|own| own.owns(id)) {
            Owner::Telemetry
        } else if self.credentials.as_ref().is_some_and(|own| own.owns(id)) {
            Owner::Store
        } else {
            Owner::Unknown
        }
    }

    pub(super) const fn fresh_id(&mut self) -> ConnId {
        self.next_id += 1;
        ConnId(self.next_id)
    }
}
