-- What a server says about itself and about this session; and the end of an older session.
--
-- $1 process and $2 start of a session of ours that was given up; nulls: none
--
-- One row:
--   version   such as 150018
--   mark      what our startup options set; null: another's session, or they did not arrive
--   process, since  of this session
--   standby   whether this server replays another's changes
--   volatile  whether a crash of the machine may take what was acknowledged
--   ended     whether the older session was there and was told to end
SELECT
    current_setting('server_version_num')::int AS version,
    current_setting('leaselock.session', true) AS mark,
    pg_backend_pid() AS process,
    (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid()) AS since,
    pg_is_in_recovery() AS standby,
    current_setting('fsync') = 'off' AS volatile,
    (
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE pid = $1 AND backend_start = $2::timestamptz AND usename = current_user
    ) AS ended
