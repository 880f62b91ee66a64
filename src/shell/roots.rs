//! Trusted roots from files: `SSL_CERT_FILE` and `SSL_CERT_DIR`, as in OpenSSL and Go.

use std::fs;
use std::io;
use std::path::Path;

use crate::contract::RootSource;

/// Most bytes read from one file, or from all directories: the largest common bundle, Debian's with all of Mozilla's
/// roots, has 220 KB.
const PEM_BYTES_MAX: usize = 4 << 20;

/// Reads the file and every file in the directories.
pub(crate) fn read(file: Option<String>, directories: &[String]) -> Vec<RootSource> {
    let mut sources = Vec::new();
    if let Some(file) = file {
        sources.push(RootSource {
            variable: "SSL_CERT_FILE",
            pem: bounded(file.as_ref()).map_err(|error| error.kind()),
        });
    }
    if !directories.is_empty() {
        let mut all = Vec::new();
        let mut pem = Ok(());
        for directory in directories {
            pem = pem.and(read_directory(directory, &mut all));
        }
        // Readable files count; an unreadable directory is reported only if nothing else was read.
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

/// Appends the directory's files; an unreadable file is skipped, as in Go.
fn read_directory(directory: &str, all: &mut Vec<u8>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        if let Ok(mut pem) = entry.and_then(|entry| bounded(&entry.path()))
            && all.len() + pem.len() < PEM_BYTES_MAX
        {
            all.append(&mut pem);
            all.push(b'\n');
        }
    }
    Ok(())
}

/// A file's content, limited in length. Only regular files are read.
pub(crate) fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    use io::Read as _;
    // Opening a pipe would wait for its other end.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // Room for all of it and for the read that finds its end: two reads, instead of one for each doubling.
    let mut bytes = Vec::with_capacity((metadata.len() as usize).min(PEM_BYTES_MAX) + 64);
    fs::File::open(path)?
        .take(PEM_BYTES_MAX as u64)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pem = Result<Vec<u8>, io::ErrorKind>;

    fn roots(file: Option<String>, directories: &[String]) -> Vec<(&'static str, Pem)> {
        let sources = read(file, directories).into_iter();
        sources
            .map(|source| (source.variable, source.pem))
            .collect()
    }

    #[test]
    fn what_can_be_read_of_a_file_and_of_directories_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        fs::write(path("one"), "1").unwrap();
        fs::create_dir(path("nested")).unwrap();
        let (file, directory) = ("SSL_CERT_FILE", "SSL_CERT_DIR");
        let missing = Err(io::ErrorKind::NotFound);

        assert_eq!(roots(None, &[]), []);
        assert_eq!(
            roots(Some(path("one")), &[]),
            [(file, Ok(b"1".to_vec()))],
            "and no word of directories"
        );
        assert_eq!(
            roots(Some(path("two")), &[path("three"), path("nested")]),
            [(file, missing.clone()), (directory, missing.clone())]
        );
        let no_file = Err(io::ErrorKind::InvalidInput);
        assert_eq!(roots(Some(path("nested")), &[]), [(file, no_file)]);
        assert_eq!(
            roots(None, &[path("nested")]),
            [(directory, Ok(Vec::new()))]
        );
        assert_eq!(
            roots(None, &[path("three"), path("")]),
            [(directory, Ok(b"1\n".to_vec()))],
            "what could be read counts"
        );
    }

    #[test]
    fn four_mebibytes_are_taken_at_most() {
        const MOST: usize = 4 << 20;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        let sizes = |lengths: [usize; 2]| {
            let folder = tempfile::tempdir().unwrap();
            for (at, length) in lengths.iter().enumerate() {
                fs::write(folder.path().join(at.to_string()), vec![b'x'; *length]).unwrap();
            }
            let all = roots(None, &[folder.path().display().to_string()]).remove(0);
            all.1.unwrap().len()
        };
        fs::write(&file, vec![b'x'; MOST + 1]).unwrap();
        let of_file = roots(Some(file.display().to_string()), &[]).remove(0);
        assert_eq!(of_file.1.unwrap().len(), MOST);
        // Each file in a directory is followed by a line feed.
        assert_eq!(sizes([0, MOST - 2]), MOST);
        assert_eq!(sizes([MOST, MOST]), 0);
        assert_eq!(sizes([MOST / 2, MOST / 2 - 2]), MOST);
        assert_eq!(sizes([MOST / 2, MOST / 2]), MOST / 2 + 1);
    }
}
