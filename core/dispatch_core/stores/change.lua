-- Write or delete one entry and tell every mirror, in one step.
-- KEYS: entry, sequence, journal, epoch (all in one hash slot)
-- ARGV: "put" or "del", entry id, kept journal length, a fresh epoch name,
--       expiry in Unix milliseconds (0 = never), then field, value, ... of the entry
redis.call('DEL', KEYS[1])
if ARGV[1] == 'put' then
  redis.call('HSET', KEYS[1], unpack(ARGV, 6))
  if tonumber(ARGV[5]) > 0 then
    redis.call('PEXPIREAT', KEYS[1], ARGV[5])
  end
end
redis.call('SET', KEYS[4], ARGV[4], 'NX')
local n = redis.call('INCR', KEYS[2])
local added = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], n .. '-0', 'op', ARGV[1], 'id', ARGV[2])
if type(added) == 'table' and added.err then
  -- The server evicted the sequence but kept the journal: begin a new epoch, so that every mirror loads anew.
  redis.call('DEL', KEYS[3])
  redis.call('SET', KEYS[4], ARGV[4])
  redis.call('XADD', KEYS[3], n .. '-0', 'op', ARGV[1], 'id', ARGV[2])
end
return n
