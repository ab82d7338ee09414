-- Ends the holder's lease and tells who waits (laws L4, L6).
--
-- $1 key · $2 holder · $3 channel · $4 what the payload starts with · $5 whether to sweep
-- $6 retention in us
--
-- One row:
--   released  whether the holder's lease stood
--   format    of the record found under the key; null: none
--
-- The row stays and keeps its token (L5). To sweep is to look at one page of the table, chosen at
-- random, and to delete the rows whose token the clock has passed by the retention: a lease
-- granted later has a larger token without them. Rows that others hold locked are left alone.
WITH mine AS MATERIALIZED (
    SELECT key, expires_at FROM {table}
    WHERE key = $1 AND format = 1 AND holder = $2::uuid
    FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT key, expires_at, clock_timestamp() AS now FROM mine
), released AS (
    UPDATE {table} AS lease SET holder = NULL, expires_at = judged.now, label = ''
    FROM judged
    WHERE lease.key = judged.key AND judged.expires_at > judged.now
    RETURNING lease.key
), told AS MATERIALIZED (
    SELECT pg_notify($3, $4 || encode(key, 'hex')) FROM released
), page AS MATERIALIZED (
    SELECT floor(random() * pg_relation_size('{table}'::regclass)
        / current_setting('block_size')::bigint)::bigint AS number
    WHERE $5
), dead AS MATERIALIZED (
    SELECT key FROM {table}
    WHERE ctid = ANY (ARRAY(
            SELECT format('(%s,%s)', number, slot)::tid FROM page, generate_series(1, 300) AS slot
        ))
        AND key <> '' AND format = 1
        AND (holder IS NULL OR expires_at <= clock_timestamp())
        AND token < {now_us} - $6
    FOR UPDATE SKIP LOCKED
), swept AS (
    DELETE FROM {table} WHERE key IN (SELECT key FROM dead)
)
SELECT
    EXISTS (SELECT FROM told) AS released,
    (SELECT format FROM {table} WHERE key = $1) AS format
