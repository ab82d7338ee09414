-- Extends many leases, each as renew.lua does.
--
-- KEYS  the records
-- ARGV  for each of them `2|HOLDER`, then for each the ttl in ms, then for each the least token, 16
--       digits or '', then ms for which the token is kept, 13 digits
--
-- For each of them: its token, 0 where no lease of the holder stands, -1 where another record is,
-- -2 where the server is too full to raise the token, and nothing was changed.

-- @foreign
local n, answers = #KEYS, {}
for i = 1, n do
  local v = redis.pcall('GET', KEYS[i])
  answers[i] = 0
  if type(v) == 'table' then
    answers[i] = -1
  elseif v and string.sub(v, 1, 34) == ARGV[i] then
    local kept = string.sub(v, 53, 65)
    local left = redis.call('PTTL', KEYS[i]) - kept
    if left > 0 then
      local token, least = string.sub(v, 36, 51), ARGV[2 * n + i]
      local longer = ARGV[n + i] - left > 0
      if longer then left = ARGV[n + i] end
      if least > token then
        local t = redis.call('TIME')
        local ahead = math.ceil((least - t[1] * 1000000 - t[2]) / 1000)
        kept = string.format('%013.0f', math.max(kept, ARGV[3 * n + 1] + math.max(ahead, 0)))
        local set = redis.pcall('PSETEX', KEYS[i], string.format('%.0f', left + kept),
          ARGV[i] .. '|' .. least .. '|' .. kept .. string.sub(v, 66))
        token = set.err and -2 or least
      elseif longer then
        redis.call('PEXPIRE', KEYS[i], string.format('%.0f', left + kept))
      end
      answers[i] = token
    end
  elseif v and foreign(v) then
    answers[i] = -1
  end
end
return answers
