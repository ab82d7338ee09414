//! The signal that a key may be free.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Resolves when asking again may be worth it: a hint that never grants anything.
///
/// It may resolve early or never, so the core also polls. Dropping it ends the watch.
#[must_use = "a signal does nothing unless it is awaited"]
pub struct ReleaseSignal(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl ReleaseSignal {
    /// A signal that resolves with `future`.
    pub fn new(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Some(Box::pin(future)))
    }

    /// The signal of a store that has none: the core polls.
    pub fn never() -> Self {
        Self(None)
    }

    /// Whether it is known that it never resolves.
    #[must_use]
    pub fn is_never(&self) -> bool {
        self.0.is_none()
    }

    /// Resolves with the first of `signals`; never, if there are none.
    pub fn any(signals: Vec<Self>) -> Self {
        let mut signals: Vec<_> = signals.into_iter().filter_map(|signal| signal.0).collect();
        if signals.is_empty() {
            return Self::never();
        }
        Self::new(std::future::poll_fn(move |cx| {
            // Poll all of them, so that each has the waker of this task.
            let mut ready = false;
            for signal in &mut signals {
                ready |= signal.as_mut().poll(cx).is_ready();
            }
            if ready { Poll::Ready(()) } else { Poll::Pending }
        }))
    }
}

impl Future for ReleaseSignal {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(signal) => signal.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }
}

impl std::fmt::Debug for ReleaseSignal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ReleaseSignal")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn any_resolves_with_the_first_signal() {
        ReleaseSignal::any(vec![ReleaseSignal::never(), ReleaseSignal::new(async {})]).await;
        let nothing = tokio::time::timeout(
            Duration::from_millis(1),
            ReleaseSignal::any(vec![ReleaseSignal::never()]),
        );
        assert!(nothing.await.is_err());
    }
}
