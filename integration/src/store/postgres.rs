//! A look at Postgres past the locks.

use leaselock::postgres::tokio_postgres::{Client, NoTls};

/// A connection of the driver's.
///
/// # Panics
///
/// If the server cannot be reached.
pub async fn client(url: &str) -> Client {
    let (client, connection) =
        leaselock::postgres::tokio_postgres::connect(url, NoTls).await.expect("a server");
    tokio::spawn(connection);
    client
}

pub(super) async fn leases(url: &str) -> Vec<String> {
    const STANDING: &str = "SELECT convert_from(key, 'UTF8') FROM leaselock_lease \
        WHERE holder IS NOT NULL AND expires_at > clock_timestamp()";
    let rows = client(url).await.query(STANDING, &[]).await.expect("the format");
    rows.iter().map(|row| row.get(0)).collect()
}

pub(super) async fn is_watched(url: &str) -> bool {
    const LISTENING: &str =
        "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND state = 'idle'";
    let row = client(url).await.query_one(LISTENING, &[]).await.expect("a view");
    row.get::<_, i64>(0) > 0
}

pub(super) async fn requests(url: &str) -> u64 {
    const COUNTED: &str = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
        WHERE query LIKE '%leaselock_lease%' AND query NOT LIKE '%pg_stat_statements%'";
    let client = client(url).await;
    let create = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
    client.batch_execute(create).await.expect("the extension");
    let row = client.query_one(COUNTED, &[]).await.expect("a view");
    u64::try_from(row.get::<_, i64>(0)).expect("a count")
}
