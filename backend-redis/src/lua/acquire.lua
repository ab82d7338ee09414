-- Grants a lease if the key is free, or again if it is the holder's (laws L1, L2, L3, L5, L9).
--
-- KEYS  1 lease, 2 counter, 3 born record (left out where keys must share a cluster slot)
-- ARGV  1 holder, 2 ttl in ms, 3 least token, 4 retention in ms, 5 a new store id, 6 label
--
-- {1, token, born record or '', now in us}   granted
-- {0, ms left}                               another holder's
-- {2, key}                                   a foreign value is under this key; nothing was changed
--
-- Everything is read and judged before anything is written. All writes are SETs, and a server
-- that refuses writes refuses the first: a refused script has changed nothing (L7).

local held, foreign = lease(KEYS[1])
if foreign then return { 2, KEYS[1] } end
if held and held.holder ~= ARGV[1] then return { 0, held.left } end
local last, strange = counter(KEYS[2])
if strange then return { 2, KEYS[2] } end

local at = now()
local ttl, retention = tonumber(ARGV[2]), tonumber(ARGV[4])
local token
if held then
  token = held.token
  ttl = math.max(ttl, held.left)
else
  token = math.max(last + 1, at, tonumber(ARGV[3]))
end

local since = born(KEYS[3], ARGV[5], at)
remember(KEYS[2], math.max(token, last), at, ttl, retention)
local label = held and held.label or ARGV[6]
redis.call('SET', KEYS[1], '1|' .. ARGV[1] .. '|' .. text(token) .. '|' .. label, 'PX', text(ttl))
return { 1, text(token), since, text(at) }
