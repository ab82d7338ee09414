-- What a server says about itself and about this session.
--
-- One row:
--   version   such as 150018
--   mark      what our startup options set; null: another's session, or they did not arrive
--   process, since  of this session: a number, as text would depend on the session's settings
--   standby   whether this server replays another's changes
--   volatile  whether a crash of the machine may take what was acknowledged
SELECT
    current_setting('server_version_num')::int AS version,
    current_setting('leaselock.session', true) AS mark,
    pg_backend_pid() AS process,
    (
        SELECT (extract(epoch FROM backend_start) * 1000000)::bigint
        FROM pg_stat_activity WHERE pid = pg_backend_pid()
    ) AS since,
    pg_is_in_recovery() AS standby,
    current_setting('fsync') = 'off' AS volatile
