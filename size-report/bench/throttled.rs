//! A control group with a small part of a processor: what a function of 128 MB has.
//!
//! Where the system has no control groups, or lets us make none, there is none.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::subjects::wait_until;

/// 7.2 %: 128 MB of the 1,769 that have one processor, in pieces as the system hands it out.
const QUOTA_US: u32 = 1440;
const PERIOD_US: u32 = 20_000;

/// Why a row has no figures without one.
pub const NONE_HERE: &str = "not measured here: no control groups";

/// Gone when dropped; whoever was started in it must have ended by then.
pub struct Group {
    folder: PathBuf,
}

impl Group {
    pub fn make() -> Option<Self> {
        folders().into_iter().find_map(|(parent, version)| {
            let folder = parent.join(format!("latency-{}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let group = Self { folder };
            group.limit(version)?;
            // Whether one can be in it, too.
            let mut probe = group.command(Path::new("/bin/true"));
            probe.status().ok().filter(|status| status.success())?;
            Some(group)
        })
    }

    /// Starts a program through a shell that has entered the group before.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", r#"echo $$ >"$0" && exec "$@""#])
            .arg(self.folder.join("cgroup.procs"))
            .arg(program);
        command
    }

    fn limit(&self, version: Version) -> Option<()> {
        // What is not there is not made: then this is no control group.
        let write = |file: &str, text: String| {
            let path = self.folder.join(file);
            let mut file = File::options().write(true).open(path).ok()?;
            file.write_all(text.as_bytes()).ok()
        };
        match version {
            Version::One => {
                write("cpu.cfs_period_us", PERIOD_US.to_string())?;
                write("cpu.cfs_quota_us", QUOTA_US.to_string())
            }
            Version::Two => write("cpu.max", format!("{QUOTA_US} {PERIOD_US}")),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that has ended may still be on its way out.
        wait_until("the control group to be empty", || {
            fs::remove_dir(&self.folder).ok()
        });
    }
}

#[derive(Clone, Copy)]
enum Version {
    One,
    Two,
}

/// Where a group could be made: in our own, or the next one above it that lets us.
fn folders() -> Vec<(PathBuf, Version)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let found = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (mounted, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        let has_cpu = options.split(',').any(|option| option == "cpu");
        let version = match kind {
            "cgroup" if has_cpu => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        let own = own_group(&own, version)?.trim_start_matches('/').to_owned();
        Some((PathBuf::from(mounted), own, version))
    });
    found
        .flat_map(|(mounted, own, version)| {
            let deepest = mounted.join(own);
            let all: Vec<PathBuf> = deepest
                .ancestors()
                .take_while(|folder| folder.starts_with(&mounted))
                .filter(|folder| gives_cpu(folder, version))
                .map(Path::to_owned)
                .collect();
            all.into_iter().map(move |folder| (folder, version))
        })
        .collect()
}

/// The path of our own group, by /proc/self/cgroup: `number:controllers:path`.
fn own_group(groups: &str, version: Version) -> Option<&str> {
    groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        let is_it = match version {
            Version::One => controllers.split(',').any(|name| name == "cpu"),
            Version::Two => controllers.is_empty(),
        };
        is_it.then_some(path)
    })
}

/// Whether groups in this one have a part of the processor to themselves.
fn gives_cpu(folder: &Path, version: Version) -> bool {
    match version {
        Version::One => true,
        Version::Two => fs::read_to_string(folder.join("cgroup.subtree_control"))
            .is_ok_and(|names| names.split_whitespace().any(|name| name == "cpu")),
    }
}
