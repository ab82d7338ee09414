-- Shows the lease that stands on a key (law L10).
--
-- KEYS  1 record
--
-- {holder, token, ms left, label}   a lease stands
-- nil                               none
-- FOREIGN                           another record is under this key

local v = redis.call('GET', KEYS[1])
if not v then return false end
-- @foreign
if foreign(v) then return redis.error_reply('FOREIGN record') end
if #v == 16 then return false end
local pttl = redis.call('PTTL', KEYS[1])
-- A record that never ends is not ours: nobody could wait for it.
if pttl < 0 then return redis.error_reply('FOREIGN record') end
local left = pttl - string.sub(v, 53, 65)
if left <= 0 then return false end
local label = string.sub(v, 71 + 64 * string.sub(v, 67, 69))
return { string.sub(v, 3, 34), string.sub(v, 36, 51), left, label }
