-- The line of a key, put into the scripts that need it where they say `@line`. `now` is the
-- server's time.
--
-- A place has 64 bytes: `HOLDER|END|CHANNEL` and its kind. END is the server's time in ms at which
-- it ends. The kinds: `p` listens on CHANNEL; `-` polls; `x` listened, and was gone when it was
-- signalled, so it is passed over.

local clock = tonumber(string.sub(now, 1, 13))

-- W1: a place past its end is gone. So is one that ends later than any claim may ask for: the
-- clock was set back, and nobody may be kept out for so long.
local function stands(line, at)
  local left = string.sub(line, at + 33, at + 45) - clock
  return left > 0 and left <= 60001 and left
end

-- W3: the place to which alone a free key goes, and what is left of it; before them, the places
-- ahead of it that were passed over.
local function front(line)
  local passed = ''
  for at = 1, #line, 64 do
    local left = stands(line, at)
    if left and string.sub(line, at + 63, at + 63) ~= 'x' then return passed, at, left end
    if left then passed = passed .. string.sub(line, at, at + 63) end
  end
  return passed
end

-- The line without a holder.
local function without(line, holder)
  local at = string.find(line, holder, 1, true)
  return at and string.sub(line, 1, at - 1) .. string.sub(line, at + 64) or line
end

-- The line with a place of a holder for `wait` ms or longer, and how many are ahead of it. A line
-- that has `most` of them stays as it is.
local function join(line, holder, wait, channel, most)
  local ends, all = string.format('%013.0f', clock + wait), {}
  for at = 1, #line, 64 do
    if stands(line, at) then all[#all + 1] = string.sub(line, at, at + 63) end
  end
  line = table.concat(all)
  local at = string.find(line, holder, 1, true)
  if not at then
    if #all >= most then return line end
    return line .. holder .. '|' .. ends .. '|' .. channel, #all
  end
  -- W2: asking again keeps the position, and shortens nothing.
  local before = string.sub(line, at + 33, at + 45)
  if before > ends then ends = before end
  line = string.sub(line, 1, at + 32) .. ends .. '|' .. channel .. string.sub(line, at + 64)
  return line, (at - 1) / 64
end

-- W6: signals the first in line alone. W8: those who are gone are passed over, and keep their
-- position. Where PUBLISH is refused nobody is taken for gone: they look by themselves.
local function signal(line)
  local before = {}
  for at = 1, #line, 64 do
    if stands(line, at) then
      local place = string.sub(line, at, at + 63)
      local kind = string.sub(place, 64)
      if kind == '-' then return table.concat(before) .. string.sub(line, at) end
      if kind == 'p' then
        local channel = string.match(KEYS[1], '^[^{]*') .. 'line:' .. string.sub(place, 48, 63)
        if redis.pcall('PUBLISH', channel, string.sub(place, 1, 32)) ~= 0 then
          return table.concat(before) .. string.sub(line, at)
        end
        place = string.sub(place, 1, 63) .. 'x'
      end
      before[#before + 1] = place
    end
  end
  return table.concat(before)
end

-- A record's value from its parts: up to KEEP, line, label.
local function record(head, line, label)
  return head .. string.format('|%03.0f|', #line / 64) .. line .. label
end
