-- Deletes rows that nobody needs any more (law L5).
--
-- $1 retention in us
--
-- One row: how many were deleted.
--
-- To sweep is to look at some pages of the table, chosen at random, and to delete the rows whose
-- token the clock has passed by the retention: a lease granted later has a larger token without
-- them. Rows that others hold locked are left alone.
WITH pages AS MATERIALIZED (
    SELECT floor(random() * pg_relation_size('{table}'::regclass)
        / current_setting('block_size')::bigint)::bigint AS number
    FROM generate_series(1, 4)
), dead AS MATERIALIZED (
    SELECT key FROM {table}
    WHERE ctid = ANY (ARRAY(
            SELECT format('(%s,%s)', number, slot)::tid FROM pages, generate_series(1, 300) AS slot
        ))
        AND key <> '' AND format = 2
        AND (holder IS NULL OR expires_at <= clock_timestamp())
        AND (line IS NULL OR clock_timestamp() > ALL (line_ends))
        AND token < {now_us} - $1
    FOR UPDATE SKIP LOCKED
), swept AS (
    DELETE FROM {table} WHERE key IN (SELECT key FROM dead) RETURNING key
)
-- What a crash brings back is swept again.
SELECT count(*), set_config('synchronous_commit', 'off', true) FROM swept
