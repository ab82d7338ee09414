-- Grants a lease if the key is free and nobody waits for it, or again if it is the holder's
-- (laws L1, L2, L3, L5, L9). This is the common path: ask.sql decides everything else.
--
-- $1 key · $2 holder · $3 ttl in us · $4 least token · $5 label
--
-- One row:
--   token    of the lease; null: nothing was granted
--   format   of the record seen under the key, if the key was seen to be taken
--   left_us  what was left of another's lease, if nobody waits for the key; null: use ask.sql
--
-- A key that is seen to be another's is not touched: no lock, no write, no wait. Everything that is
-- decided after a wait for the row's lock is computed after it, from the row as it is then: ON
-- CONFLICT locks the row first, and clock_timestamp() runs on.
WITH seen AS MATERIALIZED (
    SELECT format, expires_at, line IS NULL AS has_no_line FROM {table}
    WHERE key = $1 AND (format <> 2 OR holder <> $2 AND expires_at > clock_timestamp())
), granted AS (
    INSERT INTO {table} AS lease (key, format, holder, token, expires_at, label)
    SELECT $1, 2, $2, greatest({now_us}, $4),
        clock_timestamp() + $3 * interval '1 microsecond', $5
    WHERE NOT EXISTS (SELECT FROM seen)
    ON CONFLICT (key) DO UPDATE SET
        holder = excluded.holder,
        label = excluded.label,
        -- L2, L5: the clock decides once, here.
        token = CASE
            WHEN lease.holder = excluded.holder AND lease.expires_at > clock_timestamp()
            THEN lease.token
            ELSE greatest(lease.token + 1, {now_us}, $4)
        END,
        -- L3: nothing shortens a lease.
        expires_at = CASE
            WHEN lease.holder = excluded.holder
            THEN greatest(lease.expires_at, clock_timestamp() + $3 * interval '1 microsecond')
            ELSE clock_timestamp() + $3 * interval '1 microsecond'
        END
    -- W3: if others wait, ask.sql finds out whose turn it is.
    WHERE lease.format = 2 AND lease.line IS NULL AND (
        lease.holder IS NULL
        OR lease.holder = excluded.holder
        OR lease.expires_at <= clock_timestamp()
    )
    RETURNING token
)
{incarnation}
SELECT
    granted.token,
    seen.format,
    CASE WHEN seen.has_no_line
        THEN (extract(epoch FROM seen.expires_at - clock_timestamp()) * 1000000)::bigint
    END AS left_us,
    -- The loser of a race has locked the row. It need not wait for the disk.
    CASE WHEN granted.token IS NULL THEN set_config('synchronous_commit', 'off', true) END
    {incarnation_columns}
FROM (VALUES (1)) AS one LEFT JOIN granted ON true LEFT JOIN seen ON true
