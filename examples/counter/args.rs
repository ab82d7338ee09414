//! What the program is asked for.

use std::ops::RangeInclusive;

use lexopt::Arg::{Long, Short};
use lexopt::Parser;

use crate::flags::{is_memory, number, said, text};

pub(crate) const HELP: &str = "\
Many workers add 1 to one counter that is unsafe by itself, under one lock.

Usage: counter [--workers N] [--processes N] [--url URL] [--key KEY] [--unprotected] [--json]

  --workers N     how many workers add 1 [default: 500]
  --processes N   spread them over N processes; the counter is a file then [default: 1]
  --url URL       the store of the lock: memory:, or with --features redis, etcd
                  or postgres redis://HOST:PORT, etcd://HOST:PORT,HOST:PORT/PREFIX,
                  postgres://USER@HOST/DATABASE and relatives [default: memory:]
  --key KEY       the key of the lock [default: a random one]
  --unprotected   take no lock, and see additions get lost
  --json          print JSON instead of a table
  --help          print this
";

/// The flag, without its dashes, that makes a process one of several. For the program itself, not for people.
pub(crate) const CHILD: &str = "child";

const NUMBERS: RangeInclusive<usize> = 1..=100_000;

pub(crate) enum Command {
    Run(Args),
    Child,
    Help,
}

pub(crate) struct Args {
    pub(crate) processes: usize,
    pub(crate) json: bool,
    /// What all processes do together.
    pub(crate) job: Job,
}

/// What one process does.
#[derive(Clone)]
pub(crate) struct Job {
    pub(crate) workers: usize,
    pub(crate) url: String,
    pub(crate) key: String,
    pub(crate) unprotected: bool,
}

pub(crate) fn parse(mut parser: Parser) -> Result<Command, String> {
    let mut job = Job {
        workers: 500,
        url: "memory:".to_owned(),
        // Runs at the same time must not meet.
        key: format!("counter/{:016x}", fastrand::u64(..)),
        unprotected: false,
    };
    let (mut processes, mut json) = (1, false);
    while let Some(flag) = parser.next().map_err(said)? {
        match flag {
            Long("workers") => job.workers = number(&mut parser, "--workers", NUMBERS)?,
            Long("processes") => processes = number(&mut parser, "--processes", NUMBERS)?,
            Long("url") => job.url = text(&mut parser)?,
            Long("key") => job.key = text(&mut parser)?,
            Long("unprotected") => job.unprotected = true,
            Long("json") => json = true,
            Long("help") | Short('h') => return Ok(Command::Help),
            Long(CHILD) => return Ok(Command::Child),
            other => return Err(said(other.unexpected())),
        }
    }
    if processes > job.workers {
        return Err("--processes cannot be more than --workers".to_owned());
    }
    if processes > 1 && !job.unprotected && is_memory(&job.url) {
        return Err(
            "a memory store is in one process: with --processes, name a store that all can \
             reach, as in --url redis://127.0.0.1:6379"
                .to_owned(),
        );
    }
    Ok(Command::Run(Args { processes, json, job }))
}
