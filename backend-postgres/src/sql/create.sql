-- The table of leases, format version 2.
--
-- Columns have no CHECK constraints: they would double what a write costs the server. The columns
-- outside the key are the ones that change, so an update needs no new index entry, and the free
-- space in each page is for updates. A line of 64 places stays inside its row.
CREATE TABLE IF NOT EXISTS {table} (
    key bytea PRIMARY KEY,
    format smallint NOT NULL,
    holder uuid,
    token bigint NOT NULL,
    expires_at timestamptz NOT NULL,
    label bytea NOT NULL,
    line uuid[],
    line_ends timestamptz[],
    line_listeners bigint[]
) WITH (fillfactor = 50, toast_tuple_target = 4080)
