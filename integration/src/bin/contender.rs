//! A client of a quorum in a process of its own, for `quorum_nodes`: contends for locks as it is
//! told, and prints what came of it, a note a line.
//!
//! `contender WHO SEED TIME_MS TTL_MS MAX_TTL_MS NODE… -- NODE_THAT_IS_WELL…`

use std::error::Error;
use std::time::Duration;

use integration::storm::{Plan, contend};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [who, seed, time, ttl, max_ttl, nodes @ ..] = &args[..] else {
        return Err("too few arguments".into());
    };
    let mut nodes = nodes.split(|node| node == "--").map(<[_]>::to_vec);
    let millis = |text: &str| text.parse().map(Duration::from_millis);
    let plan = Plan {
        who: who.parse()?,
        seed: seed.parse()?,
        time: millis(time)?,
        ttl: millis(ttl)?,
        max_ttl: millis(max_ttl)?,
        nodes: nodes.next().unwrap_or_default(),
        well: nodes.next().unwrap_or_default(),
    };
    for note in contend(plan).await {
        println!("{note}");
    }
    Ok(())
}
