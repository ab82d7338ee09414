//! What the program is asked for.

use std::ffi::OsString;
use std::str::FromStr;

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

/// The flag that makes a process one of several. For the program itself, not for people.
pub(crate) const CHILD: &str = "--child";

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

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let mut job = Job {
        workers: 500,
        url: "memory:".to_owned(),
        // Runs at the same time must not meet.
        key: format!("counter/{:016x}", fastrand::u64(..)),
        unprotected: false,
    };
    let (mut processes, mut json) = (1, false);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        // A wrong argument may be a URL with a password: it is not repeated as it is.
        let arg = arg.into_string().map_err(|_| "arguments are UTF-8")?;
        let (flag, mut attached) = match arg.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let mut value = || match attached.take() {
            Some(value) => Ok(value),
            None => match args.next().map(OsString::into_string) {
                Some(Ok(value)) => Ok(value),
                _ => Err(format!("{flag} needs a value")),
            },
        };
        match flag {
            "--workers" => job.workers = number(flag, &value()?)?,
            "--processes" => processes = number(flag, &value()?)?,
            "--url" => job.url = value()?,
            "--key" => job.key = value()?,
            "--unprotected" => job.unprotected = true,
            "--json" => json = true,
            "--help" | "-h" => return Ok(Command::Help),
            CHILD => return Ok(Command::Child),
            _ if flag.starts_with('-') => return Err(format!("there is no flag `{flag}`")),
            _ => return Err("arguments other than flags are not taken".to_owned()),
        }
        if attached.is_some() {
            return Err(format!("{flag} takes no value"));
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

fn is_memory(url: &str) -> bool {
    url.split(':').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("memory"))
}

fn number(flag: &str, text: &str) -> Result<usize, String> {
    match usize::from_str(text) {
        Ok(number @ 1..=100_000) => Ok(number),
        _ => Err(format!("{flag} takes a number from 1 to 100000")),
    }
}
