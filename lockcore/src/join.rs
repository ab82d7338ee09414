//! Waiting for many futures at once.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Polls all of them until each has ended; their results, in the same order.
pub(crate) async fn join_all<T>(futures: Vec<Boxed<'_, T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(move |cx| {
        for (future, result) in futures.iter_mut().zip(&mut results) {
            if let Some(running) = future
                && let Poll::Ready(value) = running.as_mut().poll(cx)
            {
                *result = Some(value);
                *future = None;
            }
        }
        if futures.iter().any(Option::is_some) {
            return Poll::Pending;
        }
        Poll::Ready(results.iter_mut().filter_map(Option::take).collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_run_at_once_and_answer_in_order() {
        let began = tokio::time::Instant::now();
        let sleeps = [3, 1, 2].map(|seconds| -> Boxed<'_, u64> {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                seconds
            })
        });
        assert_eq!(join_all(sleeps.into()).await, [3, 1, 2]);
        assert_eq!(began.elapsed(), Duration::from_secs(3));
        assert_eq!(join_all::<u64>(Vec::new()).await, []);
    }
}
