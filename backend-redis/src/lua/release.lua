-- Ends the holder's lease, or its place in the line, and signals the first in line (laws L4, L6,
-- W6, W8).
--
-- KEYS  1 record
-- ARGV  1 `2|HOLDER`, 2 ms for which the token is kept, 13 digits, 3 the same as a number, 4 `1`:
--       the release is announced to those that watch the key without a place, or ''
--
-- token     released
-- nil       no lease of this holder stands; if it had a place, that is gone
-- FOREIGN   another record is under the key; nothing was changed

local v = redis.call('GET', KEYS[1])
if not v then return false end
local mine, pttl, kept = string.sub(v, 1, 34) == ARGV[1], nil, string.sub(v, 53, 65)
if mine then
  pttl = redis.call('PTTL', KEYS[1])
  mine = pttl - kept > 0
  if mine and string.sub(v, 67, 69) == '000' then
    -- Nobody waits: the token is all that is kept, and a token alone is small. A full server does
    -- not take even that, but lets the lease end.
    local token = string.sub(v, 36, 51)
    if kept == ARGV[2] then kept = ARGV[3] else kept = string.format('%.0f', kept) end
    if redis.pcall('PSETEX', KEYS[1], kept, token).err then redis.call('PEXPIRE', KEYS[1], kept) end
    if ARGV[4] ~= '' then redis.pcall('PUBLISH', KEYS[1] .. ':released', token) end
    return token
  end
end
-- @foreign
if foreign(v) then return redis.error_reply('FOREIGN record') end
local at = string.find(v, string.sub(ARGV[1], 3), 71, true)
if not mine and (not at or #v == 16) then return false end
pttl = pttl or redis.call('PTTL', KEYS[1])
-- A record that never ends is not ours: nobody could wait for it.
if pttl < 0 then return redis.error_reply('FOREIGN record') end
local t = redis.call('TIME')
local now = t[1] .. t[2]
if #now ~= 16 then now = string.format('%010.0f%06.0f', t[1], t[2]) end
-- @line
local size = 64 * string.sub(v, 67, 69)
local line = string.sub(v, 71, 70 + size)
-- A full server lets a script go on that has written, and nothing below takes more room.
if mine then
  -- An ended lease is nobody's, also if the clock is set back.
  local head = '2|' .. string.rep('0', 32) .. string.sub(v, 35, 65)
  kept = string.format('%.0f', kept)
  redis.call('PEXPIRE', KEYS[1], kept)
  redis.call('SET', KEYS[1], record(head, signal(line), ''), 'PX', kept)
  local token = string.sub(v, 36, 51)
  if ARGV[4] ~= '' then redis.pcall('PUBLISH', KEYS[1] .. ':released', token) end
  return token
end
local _, first = front(line)
-- Not 0, which would delete the record.
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(pttl, 1)))
line = without(line, string.sub(ARGV[1], 3))
if pttl - kept <= 0 and first == at - 70 then line = signal(line) end
redis.call('SET', KEYS[1], record(string.sub(v, 1, 65), line, string.sub(v, 71 + size)), 'KEEPTTL')
return false
