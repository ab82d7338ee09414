-- Ends the lease of one holder and grants the key to another (laws L2, L5, L9, W9).
--
-- $1 key · $2 from · $3 to · $4 ttl in us · $5 least token · $6 label
-- $7 wait of `to` in us; null: does not wait · $8 its listener · $9 the process's own listener
-- $10 whether others go first
--
-- One row:
--   token    of the new lease; null: nothing was granted
--   yielded  whether the lease of `from` ended, and others go first
--   format   of the record seen under the key; null: none
--   left_us  what is left of the first place
--   ahead    how many places are ahead of that of `to`; null: it has none
--   next     the first in line, to be signalled: its listener, `:`, and its holder
WITH locked AS MATERIALIZED (
    SELECT key, holder, token, expires_at, label, line, line_ends, line_listeners FROM {table}
    WHERE key = $1 AND format = 2 AND holder IN ($2, $3)
    FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    -- W9: only while a lease of `from` stands; or `to` has it already.
    SELECT * FROM (SELECT *, clock_timestamp() AS now FROM locked) AS locked
    WHERE expires_at > now
)
{line}
, next AS MATERIALIZED (
    SELECT place.listener || ':' || place.holder AS next, place.ends FROM places AS place
    WHERE place.holder <> $3 AND {hears}
    LIMIT 1
), first AS MATERIALIZED (
    SELECT place.holder FROM places AS place WHERE place.holder = $3 OR {hears} LIMIT 1
), decided AS MATERIALIZED (
    -- Holders that are gone are not yielded to: nobody would come.
    SELECT *, holder = $3 AS again,
        $10 AND holder = $2 AND line IS NOT NULL
            AND coalesce((SELECT holder FROM first) <> $3, false) AS yields
    FROM judged
), kept AS MATERIALIZED (
    SELECT place.holder, place.position,
        CASE WHEN place.holder = $3
            THEN greatest(place.ends, decided.now + $7 * interval '1 microsecond')
            ELSE place.ends
        END AS ends,
        CASE WHEN place.holder = $3 THEN $8 ELSE place.listener END AS listener
    FROM decided, places AS place
    -- W4: a grant takes the place away.
    WHERE place.holder <> $3 OR decided.yields AND $7 IS NOT NULL
    UNION ALL
    -- W9: `to` joins the tail. A full line takes it all the same: it gives up the key.
    SELECT $3, 2 * {places}, decided.now + $7 * interval '1 microsecond', $8
    FROM decided
    WHERE decided.yields AND $7 IS NOT NULL
        AND NOT EXISTS (SELECT FROM places WHERE places.holder = $3)
), after AS MATERIALIZED (
    SELECT array_agg(holder ORDER BY position) AS line,
        array_agg(ends ORDER BY position) AS line_ends,
        array_agg(listener ORDER BY position) AS line_listeners
    FROM kept
), written AS (
    UPDATE {table} AS lease SET
        holder = CASE WHEN NOT decided.yields THEN $3 END,
        token = CASE
            WHEN decided.again OR decided.yields THEN decided.token
            ELSE greatest(decided.token + 1, {decided_us}, $5)
        END,
        expires_at = CASE
            WHEN decided.yields THEN decided.expires_at
            WHEN decided.again
            THEN greatest(decided.expires_at, decided.now + $4 * interval '1 microsecond')
            ELSE decided.now + $4 * interval '1 microsecond'
        END,
        label = CASE WHEN decided.yields THEN '' ELSE $6 END,
        line = after.line,
        line_ends = after.line_ends,
        line_listeners = after.line_listeners
    FROM decided, after
    WHERE lease.key = decided.key
    RETURNING lease.token, decided.yields
), granted AS MATERIALIZED (
    SELECT token FROM written WHERE NOT yields
)
{incarnation}
SELECT
    granted.token,
    coalesce(written.yields, false) AS yielded,
    (SELECT format FROM {table} WHERE key = $1) AS format,
    (extract(epoch FROM next.ends - clock_timestamp()) * 1000000)::bigint AS left_us,
    array_position(after.line, $3) - 1 AS ahead,
    CASE WHEN written.yields THEN next.next END AS next
    {incarnation_columns}
FROM after LEFT JOIN written ON true LEFT JOIN granted ON true LEFT JOIN next ON true
