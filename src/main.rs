//! The extension's executable.
fn main() {}
