-- The first bytes of many strings in one reply.
-- KEYS: strings (all in one hash slot)
-- ARGV: how many bytes of each
local heads = {}
for place, key in ipairs(KEYS) do
  heads[place] = redis.call('GETRANGE', key, 0, ARGV[1] - 1)
end
return heads
