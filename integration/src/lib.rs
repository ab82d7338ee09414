//! What the tests of this package share. The tests need a store and the facade at once, or
//! several processes: `counter`, `facade`, `moving`, `quorum_nodes`, `stores`; and the conformance
//! suite on several stores at once, `combinations`.

pub mod ahead;
pub mod fence;
pub mod history;
pub mod nodes;
pub mod program;
pub mod store;
pub mod storm;

use std::error::Error;
use std::fmt::Write;
use std::future::Future;
use std::time::Duration;

/// How much longer than it should a thing may take on a machine that does much else.
pub const SLACK: Duration = Duration::from_secs(2);

/// No test takes longer, whatever breaks.
const LIMIT: Duration = Duration::from_secs(120);

/// The pause between two looks at what is to become so.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Runs a test within its limit.
///
/// # Panics
///
/// If it takes longer.
pub async fn limited<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, test).await.expect("the test takes too long")
}

/// Asks until the answer is yes; the limit of the test ends it.
pub async fn eventually<F: Future<Output = bool>>(mut ask: impl FnMut() -> F) {
    while !ask().await {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// All that an error says to people and programs, to the last of its sources.
pub fn all_text(error: &dyn Error) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        write!(text, "{error} | {error:?} | {error:#?} | ").expect("text");
        next = error.source();
    }
    text
}

/// Nanoseconds on a clock that all processes of this machine share, and where there is a Unix
/// nobody sets.
#[must_use]
pub fn monotonic() -> u64 {
    #[cfg(unix)]
    {
        use rustix::time::{ClockId, clock_gettime};

        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
    }
    #[cfg(not(unix))]
    {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        u64::try_from(now.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// Makes tests of functions that take a [`Kind`](store::Kind): one on every store.
#[macro_export]
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        $crate::on_every_store! { @on etcd Etcd $($test)* }
        $crate::on_every_store! { @on postgres Postgres $($test)* }
        $crate::on_every_store! { @on redis Redis $($test)* }
    };
    (@on $module:ident $kind:ident $($test:ident)*) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    $crate::limited(super::$test($crate::store::Kind::$kind)).await;
                }
            )*
        }
    };
}
