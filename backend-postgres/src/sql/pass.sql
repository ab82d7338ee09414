-- Lets others go before a holder that was signalled and did not hear (law W8).
--
-- $1 key · $2 holder · $3 the process's own listener
--
-- One row:
--   next  the first in line that is left, to be signalled: its listener, `:`, and its holder
WITH locked AS MATERIALIZED (
    SELECT key, holder, expires_at, line, line_ends, line_listeners FROM {table}
    WHERE key = $1 AND format = 2 AND $2 = ANY (line)
    FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT *, clock_timestamp() AS now FROM locked
)
{line}
, next AS MATERIALIZED (
    SELECT place.listener || ':' || place.holder AS next FROM places AS place
    WHERE place.holder <> $2 AND {hears}
    LIMIT 1
), passed AS (
    UPDATE {table} AS lease
    SET line_listeners[array_position(judged.line, $2)] = -1
    FROM judged
    WHERE lease.key = judged.key
        -- It may have asked again since, as one that polls.
        AND judged.line_listeners[array_position(judged.line, $2)] = $3
    RETURNING judged.holder IS NULL OR judged.expires_at <= judged.now AS is_free
)
SELECT CASE WHEN passed.is_free THEN (SELECT next FROM next) END AS next,
    set_config('synchronous_commit', 'off', true)
FROM passed
