//! The core alone, under a made-up clock, with peers made of bytes. No socket, no thread, no waiting.
//!
//! | file | what it tries |
//! |---|---|
//! | `exchange` | one payload and its connection: exchanges, answers, addresses that are tried |
//! | `statuses` | what an answer's status means, and a server that is down |
//! | `addresses` | names, addresses, settings that cannot be used, and the relay itself |
//! | `freeze` | freezes, and copies of a snapshot |
//! | `shutdown` | the end: what is left is sent, then the account is closed |
//! | `lambda` | Lambda's events and its telemetry |
//! | `clients` | clients that are slow, silent, many, or ask for too much |
//! | `modes` | the flush modes, one by one |
//! | `silence` | connections that die without a word |
//! | `failing` | servers that fail, ask for patience or are slow |
//! | `racing` | a server with several addresses |
//! | `credentials` | credentials by reference: when they are read, what waits for them |
//! | `stores` | the store that keeps them |
//! | `server` | no test: a server that answers when and what a test says |
//! | `encrypted` | servers that speak TLS, or should |
//! | `flush` | what Lambda waits for, and copies of a snapshot |
//! | `labels` | labels of the settings |
//! | `limits` | what is bounded |
//! | `sampling` | the share of profiles that is kept |
//! | `times` | times that are made unique, and uploads of nothing |
//! | `odd` | much in one turn, and peers that mean no good |

mod addresses;
#[path = "../support/certificates.rs"]
#[allow(dead_code, reason = "each program uses its own part of the bench")]
mod certificates;
mod clients;
mod credentials;
mod encrypted;
mod exchange;
mod failing;
mod flush;
mod freeze;
mod labels;
mod lambda;
mod limits;
mod modes;
mod odd;
mod racing;
mod sampling;
mod server;
mod shutdown;
mod silence;
mod statuses;
mod stores;
mod times;
#[path = "../support/world.rs"]
mod world;
