//! A Lambda function that burns CPU while Pyroscope's Rust SDK profiles it.
//!
//! The SDK wants an address and a version to be told; the address is what others send to without, unless
//! FUNCTION_SDK_ADDRESS is another. It is given
//! credentials of its own, so that the far end can tell whose arrived.

use std::env;
use std::hint::black_box;
use std::time::{Duration, Instant};

use lambda_runtime::{Error, LambdaEvent, service_fn};
use pyroscope::backend::{BackendConfig, PprofConfig, pprof_backend};
use pyroscope::pyroscope::PyroscopeAgentBuilder;
use serde_json::{Value, json};

fn main() -> Result<(), Error> {
    let service = env::var("FUNCTION_SERVICE")?;
    let address = env::var("FUNCTION_SDK_ADDRESS");
    let backend = pprof_backend(PprofConfig::default(), BackendConfig::default());
    let agent = PyroscopeAgentBuilder::new(
        address.unwrap_or_else(|_| "http://localhost:4040".to_owned()),
        service,
        100,
        "pyroscope-rs",
        "2.1.5",
        backend,
    )
    .basic_auth("of-the-sdk", "of-the-sdk")
    .tags(vec![("team", "e2e")])
    .upload_interval(Duration::from_secs(1))
    .build()?;
    let _running = agent.start()?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(lambda_runtime::run(service_fn(handler)))
}

async fn handler(event: LambdaEvent<Value>) -> Result<Value, Error> {
    let seconds = event.payload["seconds"].as_f64().ok_or("no seconds")?;
    let burned = burn_rust_cpu(Duration::from_secs_f64(seconds));
    Ok(json!({ "burned": burned }))
}

#[inline(never)]
fn burn_rust_cpu(time: Duration) -> f64 {
    let until = Instant::now() + time;
    let mut burned = 0.0;
    while Instant::now() < until {
        for number in 0..1000_u32 {
            burned += f64::from(black_box(number)).sqrt();
        }
    }
    burned
}
