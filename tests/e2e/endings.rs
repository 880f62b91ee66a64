//! How processes ended, as the kernel notes it down.
//!
//! The emulator does not say with which code an extension ended, and only a process's parent could ask for it.
//! So the kernel's process accounting is switched on, which is separate for each sandbox.

use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;

use nix::unistd::acct;

/// The kernel's notes.
pub struct Endings {
    file: PathBuf,
}

impl Endings {
    /// Notes are taken for this sandbox's processes, from now on. The kernel takes none where less than a twenty-fifth
    /// of the disk is free, so the file has to be in memory.
    pub fn noted_in(file: PathBuf) -> Result<Self, String> {
        File::create(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        acct::enable(&file).map_err(|error| format!("process accounting: {error}"))?;
        Ok(Self { file })
    }

    /// How every process of that name ended, in the order of their ends.
    pub fn of(&self, name: &str) -> Result<Vec<ExitStatus>, String> {
        let bytes =
            fs::read(&self.file).map_err(|error| format!("{}: {error}", self.file.display()))?;
        let name = &name.as_bytes()[..name.len().min(COMMAND_BYTES - 1)];
        let records = bytes.chunks_exact(RECORD_BYTES).filter(|record| {
            let command = &record[RECORD_BYTES - COMMAND_BYTES..];
            command.split(|&byte| byte == 0).next() == Some(name)
        });
        Ok(records
            .map(|record| {
                let code = [record[4], record[5], record[6], record[7]];
                ExitStatus::from_raw(i32::from_ne_bytes(code))
            })
            .collect())
    }
}

/// `struct acct_v3` of acct(5): the status as of wait(2) is at byte 4, the command's name is the end.
const RECORD_BYTES: usize = 64;
const COMMAND_BYTES: usize = 16;
