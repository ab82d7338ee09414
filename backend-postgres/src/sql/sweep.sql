-- Deletes rows that nobody needs any more: a part of release.sql (law L5).
--
-- $5 retention in us
--
-- To sweep is to look at one page of the table, chosen at random, and to delete the rows whose
-- token the clock has passed by the retention: a lease granted later has a larger token without
-- them. Rows that others hold locked are left alone.
, page AS MATERIALIZED (
    SELECT floor(random() * pg_relation_size('{table}'::regclass)
        / current_setting('block_size')::bigint)::bigint AS number
), dead AS MATERIALIZED (
    SELECT key FROM {table}
    WHERE ctid = ANY (ARRAY(
            SELECT format('(%s,%s)', number, slot)::tid FROM page, generate_series(1, 300) AS slot
        ))
        AND key <> '' AND format = 1
        AND (holder IS NULL OR expires_at <= clock_timestamp())
        AND token < {now_us} - $5
    FOR UPDATE SKIP LOCKED
), swept AS (
    DELETE FROM {table} WHERE key IN (SELECT key FROM dead)
)
