-- What a server says about itself and about this session.
--
-- $1 what our startup options set as the session's mark · $2 the session's number
--
-- One row:
--   version   such as 150018
--   ours      whether the startup options arrived: the session is ours alone
--   locked    not null if the session now holds the advisory lock of its number: for as long as it
--             lives, others see by it that it is there
--   process, since  of this session: a number, as text would depend on the session's settings
--   standby   whether this server replays another's changes
--   volatile  whether a crash of the machine may take what was acknowledged
SELECT
    current_setting('server_version_num')::int AS version,
    coalesce(current_setting('leaselock.session', true) = $1, false) AS ours,
    CASE WHEN current_setting('leaselock.session', true) = $1
        THEN pg_advisory_lock($2)::text
    END AS locked,
    pg_backend_pid() AS process,
    (
        SELECT (extract(epoch FROM backend_start) * 1000000)::bigint
        FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ) AS since,
    pg_is_in_recovery() AS standby,
    current_setting('fsync') = 'off' AS volatile
