//! AWS's stores of secrets: their requests and answers. Pure.

pub mod sigv4;
pub mod store;
