-- Change one entry and its element in the vector set of its scope, in one step.
-- KEYS: entry
-- ARGV: operation, entry id, what the keys of entries and of sets begin with, and by operation
--   put     scope, expiry in Unix milliseconds (0 = never), vector ('' = none), then field, value, ... of the entry
--   touch   expiry in Unix milliseconds (0 = never), the same as the entry's field, now in Unix seconds
--   del     nothing, or the namespace and the tags without which the entry is to stay
-- Returns of del, how many entries it removed; of put, the server's error for a vector of another length.
-- Candidates kept while the graph is built: the server's default of 200 costs a third more and finds no more.
local EFFORT = 100
local op, id, entries, sets = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local entry = KEYS[1]

-- A key ends with the last of what it holds: a scope that nobody asks for again leaves nothing behind.
local function lasts(key, age, ends)
  if tonumber(ends) == 0 then
    redis.call('PERSIST', key)
  elseif age == -2 then
    redis.call('PEXPIREAT', key, ends)
  elseif age >= 0 then
    redis.call('PEXPIREAT', key, ends, 'GT')
  end
end

local function gone(scope, other)
  return redis.call('HGET', entries .. other, 'scope') ~= scope
end

-- Add the vector. Elements whose entries are gone do not decide how long a vector may be.
local function add(set, scope, vector)
  local added = redis.pcall('VADD', set, 'FP32', vector, id, 'NOQUANT', 'EF', EFFORT)
  if type(added) ~= 'table' or not added.err or not string.find(added.err, 'dimension mismatch') then
    return added
  end
  for _, other in ipairs(redis.call('VRANDMEMBER', set, redis.call('VCARD', set))) do
    if not gone(scope, other) then
      return added
    end
    redis.call('VREM', set, other)
  end
  return redis.pcall('VADD', set, 'FP32', vector, id, 'NOQUANT', 'EF', EFFORT)
end

if op == 'put' then
  local scope, ends, vector = ARGV[5], ARGV[6], ARGV[7]
  local set = sets .. scope
  local before = redis.call('HGET', entry, 'scope')
  if vector ~= '' then
    local age = redis.call('PTTL', set)
    local added = add(set, scope, vector)
    if type(added) == 'table' and added.err then
      return added
    end
    lasts(set, age, ends)
  end
  -- All fields are written every time: nothing of an earlier entry stays.
  redis.call('HSET', entry, unpack(ARGV, 8))
  if tonumber(ends) > 0 then
    redis.call('PEXPIREAT', entry, ends)
  else
    redis.call('PERSIST', entry)
  end
  if vector == '' then
    redis.call('VREM', set, id)
  end
  if before and before ~= scope then
    redis.call('VREM', sets .. before, id)
  end
  if vector ~= '' then
    -- The server expires and evicts entries without a word: with three looks a put, at most a third are such.
    for _, other in ipairs(redis.call('VRANDMEMBER', set, 3)) do
      if gone(scope, other) then
        redis.call('VREM', set, other)
      end
    end
  end
  return 0
end

local there = redis.call('HMGET', entry, 'scope', 'expires', 'namespace', 'tags')
if not there[1] then
  return 0
end
if op == 'touch' then
  if there[2] ~= '' and tonumber(there[2]) <= tonumber(ARGV[7]) then
    return 0
  end
  redis.call('HSET', entry, 'expires', ARGV[6])
  if tonumber(ARGV[5]) > 0 then
    redis.call('PEXPIREAT', entry, ARGV[5])
  else
    redis.call('PERSIST', entry)
  end
  local set = sets .. there[1]
  lasts(set, redis.call('PTTL', set), ARGV[5])
  return 0
end
if ARGV[5] and (there[3] ~= ARGV[5] or (there[4] or '') ~= ARGV[6]) then
  return 0
end
redis.call('VREM', sets .. there[1], id)
return redis.call('DEL', entry)
