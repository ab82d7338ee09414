-- Waits until an older session of ours has ended: it holds the advisory lock of its number.
--
-- $1 its number
SELECT pg_advisory_lock($1), pg_advisory_unlock($1)
