-- Ends the holder's lease and its place in the line (laws L4, L6, W6).
--
-- $1 key · $2 holder · $3 the process's own listener
--
-- One row:
--   token   of the lease that ended; null: none stood
--   format  of the record seen under the key; null: none
--   next    the first in line, to be signalled: its listener, `:`, and its holder
WITH locked AS MATERIALIZED (
    SELECT key, holder, token, expires_at, label, line, line_ends, line_listeners FROM {table}
    WHERE key = $1 AND format = 2 AND (holder = $2 OR $2 = ANY (line))
    FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT *, clock_timestamp() AS now FROM locked
)
{line}
, decided AS MATERIALIZED (
    SELECT *,
        holder IS NOT NULL AND expires_at > now AS stands,
        holder IS NOT NULL AND holder = $2 AND expires_at > now AS mine
    FROM judged
), first AS MATERIALIZED (
    SELECT place.holder FROM places AS place WHERE place.holder = $2 OR {hears} LIMIT 1
), kept AS MATERIALIZED (
    SELECT * FROM places WHERE holder <> $2
), next AS MATERIALIZED (
    SELECT place.listener || ':' || place.holder AS next FROM kept AS place WHERE {hears} LIMIT 1
), after AS MATERIALIZED (
    SELECT array_agg(holder ORDER BY position) AS line,
        array_agg(ends ORDER BY position) AS line_ends,
        array_agg(listener ORDER BY position) AS line_listeners
    FROM kept
), written AS (
    UPDATE {table} AS lease SET
        holder = CASE WHEN decided.holder <> $2 THEN decided.holder END,
        label = CASE WHEN decided.holder <> $2 THEN decided.label ELSE '' END,
        line = after.line,
        line_ends = after.line_ends,
        line_listeners = after.line_listeners
    FROM decided, after
    WHERE lease.key = decided.key
    RETURNING CASE WHEN decided.mine THEN decided.token END AS token,
        decided.mine OR NOT decided.stands AND (SELECT holder FROM first) = $2 AS is_free
)
SELECT
    written.token,
    (SELECT format FROM {table} WHERE key = $1) AS format,
    CASE WHEN written.is_free THEN (SELECT next FROM next) END AS next,
    CASE WHEN written.token IS NULL THEN set_config('synchronous_commit', 'off', true) END
FROM (VALUES (1)) AS one LEFT JOIN written ON true
