//! pprof, the profile that most SDKs send: google's profile.proto, the fields read here.

use std::collections::HashMap;

use prost::Message;

use super::Tally;
use super::schema::{Line, Profile, ValueType};

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

    pub fn totals(&self) -> Result<Vec<i64>, String> {
        let mut totals = vec![0; self.sample_type.len()];
        for sample in &self.sample {
            if sample.value.len() != totals.len() {
                return Err(format!(
                    "a sample with {} values of {} types",
                    sample.value.len(),
                    totals.len()
                ));
            }
            for (total, value) in totals.iter_mut().zip(&sample.value) {
                *total += value;
            }
        }
        Ok(totals)
    }

    pub(super) fn tally(&self) -> Result<Tally, String> {
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
        Ok(tally)
    }

    fn text(&self, index: i64) -> Result<&str, String> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.string_table.get(index))
            .map(String::as_str)
            .ok_or_else(|| format!("no string {index}"))
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::schema::{Function, Location, Sample};
    use super::*;

    /// `main → burn → burn` 7 times and `main` alone 5 times.
    pub fn main_and_burn() -> Vec<u8> {
        let location = |id, function_id| Location {
            id,
            line: vec![Line { function_id }],
        };
        let function = |id, name| Function {
            id,
            name,
            ..Function::default()
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
            function: vec![function(10, 5), function(20, 6)],
            string_table: strings.map(str::to_owned).to_vec(),
            ..Profile::default()
        }
        .encode_to_vec()
    }
}
