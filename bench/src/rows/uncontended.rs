//! Rows without contention.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use crate::Result;
use crate::bench::{Bench, CT, MT, job, plural};
use crate::job::{Job, Work};
use crate::results::Id;
use crate::stores::{OURS, PLAIN, RAW, RSLOCK, SERVERS, Store};

fn all(store: Store) -> Vec<&'static str> {
    [&[RAW, PLAIN, OURS], store.peers()].concat()
}

pub(super) async fn pair(bench: &mut Bench) -> Result<()> {
    let seconds = bench.seconds(0.8);
    for store in SERVERS {
        let (urls, _) = bench.site.fresh(store).await?;
        for repeat in 0..bench.repeats() {
            for (workers, setup) in [CT, MT] {
                let job = job(Work::Pair { seconds }, store, &all(store), repeat, &urls, workers);
                bench.run("pair", setup, repeat, &job).await;
            }
        }
    }
    Ok(())
}

pub(super) async fn tasks(bench: &mut Bench) -> Result<()> {
    let seconds = bench.seconds(1.0);
    let setups = [(1, MT), (16, MT), (64, MT), (256, MT), (256, CT)];
    for store in SERVERS {
        let (urls, _) = bench.site.fresh(store).await?;
        for repeat in 0..bench.repeats() {
            for (tasks, (workers, runtime)) in setups {
                let work = Work::Tasks { tasks, seconds };
                let job = job(work, store, &all(store), repeat, &urls, workers);
                bench
                    .run(
                        "tasks",
                        &format!("{}, {runtime}", plural(tasks, "task", "tasks")),
                        repeat,
                        &job,
                    )
                    .await;
            }
        }
    }
    Ok(())
}

pub(super) async fn quorum(bench: &mut Bench) -> Result<()> {
    let seconds = bench.seconds(1.0);
    let contenders = [RAW, OURS, RSLOCK];
    let (urls, _) = bench.site.fresh(Store::Quorum).await?;
    for repeat in 0..bench.repeats() {
        for (workers, runtime) in [CT, MT] {
            let of = |work| job(work, Store::Quorum, &contenders, repeat, &urls, workers);
            let one = of(Work::Pair { seconds });
            bench.run("quorum", &format!("1 task, {runtime}"), repeat, &one).await;
            let many = of(Work::Tasks { tasks: 256, seconds });
            bench.run("quorum", &format!("256 tasks, {runtime}"), repeat, &many).await;
        }
    }
    Ok(())
}

pub(super) async fn memory(bench: &mut Bench) -> Result<()> {
    let seconds = bench.seconds(1.0);
    let of = |repeat, workers, tasks| -> Job {
        let work = Work::Memory { tasks, seconds };
        job(work, Store::Memory, &[RAW, OURS], repeat, &[String::new()], workers)
    };
    for repeat in 0..bench.repeats() {
        for (workers, runtime) in [CT, MT] {
            let setup = format!("1 task, {runtime}");
            bench.run("memory", &setup, repeat, &of(repeat, workers, 1)).await;
        }
        for workers in [1, 2] {
            let setup = format!("8 tasks, {}", plural(workers, "worker", "workers"));
            bench.run("memory", &setup, repeat, &of(repeat, workers, 8)).await;
        }
    }
    if !in_path("valgrind") {
        bench.left_out("memory", Store::Memory, "1 task, ct", OURS, "no valgrind on this machine");
        return Ok(());
    }
    match instructions().await {
        Ok(count) => {
            let id = Id::new("memory", Store::Memory.name(), "1 task, ct", OURS, "instructions");
            bench.results.add(id, 0, count);
        }
        Err(error) => bench.failed("memory", Store::Memory, "1 task, ct", OURS, error),
    }
    Ok(())
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// How many cycles are counted: the difference leaves out what happens once.
const CYCLES: [u32; 2] = [1_000, 3_000];

/// Instructions per acquire and release.
async fn instructions() -> Result<f64> {
    let mut counts = Vec::new();
    for cycles in CYCLES {
        counts.push(collected(cycles).await?);
    }
    Ok((counts[1] - counts[0]) / f64::from(CYCLES[1] - CYCLES[0]))
}

async fn collected(cycles: u32) -> Result<f64> {
    let program: PathBuf = std::env::current_exe()?.with_file_name("instructions");
    let valgrind = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .arg(cycles.to_string())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = valgrind.await.map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let count = said.lines().find_map(|line| line.split_once("Collected :"));
    let count = count.and_then(|(_, count)| count.trim().parse().ok());
    count.ok_or_else(|| format!("valgrind counted nothing: {said}").into())
}
