-- Ends an older session of ours that was given up.
--
-- $1 its process · $2 when that began, as greet.sql tells it
--
-- No row: it has ended. One row: whether it was told to end.
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE pid = $1 AND (extract(epoch FROM backend_start) * 1000000)::bigint = $2
    AND usename = current_user
