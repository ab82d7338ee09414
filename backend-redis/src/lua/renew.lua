-- Extends the holder's lease, never shortens it, and raises its token (laws L3, L4, L9).
--
-- KEYS  1 record
-- ARGV  1 `2|HOLDER`, 2 ttl in ms, 3 ms for which the token is kept, 13 digits, 4 least token, 16
--       digits or ''
--
-- token     renewed
-- nil       no lease of this holder stands; nothing was changed
-- FOREIGN   another record is under the key; nothing was changed

local v = redis.call('GET', KEYS[1])
if not v then return false end
-- @foreign
if string.sub(v, 1, 34) ~= ARGV[1] then
  return foreign(v) and redis.error_reply('FOREIGN record')
end
local token, kept = string.sub(v, 36, 51), string.sub(v, 53, 65)
local left = redis.call('PTTL', KEYS[1]) - kept
-- L4: an expired lease is never revived.
if left <= 0 then return false end
-- L3: the later of its end and now + ttl.
if ARGV[2] - left > 0 then left = ARGV[2] end
if ARGV[4] > token then
  local t = redis.call('TIME')
  local ahead = math.ceil((ARGV[4] - t[1] * 1000000 - t[2]) / 1000)
  kept = string.format('%013.0f', math.max(kept, ARGV[3] + math.max(ahead, 0)))
  redis.call('PSETEX', KEYS[1], string.format('%.0f', left + kept),
    ARGV[1] .. '|' .. ARGV[4] .. '|' .. kept .. string.sub(v, 66))
  return ARGV[4]
end
-- PEXPIRE works on a full server too.
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', left + kept))
return token
