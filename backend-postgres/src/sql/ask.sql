-- Grants a lease to the first in line, or gives the holder a place in the line (laws L1 to L3, L5,
-- L9, W1 to W4, W7).
--
-- $1 key · $2 holder · $3 ttl in us · $4 least token · $5 label · $6 wait in us; null: does not wait
-- $7 the holder's listener
--
-- One row:
--   token    of the lease; null: nothing was granted
--   format   of the record seen under the key; null: none
--   left_us  what is left of another's lease, or of the first place while the key is free
--   ahead    how many places are ahead of the holder's; null: it has none
--
-- The row is locked first, and judged by a clock that is read then, once. A row that would not be
-- changed is not locked.
WITH seen AS MATERIALIZED (
    SELECT format, holder, expires_at FROM {table} WHERE key = $1
), locked AS MATERIALIZED (
    SELECT key, holder, token, expires_at, label, line, line_ends, line_listeners FROM {table}
    WHERE key = $1 AND format = 2 AND (
        holder IS NULL
        OR holder = $2
        OR expires_at <= clock_timestamp()
        OR $2 = ANY (line)
        OR $6 IS NOT NULL AND (
            line IS NULL OR cardinality(line) < {places} OR clock_timestamp() >= ANY (line_ends)
        )
    )
    FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT *, clock_timestamp() AS now FROM locked
)
{line}
, first AS MATERIALIZED (
    SELECT place.holder, place.ends FROM places AS place
    -- W2: asking again clears the mark of a place that was passed over.
    WHERE place.holder = $2 OR {hears}
    LIMIT 1
), decided AS MATERIALIZED (
    SELECT *,
        -- W3: a free key goes to the first in line alone.
        mine OR NOT stands AND coalesce((SELECT holder FROM first) = $2, true) AS granted
    FROM (
        SELECT *,
            holder IS NOT NULL AND expires_at > now AS stands,
            holder IS NOT NULL AND holder = $2 AND expires_at > now AS mine
        FROM judged
    ) AS judged
), kept AS MATERIALIZED (
    SELECT place.holder, place.position,
        -- W2: a late or shorter ask never shortens a place.
        CASE WHEN place.holder = $2
            THEN greatest(place.ends, decided.now + $6 * interval '1 microsecond')
            ELSE place.ends
        END AS ends,
        CASE WHEN place.holder = $2 THEN $7 ELSE place.listener END AS listener
    FROM decided, places AS place
    -- W4: a grant takes the place away. W7: contended without a wait leaves nothing.
    WHERE place.holder <> $2 OR NOT decided.granted AND $6 IS NOT NULL
    UNION ALL
    -- W1: contended, the holder has a place at the tail. W11: unless the line is full.
    SELECT $2, 2 * {places}, decided.now + $6 * interval '1 microsecond', $7
    FROM decided
    WHERE NOT decided.granted AND $6 IS NOT NULL
        AND NOT EXISTS (SELECT FROM places WHERE places.holder = $2)
        AND (SELECT count(*) FROM places) < {places}
), after AS MATERIALIZED (
    SELECT array_agg(holder ORDER BY position) AS line,
        array_agg(ends ORDER BY position) AS line_ends,
        array_agg(listener ORDER BY position) AS line_listeners
    FROM kept
), written AS (
    UPDATE {table} AS lease SET
        holder = CASE WHEN decided.granted THEN $2 ELSE decided.holder END,
        token = CASE
            WHEN decided.granted AND NOT decided.mine
            THEN greatest(decided.token + 1, {decided_us}, $4)
            ELSE decided.token
        END,
        expires_at = CASE
            WHEN decided.mine
            THEN greatest(decided.expires_at, decided.now + $3 * interval '1 microsecond')
            WHEN decided.granted THEN decided.now + $3 * interval '1 microsecond'
            ELSE decided.expires_at
        END,
        label = CASE WHEN decided.granted THEN $5 ELSE decided.label END,
        line = after.line,
        line_ends = after.line_ends,
        line_listeners = after.line_listeners
    FROM decided, after
    WHERE lease.key = decided.key AND (
        decided.granted
        OR decided.line IS DISTINCT FROM after.line
        OR decided.line_ends IS DISTINCT FROM after.line_ends
        OR decided.line_listeners IS DISTINCT FROM after.line_listeners
    )
    RETURNING lease.token, decided.granted
), granted AS MATERIALIZED (
    SELECT token FROM written WHERE granted
)
{incarnation}
SELECT
    granted.token,
    seen.format,
    (extract(epoch FROM CASE
        WHEN decided.stands THEN decided.expires_at
        WHEN decided.key IS NOT NULL THEN first.ends
        ELSE seen.expires_at
    END - clock_timestamp()) * 1000000)::bigint AS left_us,
    array_position(after.line, $2) - 1 AS ahead,
    -- A place that a crash takes is joined again, so it does not wait for the disk.
    CASE WHEN granted.token IS NULL THEN set_config('synchronous_commit', 'off', true) END
    {incarnation_columns}
FROM after LEFT JOIN seen ON true LEFT JOIN decided ON true LEFT JOIN first ON true
    LEFT JOIN granted ON true
