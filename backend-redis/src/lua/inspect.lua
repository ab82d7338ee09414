-- Shows the lease that stands on a key (law L10).
--
-- KEYS  1 lease
--
-- {1, holder, token, ms left, label}   a lease stands
-- {0}                                  none
-- {2, key}                             a foreign value is under this key

local held, foreign = lease(KEYS[1])
if foreign then return { 2, KEYS[1] } end
if not held then return { 0 } end
return { 1, held.holder, text(held.token), held.left, held.label }
