-- Whether the holder of a place can be signalled, or polls: a part of several statements (W8).
--
-- Each session that listens holds the advisory lock of its number for as long as it lives. So one
-- that is gone gives way at once. Listeners of the asking process are there: its own session may
-- be the one that asks, and would be given its own lock. No listener of a poller is ever gone.
CASE
    WHEN place.listener IN (0, {me}) THEN true
    WHEN place.listener < 0 THEN false
    ELSE NOT pg_try_advisory_xact_lock_shared(place.listener)
END
