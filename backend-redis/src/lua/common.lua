-- What the scripts share; put in front of each of them. Lua computes in doubles, which are exact
-- up to 2^53: tokens travel as text, and a number too large to have a successor is no token.

local LARGEST = 9007199254740990

local function text(number)
  return string.format('%.0f', number)
end

local function number(digits)
  if not digits or #digits > 16 or not string.find(digits, '^%d+$') then return nil end
  local value = tonumber(digits)
  if value > LARGEST then return nil end
  return value
end

-- The text under a key, or nil; then true if something other than text is there.
local function get(key)
  local value = redis.pcall('GET', key)
  if type(value) ~= 'table' then return value or nil, false end
  if string.find(value.err, 'WRONGTYPE', 1, true) then return nil, true end
  -- Refused for another reason: ask again in the way that ends the script with that reason.
  return redis.call('GET', key), false
end

-- The lease under a key, or nil; then true if what is there is not a lease of ours. A record that
-- never ends is not ours either: nobody could wait for it.
local function lease(key)
  local value, foreign = get(key)
  if foreign or not value then return nil, foreign end
  local holder, digits, label = string.match(value, '^1|([0-9a-f]+)|(%d+)|(.*)$')
  local token = number(digits)
  local left = redis.call('PTTL', key)
  if not token or #holder ~= 32 or left == -1 then return nil, true end
  return { holder = holder, token = token, label = label, left = left }, false
end

-- The last token of a key, 0 if none is known; then true if what is there is not a counter.
local function counter(key)
  local value, foreign = get(key)
  if foreign or not value then return 0, foreign end
  local last = number(value)
  return last or 0, not last
end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The born record, written with a new id where there is none, as the first of all writes. '' where
-- it is left out or something else is in its place.
local function born(key, id, at)
  if not key then return '' end
  local value, foreign = get(key)
  if value then return value end
  if foreign then return '' end
  local fresh = id .. '|' .. text(at)
  redis.call('SET', key, fresh)
  return fresh
end

-- Keeps a token until the lease has ended, the clock has passed it, and the retention is over.
local function remember(key, token, at, ttl, retention)
  local ahead = math.max(0, math.ceil((token - at) / 1000))
  redis.call('SET', key, text(token), 'PX', text(ttl + ahead + retention))
end
