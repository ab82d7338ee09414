-- Whether a value is not a record of ours, put into the scripts where they say `@foreign`.
local function foreign(v)
  if #v == 16 then return string.find(v, '%D') or v > '9007199254740990' end
  return not string.find(v, '^2|%x+|%d+|%d+|%d%d%d|') or string.byte(v, 35) ~= 124
    or string.byte(v, 52) ~= 124 or string.byte(v, 66) ~= 124
    or string.sub(v, 36, 51) > '9007199254740990' or #v < 70 + 64 * string.sub(v, 67, 69)
end
