//! The counter that loses additions when two add at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reading and writing are two steps, with a pause between them.
#[derive(Clone)]
pub(crate) struct Counter {
    place: Place,
}

#[derive(Clone)]
enum Place {
    Memory(Arc<AtomicU64>),
    File(PathBuf),
}

impl Counter {
    /// A counter for the workers of this process.
    pub(crate) fn in_memory() -> Self {
        Self { place: Place::Memory(Arc::default()) }
    }

    /// A counter for the workers of all processes that know the file.
    pub(crate) fn in_file(path: PathBuf) -> Self {
        Self { place: Place::File(path) }
    }

    /// Reads, lets others run, and writes.
    pub(crate) async fn add_one(&self) -> io::Result<()> {
        let value = self.value()?;
        tokio::task::yield_now().await;
        self.write(value + 1)
    }

    pub(crate) fn value(&self) -> io::Result<u64> {
        match &self.place {
            Place::Memory(value) => Ok(value.load(Ordering::Relaxed)),
            Place::File(path) => {
                let mut text = String::new();
                File::open(path)?.read_to_string(&mut text)?;
                text.trim_start().parse().map_err(io::Error::other)
            }
        }
    }

    pub(crate) fn write(&self, value: u64) -> io::Result<()> {
        match &self.place {
            Place::Memory(cell) => cell.store(value, Ordering::Relaxed),
            Place::File(path) => {
                // Always as wide, so that additions get lost and the file stays a number.
                let mut file = File::options().write(true).open(path)?;
                file.write_all(format!("{value:20}").as_bytes())?;
            }
        }
        Ok(())
    }
}
