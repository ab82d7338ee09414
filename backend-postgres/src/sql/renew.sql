-- Extends leases and raises their tokens to floors (laws L3, L4, L9).
--
-- $1 keys · $2 their holders · $3 ttls in us · $4 least tokens
--
-- One row, with an element for each of them, in their order:
--   tokens   of the leases; null: no lease of the holder's stands, nothing was changed
--   formats  of the records seen under the keys; null: none
--
-- An UPDATE alone would look at the clock before it waits for a row's lock, and revive a lease that
-- ended meanwhile. So each row is locked first, and judged by a clock that is read then. Rows are
-- locked in the order of their keys, so that two renewals never wait for each other.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::bytea[], $2::uuid[], $3::bigint[], $4::bigint[])
        WITH ORDINALITY AS asked (key, holder, ttl, least, number)
), locked AS MATERIALIZED (
    SELECT asked.number, lease.key, lease.token, lease.expires_at, asked.ttl, asked.least
    FROM {table} AS lease JOIN asked ON lease.key = asked.key AND lease.holder = asked.holder
    WHERE lease.format = 2
    ORDER BY lease.key
    FOR NO KEY UPDATE OF lease
), judged AS MATERIALIZED (
    SELECT *, clock_timestamp() AS now FROM locked
), granted AS (
    UPDATE {table} AS lease SET
        token = greatest(judged.token, judged.least),
        expires_at = greatest(judged.expires_at, judged.now + judged.ttl * interval '1 microsecond')
    FROM judged
    WHERE lease.key = judged.key AND judged.expires_at > judged.now
    RETURNING lease.token, judged.number
)
{incarnation}
SELECT
    array_agg(granted.token ORDER BY asked.number) AS tokens,
    array_agg(found.format ORDER BY asked.number) AS formats
    {incarnation_columns}
FROM asked
    LEFT JOIN granted ON granted.number = asked.number
    LEFT JOIN {table} AS found ON found.key = asked.key
