-- Grants a lease if the key is free, or again if it is the holder's (laws L1, L2, L3, L5, L9).
--
-- $1 key · $2 holder · $3 ttl in us · $4 least token · $5 a new store id · $6 label
--
-- One row:
--   token    of the lease; null: nothing was granted
--   format   of the record found under the key; null: none
--   left_us  what was left of another's lease, where it was seen
--   born, age_us  of memory.sql
--
-- A key that is seen to be another's is not touched: no lock, no write, no wait. What is decided
-- after a wait for the row's lock is computed after it, from the row as it is then: ON CONFLICT
-- locks the row first, and clock_timestamp() runs on.
WITH seen AS MATERIALIZED (
    SELECT format, holder, expires_at FROM {table} WHERE key = $1
), granted AS (
    INSERT INTO {table} AS lease (key, format, holder, token, expires_at, label)
    SELECT $1, 1, $2::uuid, greatest({now_us}, $4),
        clock_timestamp() + $3 * interval '1 microsecond', $6
    WHERE NOT EXISTS (
        SELECT FROM seen
        WHERE format <> 1 OR holder <> $2::uuid AND expires_at > clock_timestamp()
    )
    ON CONFLICT (key) DO UPDATE SET
        holder = excluded.holder,
        label = excluded.label,
        token = CASE
            WHEN lease.holder = excluded.holder AND lease.expires_at > clock_timestamp()
            THEN lease.token
            ELSE greatest(lease.token + 1, {now_us}, $4)
        END,
        expires_at = CASE
            WHEN lease.holder = excluded.holder
            THEN greatest(lease.expires_at, clock_timestamp() + $3 * interval '1 microsecond')
            ELSE clock_timestamp() + $3 * interval '1 microsecond'
        END
    WHERE lease.format = 1 AND (
        lease.holder IS NULL
        OR lease.holder = excluded.holder
        OR lease.expires_at <= clock_timestamp()
    )
    RETURNING token
)
{memory}
SELECT
    (SELECT token FROM granted) AS token,
    (SELECT format FROM seen) AS format,
    (
        SELECT (extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::bigint
        FROM seen WHERE holder <> $2::uuid
    ) AS left_us,
    (SELECT holder::text FROM memory) AS born,
    (SELECT {now_us} - token FROM memory) AS age_us
