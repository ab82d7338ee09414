//! The recipes of `docs/guarantees.md` on the stores they are for.

use integration::fence::Fence;
use integration::limited;
use integration::store::{Kind, Store};

/// A late writer is refused, and the latest goes on writing.
async fn refuses_a_late_writer(kind: Kind) {
    limited(async {
        let store = Store::start(kind).await;
        let fence = Fence::new(&store.url(), "fenced");
        assert!(fence.write(7, "first").await);
        assert!(fence.write(7, "again").await, "the same holder is welcome");
        // Longer in decimal: numbers are compared, not words.
        assert!(fence.write(1_795_344_351_792_114, "second").await);
        for late in [1, 7, 1_795_344_351_792_113] {
            assert!(!fence.write(late, "late").await, "{late}");
        }
        assert!(fence.write(1_795_344_351_792_115, "third").await);
        assert!(Fence::new(&store.url(), "another").write(1, "first").await);
    })
    .await;
}

#[tokio::test]
async fn sql_refuses_a_late_writer() {
    refuses_a_late_writer(Kind::Postgres).await;
}

#[tokio::test]
async fn etcd_refuses_a_late_writer() {
    refuses_a_late_writer(Kind::Etcd).await;
}

#[tokio::test]
async fn redis_refuses_a_late_writer() {
    refuses_a_late_writer(Kind::Redis).await;
}
