//! What the program is asked for.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use leaselock::LockBackend;

pub(crate) const HELP: &str = "\
Processes move their locks from one store to another while they go on taking them.

Usage: switchover [--old URL --new URL] [--processes N] [--stay SECONDS] [--back] [--json]
       switchover --status --old URL --new URL

  --old URL       the store in which the locks are, as in redis://HOST:PORT
  --new URL       the store to which they go, as in postgres://USER@HOST/DATABASE
                  [default: two memory stores, and tasks in place of processes]
  --processes N   how many processes take locks [default: 8]
  --stay SECONDS  how long all of them stay in a phase [default: 2]
  --back          and the same way back
  --json          print the summary as JSON, and nothing else
  --status        print who is in which phase and what is held where, and end
  --help          print this
";

/// The flag that makes a process one of those that move. For the program itself, not for people.
pub(crate) const CHILD: &str = "--child";

pub(crate) enum Command {
    Run(Args),
    Status(Stores),
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

pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let (mut old, mut new, mut processes, mut stay) = (None, None, 8, 2);
    let (mut back, mut json, mut status) = (false, false, false);
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
            "--old" => old = Some(value()?),
            "--new" => new = Some(value()?),
            "--processes" => processes = number(flag, &value()?, 2)?,
            "--stay" => stay = number(flag, &value()?, 1)?,
            "--back" => back = true,
            "--json" => json = true,
            "--status" => status = true,
            "--help" | "-h" => return Ok(Command::Help),
            CHILD => return Ok(Command::Child),
            _ if flag.starts_with('-') => return Err(format!("there is no flag `{flag}`")),
            _ => return Err("arguments other than flags are not taken".to_owned()),
        }
        if attached.is_some() {
            return Err(format!("{flag} takes no value"));
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
        return Ok(Command::Status(stores));
    }
    let stay = Duration::from_secs(stay as u64);
    Ok(Command::Run(Args { stores, tasks, processes, stay, back, json }))
}

fn is_memory(url: &str) -> bool {
    url.split(':').next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("memory"))
}

fn number(flag: &str, text: &str, least: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (least..=100).contains(&number) => Ok(number),
        _ => Err(format!("{flag} takes a number from {least} to 100")),
    }
}
