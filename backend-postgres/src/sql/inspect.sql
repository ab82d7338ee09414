-- Shows the lease that stands on a key, or a foreign record under it (law L10).
--
-- $1 key
--
-- No row: neither. One row: format, holder, token, left_us, label.
SELECT format, holder, token,
    (extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::bigint AS left_us, label
FROM {table}
WHERE key = $1 AND (format <> 2 OR holder IS NOT NULL AND expires_at > clock_timestamp())
