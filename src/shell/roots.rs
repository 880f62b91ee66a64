//! Trusted roots from files: `SSL_CERT_FILE` and `SSL_CERT_DIR`, as OpenSSL and Go have them.

use std::fs;
use std::io;

use crate::contract::RootSource;

/// Most bytes taken from one file, or from all directories: the largest bundle in use, Debian's with all of
/// Mozilla's roots, has 220 KB.
const PEM_BYTES_MAX: usize = 4 << 20;

/// Reads the file and every file in the directories.
pub(crate) fn read(file: Option<String>, directories: &[String]) -> Vec<RootSource> {
    let mut sources = Vec::new();
    if let Some(file) = file {
        sources.push(RootSource {
            variable: "SSL_CERT_FILE",
            pem: bounded(&file).map_err(|error| error.kind()),
        });
    }
    if !directories.is_empty() {
        let mut all = Vec::new();
        let mut pem = Ok(());
        for directory in directories {
            pem = pem.and(read_directory(directory, &mut all));
        }
        // What could be read counts; a directory that could not is told of if there was nothing else.
        let pem = if all.is_empty() {
            pem.map(|()| all)
        } else {
            Ok(all)
        };
        sources.push(RootSource {
            variable: "SSL_CERT_DIR",
            pem: pem.map_err(|error| error.kind()),
        });
    }
    sources
}

/// Appends the directory's files; one that cannot be read is passed over, as Go does.
fn read_directory(directory: &str, all: &mut Vec<u8>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        if let Ok(mut pem) = entry.and_then(|entry| bounded(entry.path()))
            && all.len() + pem.len() < PEM_BYTES_MAX
        {
            all.append(&mut pem);
            all.push(b'\n');
        }
    }
    Ok(())
}

fn bounded(path: impl AsRef<std::path::Path>) -> io::Result<Vec<u8>> {
    use io::Read as _;
    // To open a pipe would be to wait for its other end.
    if !fs::metadata(&path)?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(PEM_BYTES_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}
