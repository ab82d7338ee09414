-- Extends the holder's lease and raises its token to a floor (laws L3, L4, L9).
--
-- $1 key · $2 holder · $3 ttl in us · $4 least token · $5 a new store id
--
-- One row:
--   token   of the lease; null: no lease of the holder's stands, nothing was changed
--   format  of the record found under the key; null: none
--   born, age_us  of memory.sql
--
-- An UPDATE alone would look at the clock before it waits for the row's lock, and revive a lease
-- that ended meanwhile. So the row is locked first, and judged by a clock that is read then.
WITH mine AS MATERIALIZED (
    SELECT key, token, expires_at FROM {table}
    WHERE key = $1 AND format = 1 AND holder = $2::uuid
    FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT key, token, expires_at, clock_timestamp() AS now FROM mine
), granted AS (
    UPDATE {table} AS lease SET
        token = greatest(judged.token, $4),
        expires_at = greatest(judged.expires_at, judged.now + $3 * interval '1 microsecond')
    FROM judged
    WHERE lease.key = judged.key AND judged.expires_at > judged.now
    RETURNING lease.token
)
{memory}
SELECT
    (SELECT token FROM granted) AS token,
    (SELECT format FROM {table} WHERE key = $1) AS format,
    (SELECT holder::text FROM memory) AS born,
    (SELECT {now_us} - token FROM memory) AS age_us
