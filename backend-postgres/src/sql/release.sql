-- Ends the holder's lease and tells who waits (laws L4, L6).
--
-- $1 key · $2 holder · $3 channel · $4 what the payload starts with
--
-- One row:
--   released  whether the holder's lease stood
--   format    of the record found under the key; null: none
--
-- The row stays and keeps its token (L5). Now and then sweep.sql goes with it.
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
)
{sweep}
SELECT
    EXISTS (SELECT FROM told) AS released,
    (SELECT format FROM {table} WHERE key = $1) AS format
