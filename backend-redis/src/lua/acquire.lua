-- Grants a lease if the key is free, or again if it is the holder's (laws L1, L2, L3, L5, L9), and
-- keeps a place in the line for a holder that waits (laws W1 to W4, W7).
--
-- KEYS  1 record
-- ARGV  1 `2|HOLDER`, 2 ttl in ms, 3 ms for which the token is kept, 13 digits, 4 the two together,
--       5 label, 6 least token, 16 digits or '', 7 ms to wait, 8 channel and kind of the place
--       (7 and 8 are left out by a holder that does not wait)
--
-- token           granted
-- {ms}            contended, and the ms after which to look again
-- {ms, ahead}     contended, with a place and so many ahead of it
-- FOREIGN         another record is under the key; nothing was changed

local v = redis.call('GET', KEYS[1])
local t = redis.call('TIME')
-- Tokens and times are texts of a fixed length: Lua rounds above 2^53, and texts compare as well.
local now = t[1] .. t[2]
if #now ~= 16 then now = string.format('%010.0f%06.0f', t[1], t[2]) end
local token, keep, expiry, line = now, ARGV[3], ARGV[4], ''
if v then
  -- @foreign
  if foreign(v) then return redis.error_reply('FOREIGN record') end
  local last = v
  if #v ~= 16 then
    last = string.sub(v, 36, 51)
    local kept, pttl = string.sub(v, 53, 65), redis.call('PTTL', KEYS[1])
    -- A record that never ends is not ours: nobody could wait for it.
    if pttl < 0 then return redis.error_reply('FOREIGN record') end
    -- The lease ends as long before the record as the token is kept for.
    local left = pttl - kept
    if left > 0 and string.sub(v, 1, 34) == ARGV[1] then
      -- L3: asking again shortens nothing. PEXPIRE works on a full server too.
      if ARGV[2] - left > 0 then
        redis.call('PEXPIRE', KEYS[1], string.format('%.0f', ARGV[2] + kept))
      end
      return last
    end
    local size = 64 * string.sub(v, 67, 69)
    if left > 0 or size > 0 then
      -- @line
      local holder = string.sub(ARGV[1], 3)
      line = string.sub(v, 71, 70 + size)
      local at = string.find(line, holder, 1, true)
      -- W2: a holder that was passed over and asks again is there after all.
      if at and ARGV[7] then line = string.sub(line, 1, at + 62) .. '-' .. string.sub(line, at + 64) end
      local passed, first, ends = front(line)
      if left > 0 or (first and first ~= at) then
        local ahead
        if ARGV[7] then
          line, ahead = join(line, holder, ARGV[7], ARGV[8], 256)
        else
          -- W7: contended without waiting leaves nothing. It was not the first of a free key.
          line = without(line, holder)
        end
        local value = record(string.sub(v, 1, 65), line, string.sub(v, 71 + size))
        if value ~= v then
          local refused = redis.pcall('SET', KEYS[1], value, 'KEEPTTL')
          -- A full server refuses a place, and the answer is still that the key is taken.
          if refused.err then
            if not string.find(refused.err, 'OOM', 1, true) then return refused end
            ahead = nil
          end
        end
        -- A record outlives its line, also one whose lease has ended.
        if ahead and ARGV[7] - pttl > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[7]) end
        return { left > 0 and left or ends, ahead }
      end
      -- W4: a grant takes the place away.
      line = without(passed .. (first and string.sub(line, first) or ''), holder)
    end
  end
  if last >= token then token = string.format('%016.0f', last + 1) end
end
-- L9: exactly the least token claimed, if that is the greatest.
if ARGV[6] > token then token = ARGV[6] end
if token > now then
  -- A token ahead of the clock is kept until the clock has passed it.
  keep = string.format('%013.0f', keep + math.ceil((token - now) / 1000))
  expiry = string.format('%.0f', ARGV[2] + keep)
end
local count = line == '' and '|000|' or string.format('|%03.0f|', #line / 64)
redis.call('PSETEX', KEYS[1], expiry, ARGV[1] .. '|' .. token .. '|' .. keep .. count .. line .. ARGV[5])
return token
