-- Tells a channel something, in a transaction of its own: no release fails or waits for it.
--
-- $1 channel · $2 payload
SELECT pg_notify($1, $2), set_config('synchronous_commit', 'off', true)
