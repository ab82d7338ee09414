-- The places in a key's line that stand: a part of several statements.
--
-- What it is a part of names `judged`: the locked row, with the clock read after the lock as `now`.
--
-- A listener is the number of the session that listens for the holder. 0: the holder polls.
-- Below 0: it was signalled and did not hear, so others go first until it asks again (W8).
, places AS MATERIALIZED (
    SELECT place.holder, place.ends, place.listener, place.position
    FROM judged, unnest(judged.line, judged.line_ends, judged.line_listeners)
        WITH ORDINALITY AS place (holder, ends, listener, position)
    -- W2: a place past its end is gone.
    WHERE place.ends > judged.now
)
