//! Holds one lock as it is told, one command and one answer a line, until its standard input ends.
//!
//! | command | answer |
//! |---|---|
//! | `connect URL TTL_MS` | `connected` |
//! | `acquire KEY`, as long as it takes | `token TOKEN` |
//! | `check` | `valid` or `not valid` |
//! | `lost`, as long as it takes | `lost: REASON` |
//! | `write FENCE VALUE`, with its token | `written` or `stale` |
//! | `drop` the guard | `dropped` |
//! | `drain` | `drained` |
//! | `leave`: drop the guard and end at once | |

use std::error::Error;
use std::time::Duration;

use integration::fence::Fence;
use leaselock::{LockGuard, LockManager, LostReason};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Holder {
    url: String,
    locks: Option<LockManager>,
    guard: Option<LockGuard>,
    lost: Option<JoinHandle<LostReason>>,
}

impl Holder {
    /// The answer to a command; `None` to end at once.
    async fn answer(&mut self, words: &[&str]) -> Result<Option<String>, Box<dyn Error>> {
        Ok(Some(match words {
            ["connect", url, ttl] => {
                self.url = (*url).to_owned();
                let builder = LockManager::builder(leaselock::backend(url).await?);
                self.locks = Some(builder.ttl(Duration::from_millis(ttl.parse()?)).build()?);
                "connected".to_owned()
            }
            ["acquire", key] => {
                let locks = self.locks.as_ref().ok_or("not connected")?;
                let guard = locks.lock(key)?.acquire().await?;
                let token = guard.fencing_token();
                self.lost = Some(tokio::spawn(guard.lost()));
                self.guard = Some(guard);
                format!("token {token}")
            }
            ["check"] => {
                let guard = self.guard.as_ref().ok_or("no guard")?;
                (if guard.is_valid() { "valid" } else { "not valid" }).to_owned()
            }
            ["lost"] => {
                let reason = self.lost.as_mut().ok_or("no guard")?.await?;
                format!("lost: {reason}")
            }
            ["write", fence, value] => {
                let guard = self.guard.as_ref().ok_or("no guard")?;
                let token = guard.fencing_token();
                let written = Fence::new(&self.url, fence).write(token, value).await;
                (if written { "written" } else { "stale" }).to_owned()
            }
            ["drop"] => {
                self.guard = None;
                "dropped".to_owned()
            }
            ["drain"] => {
                self.locks.as_ref().ok_or("not connected")?.drain().await;
                "drained".to_owned()
            }
            ["leave"] => {
                self.guard = None;
                return Ok(None);
            }
            _ => return Err(format!("no command: {words:?}").into()),
        }))
    }
}

// One thread: what runs in the background does so only while a command is waited for.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut holder = Holder::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let words: Vec<_> = line.split_whitespace().collect();
        match holder.answer(&words).await? {
            Some(answer) => println!("{answer}"),
            None => break,
        }
    }
    Ok(())
}
