-- Ends the holder's lease (laws L4, L6, W6). This is the common path: leave.sql does the rest.
--
-- $1 key · $2 holder · $3 the process's own listener
--
-- No row: use leave.sql. One row:
--   token  of the lease that ended; null: it had ended before
--   next   the first in line, to be signalled: its listener, `:`, and its holder
--
-- The row stays and keeps its token (L5). Whether the lease stood is found out after the wait for
-- the row's lock, by its end, which is not changed.
UPDATE {table} AS lease SET holder = NULL, label = ''
WHERE key = $1 AND format = 2 AND holder = $2 AND (line IS NULL OR $2 <> ALL (line))
RETURNING
    CASE WHEN expires_at > clock_timestamp() THEN token END AS token,
    CASE WHEN line IS NOT NULL THEN (
        SELECT place.listener || ':' || place.holder
        FROM unnest(line, line_ends, line_listeners) AS place (holder, ends, listener)
        WHERE place.ends > clock_timestamp() AND {hears}
        LIMIT 1
    ) END AS next
