-- Shows the leases that stand, in the order of their keys' bytes (law L10).
--
-- $1 the least key · $2 the first key behind the last; null: none · $3 how many at most
-- $4 only keys greater than this; an empty one: all
--
-- Rows of: key, holder, token, left_us, label. Records of other formats are left out.
SELECT key, holder, token,
    (extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::bigint AS left_us, label
FROM {table}
WHERE key >= $1 AND ($2 IS NULL OR key < $2) AND key > $4
    AND format = 2 AND holder IS NOT NULL AND expires_at > clock_timestamp()
ORDER BY key
LIMIT $3
