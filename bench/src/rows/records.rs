//! Rows about what a store does and keeps.

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use lockcore_redis::redis::aio::MultiplexedConnection;
use lockcore_redis::redis::{InfoDict, cmd, pipe};

use crate::Result;
use crate::bench::{Bench, CT, job};
use crate::contender::Held;
use crate::counters::{Counter, Counts};
use crate::job::{Outcome, Work};
use crate::results::at;
use crate::stores::{self, OURS, PLAIN, RAW, SERVERS, Store};

/// Calls per look at the counters, all at once, so that the server does nothing else meanwhile.
/// A server that waits for the processor seems to take longer, never shorter: so the lower quartile
/// of the looks counts.
const CALLS: usize = 100;
const LOOKS: usize = 10;

pub(super) async fn server(bench: &mut Bench) -> Result<()> {
    for store in SERVERS {
        let contenders = [OURS, RAW, PLAIN];
        let repeats = bench.repeats();
        for repeat in 0..repeats {
            for name in contenders {
                bench.progress.step(&format!("server, {}, {name}", store.name()));
                let (urls, counter) = bench.site.fresh(store).await?;
                match looks(store, name, &urls, counter).await {
                    Ok(outcome) => bench.keep("server", store, "100 calls", repeat, &outcome),
                    Err(error) => bench.failed("server", store, "100 calls", name, error),
                }
            }
        }
    }
    Ok(())
}

async fn looks(store: Store, name: &str, urls: &[String], counter: &Counter) -> Result<Outcome> {
    let contender = stores::connect(store, name, urls).await?;
    contender.acquire("ready").await?.release().await?;
    let (mut acquires, mut releases) = (Vec::new(), Vec::new());
    for look in 0..LOOKS {
        let begin = counter.read(name).await?;
        let keys = stream::iter(0..CALLS).map(|n| {
            let contender = &contender;
            async move { contender.acquire(&format!("fresh/{look}/{n}")).await }
        });
        let held: Vec<Held> = keys.buffer_unordered(CALLS).try_collect().await?;
        let middle = counter.read(name).await?;
        let held = stream::iter(held).map(Held::release);
        held.buffer_unordered(CALLS).try_collect::<Vec<()>>().await?;
        // Requests that are sent behind the answer belong to the call.
        tokio::time::sleep(Duration::from_millis(100)).await;
        acquires.push(middle - begin);
        releases.push(counter.read(name).await? - middle);
    }
    let each = |looks: &[Counts], of: fn(&Counts) -> f64| {
        at(&mut looks.iter().map(|counts| of(counts) / CALLS as f64).collect::<Vec<_>>(), 0.25)
    };
    let mut outcome = Outcome::default();
    for (what, looks) in [("acquire", &acquires), ("release", &releases)] {
        outcome.add(name, &format!("{what} commands"), each(looks, |counts| counts.commands));
        if store != Store::Etcd {
            outcome.add(name, &format!("{what} us"), each(looks, |counts| counts.micros));
        }
    }
    if store == Store::Etcd {
        let proposals = each(&acquires, |c| c.proposals) + each(&releases, |c| c.proposals);
        outcome.add(name, "proposals", proposals);
    }
    Ok(outcome)
}

/// A record that lives for longer than this right after its release is still there an hour later.
const HOUR_MS: i64 = 3_600_000 + 60_000;

pub(super) async fn keys(bench: &mut Bench) -> Result<()> {
    let most = if bench.quick { 10_000 } else { 30_000 };
    let seconds = bench.seconds(0.8);
    for store in [Store::Redis, Store::Postgres] {
        for keys in [10, 1_000, most] {
            let setup = format!("{keys} keys");
            for repeat in 0..bench.few() {
                bench.progress.step(&format!("keys, {}, {setup}", store.name()));
                let (urls, _) = bench.site.fresh(store).await?;
                match fill(store, &urls, keys).await {
                    Ok(outcome) => bench.keep("keys", store, &setup, repeat, &outcome),
                    Err(error) => bench.failed("keys", store, &setup, OURS, error),
                }
                let work = Work::Pair { seconds };
                let job = job(work, store, &[OURS], repeat, &urls, CT.0);
                bench.run("keys", &setup, repeat, &job).await;
            }
        }
    }
    Ok(())
}

/// Uses keys once each, and sees what is left of them.
async fn fill(store: Store, urls: &[String], keys: usize) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let contender = stores::connect(store, OURS, urls).await?;
    let before = used_memory(store, urls).await?;
    let used = stream::iter(0..keys).map(|n| {
        let contender = &contender;
        async move { contender.acquire(&format!("used/{n:08}")).await?.release().await }
    });
    used.buffer_unordered(64).try_collect::<Vec<()>>().await?;
    if store == Store::Redis {
        let mut connection = stores::redis::open(&urls[0]).await?;
        let (now, later) = bytes(&mut connection).await?;
        outcome.add(OURS, "bytes", now / keys as f64);
        outcome.add(OURS, "later", later / keys as f64);
        // With few keys this would be the memory of connections.
        if keys >= 1_000 {
            let grown = used_memory(store, urls).await? - before;
            outcome.add(OURS, "used", grown / keys as f64);
        }
    }
    Ok(outcome)
}

/// The memory that a Redis uses for everything.
async fn used_memory(store: Store, urls: &[String]) -> Result<f64> {
    if store != Store::Redis {
        return Ok(0.0);
    }
    let mut connection = stores::redis::open(&urls[0]).await?;
    let info: InfoDict = cmd("INFO").arg("memory").query_async(&mut connection).await?;
    Ok(info.get("used_memory").ok_or("no used_memory")?)
}

/// The bytes of all records of keys, and of those that are there for longer than an hour.
async fn bytes(connection: &mut MultiplexedConnection) -> Result<(f64, f64)> {
    let (mut cursor, mut now, mut later) = (0_u64, 0.0, 0.0);
    loop {
        let mut scan = cmd("SCAN");
        let scan = scan.arg(cursor).arg("MATCH").arg("*used/*").arg("COUNT").arg(1_000);
        let (next, names): (u64, Vec<String>) = scan.query_async(connection).await?;
        let mut ask = pipe();
        for name in &names {
            ask.cmd("MEMORY").arg("USAGE").arg(name).cmd("PTTL").arg(name);
        }
        if !names.is_empty() {
            let answers: Vec<Option<i64>> = ask.query_async(connection).await?;
            for pair in answers.chunks(2) {
                let (size, left) = (pair[0].unwrap_or(0) as f64, pair[1].unwrap_or(-2));
                now += size;
                if left == -1 || left > HOUR_MS {
                    later += size;
                }
            }
        }
        if next == 0 {
            return Ok((now, later));
        }
        cursor = next;
    }
}
