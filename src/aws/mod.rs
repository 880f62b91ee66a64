//! AWS's stores of secrets: what is asked of them, and what they answer. Pure.

pub mod sigv4;
pub mod store;
