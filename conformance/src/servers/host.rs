//! What runs a server, whichever store it is.

use std::future::Future;
use std::time::{Duration, Instant};

use lockcore::BoxError;
use tokio::time::sleep;

use super::container::Container;
use super::local::LocalServer;
use crate::{Fault, port};

/// How long a server may take to be up, on a machine that does much else: Postgres has to make
/// its data folder first, in a container.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long one question to it may take, and the pause between two.
pub(super) const ASK_LIMIT: Duration = Duration::from_secs(2);
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// A free port may be taken by another before the server has it.
const ATTEMPTS: usize = 10;

#[derive(Debug)]
pub(super) enum Host {
    /// Somebody else.
    Url,
    Local(Box<LocalServer>),
    Container(Container),
}

impl Host {
    /// Whether the server is ours to break.
    pub(super) fn is_ours(&self) -> bool {
        !matches!(self, Self::Url)
    }

    /// Breaks or mends a server of ours. A restarted one has not to be up yet.
    pub(super) async fn inflict(&self, fault: Fault) -> Result<(), BoxError> {
        match (self, fault) {
            (Self::Url, _) => Err("the server is not ours".into()),
            (_, Fault::Wipe) => Err("emptying a store is the store's own affair".into()),
            (Self::Local(process), Fault::Pause) => Ok(process.pause()?),
            (Self::Local(process), Fault::Resume) => Ok(process.resume()?),
            (Self::Local(process), Fault::Restart) => Ok(process.respawn()?),
            (Self::Local(process), Fault::Kill) => {
                process.kill();
                Ok(())
            }
            (Self::Container(container), Fault::Pause) => container.pause().await,
            (Self::Container(container), Fault::Resume) => container.resume().await,
            (Self::Container(container), Fault::Restart) => container.restart().await,
            (Self::Container(container), Fault::Kill) => container.kill().await,
        }
    }

    /// Kills a server of ours and starts it again as new, without what is in the folder `data`
    /// inside its own. It has not to be up yet.
    pub(super) async fn start_afresh(&self, data: &str) -> Result<(), BoxError> {
        match self {
            Self::Url => Err("the server is not ours".into()),
            Self::Local(process) => {
                process.kill();
                std::fs::remove_dir_all(process.folder().join(data))?;
                Ok(process.respawn()?)
            }
            Self::Container(container) => container.start_afresh().await,
        }
    }

    /// Waits until the server answers, and returns what it has answered. `origin` names it in
    /// errors.
    pub(super) async fn up<T, F>(&self, origin: &str, answer: impl Fn() -> F) -> Result<T, BoxError>
    where
        F: Future<Output = Result<T, BoxError>>,
    {
        let start = Instant::now();
        loop {
            let last = match answer().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let ended = self.ended().await;
            if ended || start.elapsed() > START_LIMIT {
                let how = if ended {
                    "it has ended".to_owned()
                } else {
                    format!("not within {START_LIMIT:?}; last answer: {last}")
                };
                let log = self.log().await;
                return Err(format!("the server did not come up ({origin}): {how}\n{log}").into());
            }
            sleep(ASK_AGAIN).await;
        }
    }

    async fn ended(&self) -> bool {
        match self {
            Self::Url => false,
            Self::Local(process) => process.exited().is_some(),
            Self::Container(container) => container.exited().await,
        }
    }

    async fn log(&self) -> String {
        match self {
            Self::Url => String::new(),
            Self::Local(process) => process.log_tail(),
            Self::Container(container) => container.log().await,
        }
    }
}

/// Finds free ports, each another.
pub(super) fn free_ports<const N: usize>() -> std::io::Result<[u16; N]> {
    let mut ports = [0; N];
    for place in 0..N {
        while ports[place] == 0 || ports[..place].contains(&ports[place]) {
            ports[place] = port::free()?;
        }
    }
    Ok(ports)
}

/// Tries again as long as the port that an attempt has chosen was taken by another meanwhile.
pub(super) async fn on_a_free_port<T, F>(attempt: impl Fn() -> F) -> Result<T, BoxError>
where
    F: Future<Output = Result<T, BoxError>>,
{
    let mut attempts = 1;
    loop {
        match attempt().await {
            Err(error) if port_was_taken(&error) && attempts < ATTEMPTS => attempts += 1,
            result => return result,
        }
    }
}

pub(super) fn port_was_taken(error: &BoxError) -> bool {
    let error = error.to_string().to_lowercase();
    error.contains("address already in use") || error.contains("port is already allocated")
}
