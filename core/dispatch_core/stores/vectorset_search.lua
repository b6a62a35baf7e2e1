-- The nearest fresh entries of one scope, with all they carry, in one round trip.
-- KEYS: vector set of the scope
-- ARGV: vector, limit, now in Unix seconds, what the keys of entries begin with, scope, effort
-- Returns id, (1 + cosine) / 2, fields and values in turn; and again; best first.
local set, vector, limit, now = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local entries, scope, effort = ARGV[4], ARGV[5], tonumber(ARGV[6])
local SMALL = 1000

local function field(row, name)
  for i = 1, #row, 2 do
    if row[i] == name then
      return row[i + 1]
    end
  end
end

local found, seen, want = {}, {}, limit
while true do
  -- A graph may lose some of very many: then, and where a scan costs no more, all are looked at.
  local size = redis.call('VCARD', set)
  local how = (size <= SMALL or want * 4 >= size) and {'TRUTH'} or {'EF', math.max(effort, want)}
  local near = redis.call('VSIM', set, 'FP32', vector, 'WITHSCORES', 'COUNT', want, unpack(how))
  for i = 1, #near, 2 do
    local id = near[i]
    if not seen[id] then
      seen[id] = true
      local row = redis.call('HGETALL', entries .. id)
      local ends = field(row, 'expires')
      if field(row, 'scope') ~= scope then
        -- Expired, evicted, or rewritten elsewhere after that. A replica or a server's rule may forbid to mend it.
        redis.pcall('VREM', set, id)
      elseif #found < 3 * limit and (ends == '' or tonumber(ends) > now) then
        found[#found + 1], found[#found + 2], found[#found + 3] = id, near[i + 1], row
      end
    end
  end
  if #found >= 3 * limit or #near < 2 * want then
    return found
  end
  want = want * 2
end
