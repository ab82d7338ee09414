//! The signals between parent and child process.

use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

use crate::Result;

/// The child says the first when it is ready, the parent answers with the second.
pub(crate) const READY: &str = "ready";
pub(crate) const GO: &str = "go";

/// The parent, who says when to begin.
pub(crate) struct Start {
    input: Lines<BufReader<Stdin>>,
}

impl Start {
    pub(crate) fn new() -> Self {
        Self { input: BufReader::new(tokio::io::stdin()).lines() }
    }

    pub(crate) async fn wait(mut self) -> Result<()> {
        println!("{READY}");
        match self.input.next_line().await? {
            Some(line) if line == GO => Ok(()),
            _ => Err("the parent has ended".into()),
        }
    }
}
