-- Tells for how long the server is known to have kept all its data.
--
-- KEYS  1 incarnation record: `2|ID|TIME|RUN`, with the server's run id
-- ARGV  1 a new id
--
-- {id, since, now, run}   times in microseconds; run is '' where INFO is refused
-- nil                     never known: a cluster, or another record is under the key

local info = redis.pcall('INFO', 'server')
local run = ''
if type(info) ~= 'table' then
  -- The records of a cluster are on many servers. Valkey says `server_mode`.
  if string.find(info, '_mode:cluster', 1, true) then return false end
  run = string.match(info, 'run_id:(%x+)') or ''
end
local v = redis.call('GET', KEYS[1])
local t = redis.call('TIME')
local now = string.format('%010.0f%06.0f', t[1], t[2])
local id, since, ran
if v then
  id, since, ran = string.match(v, '^2|(%x+)|(%d+)|(%x*)$')
  if not id or #id ~= 32 or #since ~= 16 then return false end
end
-- Another server has this record by replication, or the same one read it back from disk when it
-- started: what was written last may be missing.
if not v or (run ~= '' and run ~= ran) then
  id, since = ARGV[1], now
  redis.call('SET', KEYS[1], '2|' .. id .. '|' .. now .. '|' .. run)
end
return { id, since, now, run }
