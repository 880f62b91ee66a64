//! The time within an upload.

pub mod gzip;

mod crc;
mod huffman;
mod inflate;
mod rewrite;
