//! OTLP profiles, as Pyroscope's Java agent sends them on request: opentelemetry's profiles/v1development since
//! version 1.9, the fields read here.
//!
//! All tables are in one dictionary for all profiles; an index of 0 means that there is none.

use std::collections::BTreeMap;

use prost::Message;

use super::{Decoded, Tally};

#[derive(Clone, PartialEq, Message)]
pub struct ExportProfilesServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_profiles: Vec<ResourceProfiles>,
    #[prost(message, optional, tag = "2")]
    dictionary: Option<Dictionary>,
}

impl ExportProfilesServiceRequest {
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|error| format!("not an ExportProfilesServiceRequest: {error}"))
    }

    pub fn profiles(&self) -> Result<Vec<Decoded>, String> {
        let dictionary = self.dictionary.as_ref().ok_or("no dictionary")?;
        let mut found = Vec::new();
        for of_resource in &self.resource_profiles {
            let labels = of_resource.labels()?;
            let app = labels.get("service.name").map_or(NAMELESS, String::as_str);
            let profiles = of_resource.scope_profiles.iter();
            for profile in profiles.flat_map(|of_scope| &of_scope.profiles) {
                let tally = dictionary.tally(profile)?;
                let kind = profile.sample_type.as_ref().ok_or("no sample type")?;
                let [name, unit] = [kind.type_strindex, kind.unit_strindex]
                    .map(|index| at(&dictionary.string_table, index, "string"));
                found.push(Decoded {
                    app: app.to_owned(),
                    labels: labels.clone(),
                    sample_types: vec![format!("{}:{}", name?, unit?)],
                    totals: vec![tally.total],
                    functions: tally.functions(),
                    stacks: tally.of_stacks,
                });
            }
        }
        Ok(found)
    }
}

impl ResourceProfiles {
    fn labels(&self) -> Result<BTreeMap<String, String>, String> {
        let attributes = self
            .resource
            .iter()
            .flat_map(|resource| &resource.attributes);
        attributes
            .map(|attribute| {
                let value = attribute
                    .value
                    .as_ref()
                    .and_then(|value| value.string_value.clone());
                let value = value.ok_or_else(|| format!("{} is no string", attribute.key))?;
                Ok((attribute.key.clone(), value))
            })
            .collect()
    }
}

impl Dictionary {
    fn tally(&self, profile: &Profile) -> Result<Tally, String> {
        let mut tally = Tally::default();
        for sample in &profile.samples {
            if sample.stack_index == 0 || sample.values.is_empty() {
                return Err("a sample without a stack or a value".to_owned());
            }
            let mut names = Vec::new();
            let stack = at(&self.stack_table, sample.stack_index, "stack")?;
            for &index in &stack.location_indices {
                for line in &at(&self.location_table, index, "location")?.lines {
                    let function = at(&self.function_table, line.function_index, "function")?;
                    names.push(at(&self.string_table, function.name_strindex, "string")?.clone());
                }
            }
            tally.add(names, sample.values.iter().sum());
        }
        Ok(tally)
    }
}

fn at<'t, T>(table: &'t [T], index: i32, what: &str) -> Result<&'t T, String> {
    let found = usize::try_from(index)
        .ok()
        .and_then(|index| table.get(index));
    found.ok_or_else(|| format!("no {what} {index}"))
}

/// What Pyroscope calls a service that does not say its name.
const NAMELESS: &str = "unknown_service";

#[derive(Clone, PartialEq, Message)]
struct ResourceProfiles {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_profiles: Vec<ScopeProfiles>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    string_value: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeProfiles {
    #[prost(message, repeated, tag = "2")]
    profiles: Vec<Profile>,
}

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, optional, tag = "1")]
    sample_type: Option<ValueType>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int32, tag = "1")]
    type_strindex: i32,
    #[prost(int32, tag = "2")]
    unit_strindex: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(int32, tag = "1")]
    stack_index: i32,
    #[prost(int64, repeated, tag = "4")]
    values: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Dictionary {
    #[prost(message, repeated, tag = "2")]
    location_table: Vec<Location>,
    #[prost(message, repeated, tag = "3")]
    function_table: Vec<Function>,
    #[prost(string, repeated, tag = "5")]
    string_table: Vec<String>,
    #[prost(message, repeated, tag = "7")]
    stack_table: Vec<Stack>,
}

#[derive(Clone, PartialEq, Message)]
struct Stack {
    #[prost(int32, repeated, tag = "1")]
    location_indices: Vec<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(message, repeated, tag = "3")]
    lines: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(int32, tag = "1")]
    function_index: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(int32, tag = "1")]
    name_strindex: i32,
}
