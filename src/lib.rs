//! The relay.
#![forbid(unsafe_code)]
pub mod config;
pub mod http1;
pub mod json;
pub mod log;
