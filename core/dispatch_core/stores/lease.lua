-- Take or renew a lease, or give it back.
-- KEYS: lease
-- ARGV: owner, milliseconds (0 = give it back)
-- Returns 1 if the owner now holds it (or has given it back), 0 if it is not the owner's.
local owner = redis.call('GET', KEYS[1])
local free = not owner and tonumber(ARGV[2]) > 0
if not free and owner ~= ARGV[1] then
  return 0
end
if tonumber(ARGV[2]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
else
  redis.call('DEL', KEYS[1])
end
return 1
