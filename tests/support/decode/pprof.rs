//! pprof, the profile that most SDKs send: google's profile.proto, the fields read here.

use std::collections::HashMap;

use prost::Message;

use super::Tally;

#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
}

impl Profile {
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        Self::decode(bytes).map_err(|error| format!("not a pprof: {error}"))
    }

    pub fn sample_types(&self) -> Result<Vec<String>, String> {
        let text = |value: &ValueType| {
            Ok(format!(
                "{}:{}",
                self.text(value.r#type)?,
                self.text(value.unit)?
            ))
        };
        self.sample_type.iter().map(text).collect()
    }

    pub fn functions(&self) -> Result<Vec<(String, i64)>, String> {
        let mut names = HashMap::new();
        for function in &self.function {
            names.insert(function.id, self.text(function.name)?);
        }
        let lines: HashMap<u64, &[Line]> = self
            .location
            .iter()
            .map(|location| (location.id, location.line.as_slice()))
            .collect();
        let mut tally = Tally::default();
        for sample in &self.sample {
            let value = *sample.value.first().ok_or("a sample without a value")?;
            let mut on_stack = Vec::new();
            for id in &sample.location_id {
                for line in *lines.get(id).ok_or_else(|| format!("no location {id}"))? {
                    let name = names.get(&line.function_id);
                    let name = name.ok_or_else(|| format!("no function {}", line.function_id))?;
                    on_stack.push((*name).to_owned());
                }
            }
            tally.add(on_stack, value);
        }
        Ok(tally.functions())
    }

    fn text(&self, index: i64) -> Result<&str, String> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.string_table.get(index))
            .map(String::as_str)
            .ok_or_else(|| format!("no string {index}"))
    }
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// `main → burn → burn` 7 times and `main` alone 5 times.
    pub fn main_and_burn() -> Vec<u8> {
        let location = |id, function_id| Location {
            id,
            line: vec![Line { function_id }],
        };
        let sample = |location_id: &[u64], value| Sample {
            location_id: location_id.to_vec(),
            value: vec![value, value * 10_000_000],
        };
        let strings = ["", "samples", "count", "cpu", "nanoseconds", "main", "burn"];
        Profile {
            sample_type: vec![
                ValueType { r#type: 1, unit: 2 },
                ValueType { r#type: 3, unit: 4 },
            ],
            sample: vec![sample(&[2, 2, 1], 7), sample(&[1], 5)],
            location: vec![location(1, 10), location(2, 20)],
            function: vec![Function { id: 10, name: 5 }, Function { id: 20, name: 6 }],
            string_table: strings.map(str::to_owned).to_vec(),
        }
        .encode_to_vec()
    }
}
