//! What the program is asked for.

use std::sync::Arc;
use std::time::Duration;

use leaselock::{LockBackend, Phase};
use lexopt::Arg::{Long, Short};
use lexopt::Parser;

use crate::flags::{is_memory, number, said, text};

pub(crate) const HELP: &str = "\
Processes move their locks from one store to another while they go on taking them.

Usage: switchover [--old URL --new URL] [--processes N] [--stay SECONDS] [--back] [--json]
       switchover --status --old URL --new URL [--before PHASE] [--expect PHASE=N] [--json]

  --old URL       the store in which the locks are, as in redis://HOST:PORT
  --new URL       the store to which they go, as in postgres://USER@HOST/DATABASE
                  [default: two memory stores, and tasks in place of processes]
  --processes N   how many processes take locks [default: 8]
  --stay SECONDS  how long all of them stay in a phase [default: 2]
  --back          and the same way back
  --json          print the summary as JSON, and nothing else
  --status        print who is in which phase and what is held where, and end; with --json as JSON
  --before PHASE  with --status: exit with 1 if something speaks against entering this phase
  --expect PHASE=N  and if not as many processes are seen in that phase
  --help          print this
";

/// The flag, without its dashes, that makes a process one of those that move. For the program itself, not for people.
pub(crate) const CHILD: &str = "child";

pub(crate) enum Command {
    Run(Args),
    Status(Look),
    Child,
    Help,
}

pub(crate) struct Args {
    pub(crate) stores: Stores,
    /// Tasks of this process stand for processes.
    pub(crate) tasks: bool,
    pub(crate) processes: usize,
    pub(crate) stay: Duration,
    pub(crate) back: bool,
    pub(crate) json: bool,
}

/// A look before a step.
pub(crate) struct Look {
    pub(crate) stores: Stores,
    pub(crate) before: Option<Phase>,
    pub(crate) expected: Vec<(Phase, usize)>,
    pub(crate) json: bool,
}

/// The URLs of the two stores.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) old: String,
    pub(crate) new: String,
}

impl Stores {
    pub(crate) async fn open(
        &self,
    ) -> Result<(Arc<dyn LockBackend>, Arc<dyn LockBackend>), leaselock::Error> {
        Ok((leaselock::backend(&self.old).await?, leaselock::backend(&self.new).await?))
    }
}

pub(crate) fn parse(mut parser: Parser) -> Result<Command, String> {
    let (mut old, mut new, mut processes, mut stay) = (None, None, 8, 2);
    let (mut back, mut json, mut status) = (false, false, false);
    let (mut before, mut expected) = (None, Vec::new());
    while let Some(flag) = parser.next().map_err(said)? {
        match flag {
            Long("old") => old = Some(text(&mut parser)?),
            Long("new") => new = Some(text(&mut parser)?),
            Long("processes") => processes = number(&mut parser, "--processes", 2..=100)?,
            Long("stay") => stay = number(&mut parser, "--stay", 1..=100)?,
            Long("back") => back = true,
            Long("json") => json = true,
            Long("status") => status = true,
            Long("before") => before = Some(phase(&text(&mut parser)?)?),
            Long("expect") => {
                let given = text(&mut parser)?;
                let (name, count) = given.split_once('=').ok_or("--expect is PHASE=N")?;
                let count = count.parse().map_err(|_| "--expect is PHASE=N")?;
                expected.push((phase(name)?, count));
            }
            Long("help") | Short('h') => return Ok(Command::Help),
            Long(CHILD) => return Ok(Command::Child),
            other => return Err(said(other.unexpected())),
        }
    }
    let (stores, tasks) = match (old, new) {
        (Some(old), Some(new)) => (Stores { old, new }, false),
        (None, None) if !status => {
            let named = |name: &str| format!("memory://{name}");
            (Stores { old: named("old"), new: named("new") }, true)
        }
        _ => return Err("name both stores, --old and --new".to_owned()),
    };
    if !tasks && [&stores.old, &stores.new].into_iter().any(|url| is_memory(url)) {
        return Err("a memory store is in one process: name stores that all can reach, as in \
                    --old redis://127.0.0.1:6379"
            .to_owned());
    }
    if status {
        return Ok(Command::Status(Look { stores, before, expected, json }));
    }
    let stay = Duration::from_secs(stay as u64);
    Ok(Command::Run(Args { stores, tasks, processes, stay, back, json }))
}

fn phase(name: &str) -> Result<Phase, String> {
    name.parse().map_err(|error: leaselock::InvalidInput| error.to_string())
}
