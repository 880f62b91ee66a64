//! Whose a connection is: looked up once for each fact.

use crate::contract::ConnId;

use super::Relay;

/// Whose a connection is; of inlets and uplinks, at which place.
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
    /// Whose that connection is. One that is closed is nobody's.
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
