//! How the figures came about: the machine, the versions, the repeats.

use std::fs;
use std::process::Command;

use crate::bench::Bench;

/// The crates whose versions matter.
const CRATES: [&str; 8] = [
    "tokio",
    "redis",
    "tokio-postgres",
    "etcd-client",
    "rslock",
    "distributed-lock-redis",
    "distributed-lock-postgres",
    "fred",
];

pub(super) fn text(bench: &Bench) -> String {
    let (repeats, few) = (bench.repeats(), bench.few());
    let quick = if bench.quick { " This was a quick run: `--quick`." } else { "" };
    let servers = bench.site.about();
    let servers =
        if servers.is_empty() { "none was needed".to_owned() } else { servers.join("; ") };
    format!(
        "\
What a lock costs with this library, beside our own scripts, statements and transactions on the
bare driver (`raw`), the simplest lock that the store allows (`plain`), and other libraries.

## Method

- **To run it:** `cargo xtask bench`, which installs and starts what it needs, and takes most of an
  hour; `--quick` takes a quarter of that, `--only NAME` runs some of the rows.{quick}
- **Machine:** {machine}.
- **Servers:** {servers}. They run on the same machine and share its cores with the clients.
  Postgres and etcd keep their data {place}, with fsync on. Redis keeps nothing on disk.
- **Versions:** {rustc}; {versions}.
- **Runtimes:** `ct` is tokio's current-thread runtime, `mt` its multi-thread runtime with two
  workers.
- **Repeats:** all contenders of a line run in one go, in another order in each of {repeats}
  repeats ({few} for fairness, idle waiters, records and held locks). Figures are medians of the
  repeats. A ratio is taken within each repeat; shown are its median, least and greatest.
- **Pass marks** are targets for a machine with two idle cores. Nothing fails where one is missed.
",
        machine = machine(),
        place = place(),
        rustc = rustc(),
        versions = versions(include_str!("../../Cargo.lock")),
    )
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = line_of("/proc/cpuinfo", "model name").unwrap_or_else(|| "processor".to_owned());
    let memory = line_of("/proc/meminfo", "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .map_or_else(String::new, |kib| format!(", {} GiB", kib / 1024 / 1024));
    format!("{} with {cores} cores{memory}, {}", model.trim(), std::env::consts::OS)
}

fn line_of(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_start_matches([' ', '\t', ':']).to_owned())
}

fn place() -> &'static str {
    if std::env::temp_dir().starts_with("/dev/shm") { "in memory (tmpfs)" } else { "on disk" }
}

fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let version = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    version.map_or_else(|| "rustc".to_owned(), |version| version.trim().to_owned())
}

/// The versions that a lock file names.
fn versions(lock: &str) -> String {
    let version = |name: &&str| {
        let at = lock
            .split("[[package]]")
            .find(|package| package.lines().any(|line| line == format!("name = \"{name}\"")))?;
        let version = at.lines().find_map(|line| line.strip_prefix("version = "))?;
        Some(format!("{name} {}", version.trim_matches('"')))
    };
    CRATES.iter().filter_map(version).collect::<Vec<_>>().join(", ")
}
