-- How long the table is known to have kept all its data: a part of several statements.
--
-- {new_id} an id for a new incarnation
--
-- What it is a part of names `granted`: the lease, if there is one. It answers
--   born, age_us  the incarnation's id and age; nulls: something else is in the row's place, or
--                 nothing was granted and there is no such row
--
-- The row with the empty key is the incarnation. Its label is the cluster and its timeline: a
-- failover, a restored backup and a copy begin another. Who is granted a lease writes the row
-- where there is none. If another was faster, only the conflict sees its row, so the update is
-- there to read it.
, life AS MATERIALIZED (
    SELECT convert_to(
        substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) || ':' || system_identifier,
        'UTF8'
    ) AS name FROM pg_control_system()
), known AS MATERIALIZED (
    SELECT format, holder, token, label = life.name AS goes_on FROM {table}, life WHERE key = ''
), born AS (
    INSERT INTO {table} AS found (key, format, holder, token, expires_at, label)
    SELECT '', 2, {new_id}, {now_us}, 'epoch', life.name FROM life
    WHERE EXISTS (SELECT FROM granted)
        AND NOT EXISTS (SELECT FROM known WHERE format <> 2 OR goes_on)
    ON CONFLICT (key) DO UPDATE SET
        holder = CASE WHEN found.label = excluded.label THEN found.holder ELSE excluded.holder END,
        token = CASE WHEN found.label = excluded.label THEN found.token ELSE excluded.token END,
        label = excluded.label
    WHERE found.format = 2
    RETURNING holder, token
), incarnation AS (
    SELECT holder, token FROM known WHERE format = 2 AND goes_on
    UNION ALL SELECT holder, token FROM born
)
