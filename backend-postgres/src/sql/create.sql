-- The table of leases, format version 1.
--
-- Only columns outside the key change later, so updates need no new index entries; the space left
-- free in each page is for them.
CREATE TABLE IF NOT EXISTS {table} (
    key bytea PRIMARY KEY CHECK (octet_length(key) <= 512),
    format smallint NOT NULL,
    holder uuid,
    token bigint NOT NULL CHECK (token BETWEEN 0 AND 9007199254740991),
    expires_at timestamptz NOT NULL CHECK (isfinite(expires_at)),
    label bytea NOT NULL CHECK (octet_length(label) <= 256)
) WITH (fillfactor = 50)
