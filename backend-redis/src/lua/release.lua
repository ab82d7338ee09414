-- Ends the holder's lease and tells those who wait (laws L4, L6).
--
-- KEYS  1 lease
-- ARGV  1 holder, 2 release channel
--
-- {1}        released
-- {0}        no lease of this holder stands; nothing was changed
-- {2, key}   a foreign value is under this key; nothing was changed

local held, foreign = lease(KEYS[1])
if foreign then return { 2, KEYS[1] } end
if not held or held.holder ~= ARGV[1] then return { 0 } end
redis.call('DEL', KEYS[1])
-- Done is done: a user who may not publish has released all the same, and waiters poll.
redis.pcall('PUBLISH', ARGV[2], text(held.token))
return { 1 }
