-- Change one entry in one step; the index follows by itself.
-- KEYS: entry, set of the lengths that vectors have
-- ARGV: operation, entry id, and by operation
--   put     expiry in Unix milliseconds (0 = never), length of the vector ('' = none), 1 to take any length,
--           then field, value, ... of the entry
--   touch   expiry in Unix milliseconds (0 = never), the same as the entry's field, now in Unix seconds
--   del     nothing, or the namespace and the tags without which the entry is to stay
-- Returns of put, other lengths that must be ruled out first, if any; of del, how many entries it removed.
local op = ARGV[1]
local entry = KEYS[1]

-- What the index understands: a number, later than all others for never.
local function ends_at(expires)
  return expires == '' and '1e15' or expires
end

local function expire(ends)
  if tonumber(ends) > 0 then
    redis.call('PEXPIREAT', entry, ends)
  else
    redis.call('PERSIST', entry)
  end
end

if op == 'put' then
  local length, given = ARGV[4], {}
  if length ~= '' then
    if ARGV[5] == '' then
      local others = {}
      for _, other in ipairs(redis.call('SMEMBERS', KEYS[2])) do
        if other ~= length then
          others[#others + 1] = other
        end
      end
      if #others > 0 then
        return others
      end
    end
    redis.call('SADD', KEYS[2], length)
  end
  for i = 6, #ARGV, 2 do
    given[ARGV[i]] = ARGV[i + 1]
  end
  local before = redis.call('HKEYS', entry)
  -- First of all writes to the entry, because a server that is full refuses it.
  redis.call('HSET', entry, 'ends', ends_at(given['expires']), unpack(ARGV, 6))
  for _, field in ipairs(before) do
    if field ~= 'ends' and not given[field] then
      redis.call('HDEL', entry, field)
    end
  end
  expire(ARGV[3])
  return {}
end

local there = redis.call('HMGET', entry, 'expires', 'namespace', 'tags')
if not there[1] then
  return 0
end
if op == 'touch' then
  if there[1] ~= '' and tonumber(there[1]) <= tonumber(ARGV[5]) then
    return 0
  end
  redis.call('HSET', entry, 'expires', ARGV[4], 'ends', ends_at(ARGV[4]))
  expire(ARGV[3])
  return 0
end
if ARGV[3] and (there[2] ~= ARGV[3] or (there[3] or '') ~= ARGV[4]) then
  return 0
end
return redis.call('DEL', entry)
