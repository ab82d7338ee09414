#![doc = include_str!("../README.md")]

use std::collections::HashMap;
use std::error::Error;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

/// The error of a value that could not be made, or of a lock.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Where the values are: here a map, in earnest a table or a bucket that many processes share.
pub type Values = Arc<Mutex<HashMap<String, String>>>;

/// A cache that makes a missing value once.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    values: Values,
    #[cfg(feature = "lock")]
    locks: Option<lockcore::LockManager>,
}

impl Cache {
    /// A cache of these values, for one process.
    #[must_use]
    pub fn new(values: Values) -> Self {
        Self {
            values,
            #[cfg(feature = "lock")]
            locks: None,
        }
    }

    /// Lets many processes share the values: one of them makes a missing one, the others wait.
    #[cfg(feature = "lock")]
    #[must_use]
    pub fn with_lock(mut self, backend: impl lockcore::LockBackend) -> Self {
        self.locks = Some(lockcore::LockManager::new(backend));
        self
    }

    /// The value of `name`, made by `make` if it is missing.
    ///
    /// # Errors
    ///
    /// What `make` returned; with the feature `lock`, also what the lock did.
    pub async fn get<M>(&self, name: &str, make: M) -> Result<String, Failure>
    where
        M: Future<Output = Result<String, Failure>>,
    {
        if let Some(value) = self.look(name) {
            return Ok(value);
        }
        #[cfg(feature = "lock")]
        if let Some(locks) = &self.locks {
            let guard = locks.lock(format!("cache/{name}"))?.acquire().await?;
            // Stops should the lock be lost, so that no two make the value for long.
            let value = guard.run(self.fill(name, make)).await?;
            // Dropped, it is released in the background: the value need not wait for that.
            drop(guard);
            return value;
        }
        self.fill(name, make).await
    }

    async fn fill<M>(&self, name: &str, make: M) -> Result<String, Failure>
    where
        M: Future<Output = Result<String, Failure>>,
    {
        // Someone else may have made it while this one waited for the lock.
        if let Some(value) = self.look(name) {
            return Ok(value);
        }
        let value = make.await?;
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(name.to_owned(), value.clone());
        Ok(value)
    }

    fn look(&self, name: &str) -> Option<String> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(name).cloned()
    }
}
