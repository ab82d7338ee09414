-- Hands a lease over to another holder with a greater token, or ends it in favour of the line
-- (law W9).
--
-- KEYS  1 record
-- ARGV  1 `2|FROM`, 2 `2|TO`, 3 ttl in ms, 4 ms for which the token is kept, 13 digits, 5 the two
--       together, 6 label, 7 least token, 16 digits or '', 8 `1`: others in line go first, 9 ms to
--       wait, 10 channel and kind of the place (9 and 10 are left out by a holder that does not
--       wait)
--
-- token           granted
-- {ms}            yielded to the line, and the ms after which to look again
-- {ms, ahead}     yielded, and `to` has a place, with so many ahead of it
-- nil             no lease of `from` stands; nothing was changed
-- FOREIGN         another record is under the key; nothing was changed

local v = redis.call('GET', KEYS[1])
if not v then return false end
local holder = string.sub(v, 1, 34)
-- @foreign
if holder ~= ARGV[1] and holder ~= ARGV[2] then
  return foreign(v) and redis.error_reply('FOREIGN record')
end
local last, kept = string.sub(v, 36, 51), string.sub(v, 53, 65)
local left = redis.call('PTTL', KEYS[1]) - kept
if left <= 0 then return false end
if holder == ARGV[2] then
  -- Repeated: granted again (L2, L3).
  if ARGV[3] - left > 0 then
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[3] + kept))
  end
  return last
end
local t = redis.call('TIME')
local now = t[1] .. t[2]
if #now ~= 16 then now = string.format('%010.0f%06.0f', t[1], t[2]) end
local line, size = '', 64 * string.sub(v, 67, 69)
if size > 0 then
  -- @line
  line = string.sub(v, 71, 70 + size)
  local to = string.sub(ARGV[2], 3)
  local _, first = front(line)
  -- Those who are passed over have no turn to wait for.
  local others = first and string.sub(line, first, first + 31) ~= to
  if ARGV[8] == '1' and others then
    -- A full server lets a script go on that has written.
    kept = string.format('%.0f', kept)
    redis.call('PEXPIRE', KEYS[1], kept)
    -- W7: not waiting leaves nothing.
    if not ARGV[9] then line = without(line, to) end
    line = signal(line)
    local ahead
    -- A full line takes it all the same: it gives up the key.
    if ARGV[9] then line, ahead = join(line, to, ARGV[9], ARGV[10], 999) end
    -- An ended lease is nobody's, also if the clock is set back.
    local head = '2|' .. string.rep('0', 32) .. string.sub(v, 35, 65)
    redis.call('SET', KEYS[1], record(head, line, ''), 'PX', kept)
    local _, _, ends = front(line)
    return { ends or 0, ahead }
  end
  -- W4: a grant takes the place away.
  line = without(line, to)
end
local token, keep, expiry = now, ARGV[4], ARGV[5]
if last >= token then token = string.format('%016.0f', last + 1) end
if ARGV[7] > token then token = ARGV[7] end
if token > now then
  -- A token ahead of the clock is kept until the clock has passed it.
  keep = string.format('%013.0f', keep + math.ceil((token - now) / 1000))
  expiry = string.format('%.0f', ARGV[3] + keep)
end
local count = line == '' and '|000|' or string.format('|%03.0f|', #line / 64)
redis.call('PSETEX', KEYS[1], expiry, ARGV[2] .. '|' .. token .. '|' .. keep .. count .. line .. ARGV[6])
return token
