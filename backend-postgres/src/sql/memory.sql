-- How long the table has forgotten nothing: a part of acquire.sql and renew.sql.
--
-- $5 a new store id
--
-- What it is a part of names `granted`, the lease if there is one, and answers
--   born, age_us  the store's id, and how long it has been known; nulls: something else is in the
--                 born row's place, or nothing was granted and there is no such row
--
-- Whoever is granted a lease writes the row where there is none. Another who was faster is seen by
-- the conflict alone, so the update, which changes nothing, is there to read the row.
, known AS MATERIALIZED (
    SELECT format, holder, token FROM {table} WHERE key = ''
), born AS (
    INSERT INTO {table} AS found (key, format, holder, token, expires_at, label)
    SELECT '', 1, $5::uuid, {now_us}, 'epoch', ''
    WHERE EXISTS (SELECT FROM granted) AND NOT EXISTS (SELECT FROM known)
    ON CONFLICT (key) DO UPDATE SET format = found.format WHERE found.format = 1
    RETURNING holder, token
), memory AS (
    SELECT holder, token FROM known WHERE format = 1 UNION ALL SELECT holder, token FROM born
)
