-- Extends the holder's lease, never shortens it, and raises its token (laws L3, L4, L9).
--
-- KEYS  1 lease, 2 counter, 3 born record (left out where keys must share a cluster slot)
-- ARGV  1 holder, 2 ttl in ms, 3 least token, 4 retention in ms, 5 a new store id
--
-- {1, token, born record or '', now in us}   renewed
-- {0}                                        no lease of this holder stands; nothing was changed
-- {2, key}                                   a foreign value is under this key; nothing was changed
--
-- The counter is written every time: it must outlive the lease, and comes back here if it was
-- evicted under one that is held for long. A born record that has gone begins anew, with the age
-- zero: whatever took it may have taken more. The lease comes last, and all writes are SETs: a
-- refused script has changed nothing (L7).

local held, foreign = lease(KEYS[1])
if foreign then return { 2, KEYS[1] } end
if not held or held.holder ~= ARGV[1] then return { 0 } end
local last, strange = counter(KEYS[2])
if strange then return { 2, KEYS[2] } end

local ttl = math.max(tonumber(ARGV[2]), held.left)
local token = math.max(held.token, tonumber(ARGV[3]))
local at = now()
local since = born(KEYS[3], ARGV[5], at)
remember(KEYS[2], math.max(token, last), at, ttl, tonumber(ARGV[4]))
local value = '1|' .. held.holder .. '|' .. text(token) .. '|' .. held.label
redis.call('SET', KEYS[1], value, 'PX', text(ttl))
return { 1, text(token), since, text(at) }
