-- Change one entry and tell every mirror, in one step.
-- KEYS: entry, sequence, journal (all in one hash slot)
-- ARGV: operation, entry id, kept journal length, a name that no other change has, and by operation
--   put     expiry in Unix milliseconds (0 = never), then the entry's row
--   touch   expiry in Unix milliseconds (0 = never), as the row holds it, as the journal tells it, now in Unix seconds
--   del     nothing, or where in the row its namespace and tags begin, and the bytes there without which it is to stay
-- The sequence is the number and the name of the last change. A line of the journal names the change before it: a
-- server that came back with older data may use a number again, but never a name.
-- Returns the sequence as it was before; nothing of a touch that changed nothing; of del, how many entries it removed.
local op, id, name = ARGV[1], ARGV[2], ARGV[4]
local before = redis.call('GET', KEYS[2]) or ''
local n, last = string.match(before, '^(%d+) ?(.*)$')
n = (tonumber(n) or 0) + 1
local line = {'op', op, 'id', id, 'by', name, 'after', last or ''}
local reply = before

-- A server that is full refuses the first write. Once one has passed, it lets all others pass.
if op == 'put' then
  redis.call('SET', KEYS[1], ARGV[6])
  if tonumber(ARGV[5]) > 0 then
    redis.call('PEXPIREAT', KEYS[1], ARGV[5])
  end
elseif op == 'touch' then
  -- The version, and when the life ends: not a number is never.
  local head = redis.call('GETRANGE', KEYS[1], 0, 9)
  if #head < 10 or head:sub(1, 2) ~= 'D1' or struct.unpack('<d', head, 3) <= tonumber(ARGV[8]) then
    return false
  end
  redis.call('SETRANGE', KEYS[1], 2, ARGV[6])
  if tonumber(ARGV[5]) > 0 then
    redis.call('PEXPIREAT', KEYS[1], ARGV[5])
  else
    redis.call('PERSIST', KEYS[1])
  end
  line[9], line[10] = 'expires', ARGV[7]
else
  if ARGV[5] and redis.call('GETRANGE', KEYS[1], ARGV[5], ARGV[5] + #ARGV[6] - 1) ~= ARGV[6] then
    return 0
  end
  reply = redis.call('DEL', KEYS[1])
end

redis.call('SET', KEYS[2], n .. ' ' .. name)
local added = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[3], n .. '-0', unpack(line))
if type(added) == 'table' and added.err then
  -- The server evicted the sequence but kept the journal: its lines are of another time.
  redis.call('DEL', KEYS[3])
  redis.call('XADD', KEYS[3], n .. '-0', unpack(line))
end
return reply
