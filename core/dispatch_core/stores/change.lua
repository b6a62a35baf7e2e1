-- Change one entry and tell every mirror, in one step.
-- KEYS: entry, sequence, journal, epoch (all in one hash slot)
-- ARGV: operation, entry id, kept journal length, a name that nothing else has (of the change, or of a new epoch), and
-- by operation
--   put     expiry in Unix milliseconds (0 = never), then the entry's row
--   touch   expiry in Unix milliseconds (0 = never), as the row holds it, as the journal tells it, now in Unix seconds
--   del     nothing, or where in the row its namespace and tags begin, and the bytes there without which it is to stay
-- Returns the number of the change in the journal; of del, how many entries it removed.
local op, id = ARGV[1], ARGV[2]
local line = {'op', op, 'id', id}
local removed = 0

if op == 'put' then
  -- First of all writes, because a server that is full refuses it. Once one write has passed, it lets all others pass.
  redis.call('SET', KEYS[4], ARGV[4], 'NX')
  redis.call('SET', KEYS[1], ARGV[6])
  if tonumber(ARGV[5]) > 0 then
    redis.call('PEXPIREAT', KEYS[1], ARGV[5])
  end
  line[5], line[6] = 'by', ARGV[4]
elseif op == 'touch' then
  -- The version, and when the life ends: not a number is never.
  local head = redis.call('GETRANGE', KEYS[1], 0, 9)
  if #head < 10 or head:sub(1, 2) ~= 'D1' or struct.unpack('<d', head, 3) <= tonumber(ARGV[8]) then
    return 0
  end
  redis.call('SETRANGE', KEYS[1], 2, ARGV[6])
  if tonumber(ARGV[5]) > 0 then
    redis.call('PEXPIREAT', KEYS[1], ARGV[5])
  else
    redis.call('PERSIST', KEYS[1])
  end
  line[5], line[6] = 'expires', ARGV[7]
else
  if ARGV[5] and redis.call('GETRANGE', KEYS[1], ARGV[5], ARGV[5] + #ARGV[6] - 1) ~= ARGV[6] then
    return 0
  end
  removed = redis.call('DEL', KEYS[1])
end

redis.call('SET', KEYS[4], ARGV[4], 'NX')
local n = redis.call('INCR', KEYS[2])
local added = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], n .. '-0', unpack(line))
if type(added) == 'table' and added.err then
  -- The server evicted the sequence but kept the journal: begin a new epoch, so that every mirror loads anew.
  redis.call('DEL', KEYS[3])
  redis.call('SET', KEYS[4], ARGV[4])
  redis.call('XADD', KEYS[3], n .. '-0', unpack(line))
end
return op == 'del' and removed or n
