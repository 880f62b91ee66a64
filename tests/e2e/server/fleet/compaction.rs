//! Has the server compacted? Uploads go on until it has, and its own list of blocks says so.
//!
//! What is uploaded comes into segments, blocks of level 0, with what came from others at the same time. When a shard
//! has twenty of them, the server makes blocks of level 1 of them, and there a series has one profile per timestamp.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prost::Message;

use super::super::query::{Asker, Block};
use crate::decode::schema::{
    Function, Label, Line, Location, Profile, PushRequest, RawProfileSeries, RawSample, Sample,
    ValueType,
};

/// What of the server's blocks has become of what.
pub struct Compaction {
    /// Blocks of level 0 that held what was uploaded.
    pub segments: usize,
    /// Blocks of a higher level afterwards.
    pub blocks: usize,
    pub took: Duration,
}

/// Goes on uploading to the services, for all tenants, until none of the segments there are now is left.
pub fn force(askers: &[Asker; 2], services: &BTreeSet<String>) -> Result<Compaction, String> {
    let begun = Instant::now();
    let mut open: Vec<BTreeSet<String>> = Vec::new();
    for asker in askers {
        let segments = asker.blocks()?.into_iter().filter(|block| block.level == 0);
        open.push(segments.map(|block| block.id).collect());
    }
    let segments = open.iter().map(BTreeSet::len).sum();
    if services.is_empty() || segments == 0 {
        return Err("there is nothing that could be compacted".to_owned());
    }
    loop {
        upload_round(askers, services)?;
        let mut all: Vec<Block> = Vec::new();
        for (asker, open) in askers.iter().zip(&mut open) {
            let blocks = asker.blocks()?;
            open.retain(|id| blocks.iter().any(|block| block.id == *id));
            all.extend(blocks);
        }
        if open.iter().all(BTreeSet::is_empty) {
            return Ok(Compaction {
                segments,
                blocks: all.iter().filter(|block| block.level > 0).count(),
                took: begun.elapsed(),
            });
        }
        if begun.elapsed() > GUARD {
            let left: usize = open.iter().map(BTreeSet::len).sum();
            return Err(format!(
                "the server has not compacted within {GUARD:?}: of {segments} segments {left} are left"
            ));
        }
    }
}

/// One upload for each service and tenant, all at once; each is answered when it is in a segment.
fn upload_round(askers: &[Asker; 2], services: &BTreeSet<String>) -> Result<(), String> {
    thread::scope(|scope| {
        let mut uploads = Vec::new();
        for asker in askers {
            for service in services {
                uploads.push(scope.spawn(move || asker.push(&filler(service))));
            }
        }
        uploads.into_iter().try_for_each(|upload| {
            let ended = upload.join();
            ended.unwrap_or_else(|_| Err("an upload panicked".to_owned()))
        })
    })
}

fn filler(service: &str) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or_default();
    let cpu = ValueType { r#type: 1, unit: 2 };
    let profile = Profile {
        sample_type: vec![cpu],
        sample: vec![Sample {
            location_id: vec![1],
            value: vec![1],
        }],
        location: vec![Location {
            id: 1,
            line: vec![Line { function_id: 1 }],
        }],
        function: vec![Function {
            id: 1,
            name: 3,
            filename: 0,
        }],
        string_table: ["", "cpu", "nanoseconds", "filler"]
            .map(str::to_owned)
            .into(),
        time_nanos: now,
        duration_nanos: 1_000_000_000,
        period_type: Some(cpu),
        period: 1,
    };
    let label = |(name, value): (&str, &str)| Label {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let labels = [
        ("__name__", "process_cpu"),
        ("service_name", service),
        FILLER,
    ];
    PushRequest {
        series: vec![RawProfileSeries {
            labels: labels.map(label).into(),
            samples: vec![RawSample {
                raw_profile: profile.encode_to_vec(),
                ..RawSample::default()
            }],
        }],
    }
    .encode_to_vec()
}

/// The label by which what is uploaded here is left out of what is asked for.
pub const FILLER: (&str, &str) = ("fleet", "filler");

/// A shard has twenty segments within half a minute.
const GUARD: Duration = Duration::from_secs(240);
