-- One quota for many processes: the arithmetic of window.py, bucket.py, slots.py, day.py and quota.py, in one step.
-- KEYS: state (a hash); then, where slots or processes are concerned: processes (a zset: id -> last seen), slots (a
--       zset: lease -> expiry). All lie in one hash slot.
-- ARGV: operation, time in seconds ('' = the server's clock), then
--   reserve: process id ('' = no beat), plans, (horizon, n amounts), leases to renew ...
--   restore: '', plans, (age, n amounts) * charges
--   settle:  (n amounts) * leases, lease ...
--   gate:    (seconds, nonce)
--   renew:   (lease), leases ...
-- What stands in parentheses is a string of packed doubles: exact, and read at once. Plans are (lease, known, nonce,
-- n * (kind, capacity, rate, burst, span)); kinds are numbers.
-- Replies: reserve: the epoch and, packed, the number of the lease (0 = refused), wait, replicas, n marks. restore: a
-- list of leases. A lease is the epoch and a number.
-- The hash holds 's' (the epoch, then all about the gauges), a field per charge, named by its position in the log,
-- 'm<number>' (where a charge was moved to) and 'b<gauge>:<bin>' (the older bins of a day).
-- Times are seconds since the state's base: small numbers, so that doubles keep the nanoseconds.
local STATE, PROCESSES, SLOTS = KEYS[1], KEYS[2], KEYS[3]
local WINDOW, BUCKET, SLOT, DAY = 1, 2, 3, 4
local TINY, INF, BIN, A_DAY = 1e-9, math.huge, 300, 86400
-- Seconds: a clock set back by more than STEP is believed to go on; a process unseen for LATELY is gone; a key lives
-- SPARE longer than anything it holds and has its life renewed every RENEW.
local STEP, LATELY, SPARE, RENEW, HINT = 10, 60, 60, 30, 1
local EPOCH, BATCH = 24, 1000
-- The state is one flat array, because a script builds all its tables anew at every call: a header, then a part for
-- each gauge. `g` is always where the part of a gauge begins, `p` where its plan begins in P.
local BASE, SEEN, NOW, GATE, TAIL, FIRST, PURGE, TTL, REPLICAS, LONGEST, KEEP, MOVED, LEASE = 1, 2, 3, 4, 5, 6, 7, 8,
  9, 10, 11, 12, 13
local KIND, USED, LEVEL, HEAD, HEAD_AT, TOP, SPAN, LAST = 1, 2, 3, 4, 5, 6, 7, 8
local HEADER, GAUGE = 13, 8
local CAPACITY, RATE, BURST, LENGTH = 2, 3, 4, 5
local P_HEADER, PLAN = 3, 5
local max, min, floor, call = math.max, math.min, math.floor, redis.call

local function numbers(packed, from)
  local list = {struct.unpack('<' .. string.rep('d', (#packed - (from or 1) + 1) / 8), packed, from)}
  -- The last value is where the reading ended.
  list[#list] = nil
  return list
end

local function packed(list)
  return struct.pack('<' .. string.rep('d', #list), unpack(list))
end

local operation = ARGV[1]
local S, epoch, time, gauges
local P = {}
local writes, gone, log, chunk = {}, {}, {}, 4
local stored = call('HGET', STATE, 's')
if stored then
  epoch, S = string.sub(stored, 1, EPOCH), numbers(stored, EPOCH + 1)
  gauges = (#S - HEADER) / GAUGE
end

-- What most calls can do without is built only where it is needed: every function costs a call a fraction of a
-- microsecond, used or not.
local tools
local function tool(name)
  if tools then return tools[name] end
  local T = {}
  tools = T

  function T.begin(seconds, nonce)
    local now = call('TIME')
    epoch = string.format('%08x%05x%011x', now[1], now[2], nonce)
    S = {floor(seconds / BIN) * BIN, -INF, -INF, -INF, 1, 1, -INF, -INF, 1, 0, 0, 0, 0}
    gauges = 0
  end

  function T.fit(n)
    for i = 1, n do
      local p, g = P_HEADER + PLAN * (i - 1), HEADER + GAUGE * (i - 1)
      local kind = P[p + KIND]
      -- After a loss nobody may burst: what was spent before it is not known here.
      S[g + KIND], S[g + USED], S[g + LEVEL] = kind, 0, (kind <= BUCKET and P[2] == 0) and P[p + BURST] or 0
      S[g + HEAD], S[g + LAST] = S[TAIL], S[TAIL] - 1
      S[g + HEAD_AT] = kind == SLOT and INF or -INF
      if kind == SLOT then call('DEL', SLOTS) end
    end
    gauges = n
  end

  -- The log: an entry is {at, number of the lease, settled, amounts ...}; false where there is none any more.

  function T.entry(position)
    local e = log[position]
    if e == nil then
      local last, names = min(position + chunk, S[TAIL]) - 1, {}
      for p = position, last do names[#names + 1] = p end
      for j, raw in ipairs(call('HMGET', STATE, unpack(names))) do
        -- What this call has written is newer than what is stored.
        if log[position + j - 1] == nil then log[position + j - 1] = raw and numbers(raw) end
      end
      chunk = min(4 * chunk, 256)
      e = log[position]
    end
    return e
  end

  function T.write(position, e)
    log[position] = e
    writes[#writes + 1], writes[#writes + 2] = position, packed(e)
  end

  function T.drop(position, e)
    log[position] = false
    gone[#gone + 1] = position
    if e[2] ~= position then gone[#gone + 1] = 'm' .. e[2] end
  end

  -- The first position that a window still counts.
  function T.counted()
    local head = S[TAIL]
    for g = HEADER, #S - GAUGE, GAUGE do
      if S[g + KIND] == WINDOW and S[g + HEAD] < head then head = S[g + HEAD] end
    end
    return head
  end

  -- Charges that no window counts any more are kept only until they are settled, or given up.
  function T.forget(before)
    local head = T.counted()
    for p = before, head - 1 do
      local e = T.entry(p)
      if e and e[3] == 1 then T.drop(p, e) end
    end
    if S[NOW] < S[PURGE] then return end
    S[PURGE] = S[NOW] + S[KEEP] / 4
    while S[FIRST] < head do
      local e = T.entry(S[FIRST])
      if e and e[1] + S[KEEP] > S[NOW] then break end
      if e then T.drop(S[FIRST], e) end
      S[FIRST] = S[FIRST] + 1
    end
  end

  function T.expire_charges(i, g, oldest)
    local head, tail, at, used = S[g + HEAD], S[TAIL], S[g + HEAD_AT], S[g + USED]
    while head < tail and at <= oldest do
      local e = T.entry(head)
      if e then used = used - e[3 + i] end
      head = head + 1
      e = head < tail and T.entry(head)
      at = e and e[1] or -INF
    end
    -- Sums of floats drift; an empty window is exactly empty.
    if head >= tail then used = 0 end
    S[g + HEAD], S[g + HEAD_AT], S[g + USED] = head, at, used
  end

  function T.wait_for_charges(i, g, excess)
    local wait = 0
    for p = S[g + HEAD], S[TAIL] - 1 do
      local e = T.entry(p)
      if e then
        excess = excess - e[3 + i]
        wait = e[1] + S[g + SPAN] - S[NOW]
        if excess <= TINY then break end
      end
    end
    return max(0, wait)
  end

  -- A day: LEVEL is what the LAST bin holds, HEAD the oldest bin; older ones than the last are fields.

  local function bin(i, k)
    return 'b' .. i .. ':' .. k
  end

  function T.add_to_bin(i, g, k, amount)
    local head, last = S[g + HEAD], S[g + LAST]
    if last < head then
      S[g + HEAD], S[g + LAST], S[g + LEVEL] = k, k, amount
    elseif k > last then
      call('HSET', STATE, bin(i, last), string.format('%.17g', S[g + LEVEL]))
      S[g + LAST], S[g + LEVEL] = k, amount
    elseif k == last then
      S[g + LEVEL] = S[g + LEVEL] + amount
    else
      local held = tonumber(call('HGET', STATE, bin(i, k)) or 0)
      call('HSET', STATE, bin(i, k), string.format('%.17g', held + amount))
      S[g + HEAD] = min(head, k)
    end
    S[g + USED] = S[g + USED] + amount
  end

  -- Call visit(k, held) for every bin from the oldest on until it returns true.
  function T.each_bin(i, g, visit)
    local last = S[g + LAST]
    for from = S[g + HEAD], last - 1, 64 do
      local names = {}
      for k = from, min(from + 63, last - 1) do names[#names + 1] = bin(i, k) end
      for j, held in ipairs(call('HMGET', STATE, unpack(names))) do
        if held and visit(from + j - 1, tonumber(held)) then return end
      end
    end
    if last >= S[g + HEAD] then visit(last, S[g + LEVEL]) end
  end

  function T.expire_bins(i, g, now)
    local head, last = S[g + HEAD], S[g + LAST]
    if last >= head and (head + 1) * BIN + A_DAY <= now + TINY then
      head = last + 1
      T.each_bin(i, g, function(k, held)
        if (k + 1) * BIN + A_DAY > now + TINY then
          head = k
          return true
        end
        S[g + USED] = S[g + USED] - held
        if k < last then gone[#gone + 1] = bin(i, k) end
      end)
      S[g + HEAD] = head
    end
    if last < head then S[g + USED] = 0 end
  end

  function T.wait_for_bins(i, g, excess)
    local wait = 0
    T.each_bin(i, g, function(k, held)
      wait = (k + 1) * BIN + A_DAY - S[NOW]
      excess = excess - held
      return excess <= TINY
    end)
    return max(0, wait)
  end

  function T.expire_slots(g)
    call('ZREMRANGEBYSCORE', SLOTS, '-inf', time + TINY)
    local first = call('ZRANGE', SLOTS, 0, 0, 'WITHSCORES')
    S[g + USED], S[g + HEAD_AT] = call('ZCARD', SLOTS), tonumber(first[2]) or INF
  end

  function T.take_slot(g, number, at)
    local expiry = at + S[LEASE]
    call('ZADD', SLOTS, expiry, epoch .. number)
    call('EXPIRE', SLOTS, math.ceil(expiry - time + SPARE))
    S[g + USED], S[g + HEAD_AT] = S[g + USED] + 1, min(S[g + HEAD_AT], expiry)
  end

  function T.renew_slots(from, lease)
    for j = from, #ARGV do call('ZADD', SLOTS, 'XX', 'GT', time + lease, ARGV[j]) end
    call('EXPIRE', SLOTS, math.ceil(lease + SPARE))
  end

  function T.beat(process)
    local seen = S[BASE] + time
    call('ZADD', PROCESSES, seen, process)
    call('ZREMRANGEBYSCORE', PROCESSES, '-inf', seen - LATELY)
    call('EXPIRE', PROCESSES, LATELY + SPARE)
    S[REPLICAS] = call('ZCARD', PROCESSES)
  end

  return T[name]
end

-- Read the clock; a state that is missing begins here if there is a nonce for its epoch.
local function clock(nonce)
  local seconds, part = tonumber(ARGV[2]), 0
  if not seconds then
    local now = call('TIME')
    seconds, part = tonumber(now[1]), now[2] * 1e-6
  end
  if not S then tool('begin')(seconds, nonce) end
  time = seconds - S[BASE] + part
  if time < S[SEEN] - STEP then
    S[BASE] = S[BASE] - (S[SEEN] - time)
    time = S[SEEN]
  end
  if time > S[SEEN] then S[SEEN] = time end
end

-- The gauges as the caller wants them applied right now; false if they are others than the state has.
local function planned()
  local n, span, day = (#P - P_HEADER) / PLAN, 0, 0
  if gauges == 0 then tool('fit')(n) end
  if gauges ~= n then return false end
  local g = HEADER
  for p = P_HEADER, #P - PLAN, PLAN do
    local kind = P[p + KIND]
    if S[g + KIND] ~= kind then return false end
    S[g + TOP], S[g + SPAN] = kind == WINDOW and P[p + BURST] or P[p + CAPACITY], P[p + LENGTH]
    if kind == WINDOW then span = max(span, P[p + LENGTH]) end
    if kind == DAY then day = A_DAY + BIN end
    g = g + GAUGE
  end
  S[LEASE], S[KEEP] = P[1], span + P[1]
  local longest = max(S[KEEP], day)
  if longest > S[LONGEST] then S[TTL] = -INF end
  S[LONGEST] = longest
  return true
end

local function refresh(now)
  local before = S[NOW]
  if now < before then now = before end
  S[NOW] = now
  local g, p = HEADER, P_HEADER
  for i = 1, gauges do
    local kind = S[g + KIND]
    if kind == WINDOW then
      local oldest = now - S[g + SPAN] + TINY
      if S[g + HEAD] < S[TAIL] and S[g + HEAD_AT] <= oldest then tool('expire_charges')(i, g, oldest) end
    elseif kind == DAY then
      tool('expire_bins')(i, g, now)
    end
    if kind <= BUCKET then
      local level, top = S[g + LEVEL], S[g + TOP]
      if now > before and before > -INF then level = level + (now - before) * P[p + RATE] end
      S[g + LEVEL] = level < top and level or top
    end
    g, p = g + GAUGE, p + PLAN
  end
end

local function save()
  local busy = max(S[NOW], S[GATE])
  local renew = busy > S[TTL] + RENEW
  if renew then S[TTL] = busy end
  writes[#writes + 1], writes[#writes + 2] = 's', epoch .. packed(S)
  for j = 1, #writes, BATCH do call('HSET', STATE, unpack(writes, j, min(j + BATCH - 1, #writes))) end
  for j = 1, #gone, BATCH do call('HDEL', STATE, unpack(gone, j, min(j + BATCH - 1, #gone))) end
  if renew then call('EXPIRE', STATE, min(1e9, math.ceil(max(0, busy - time) + S[LONGEST] + SPARE))) end
end


if operation == 'reserve' then
  P = numbers(ARGV[4])
  clock(P[3])
  if not planned() then return 'kinds' end
  if ARGV[3] ~= '' then tool('beat')(ARGV[3]) end
  if #ARGV > 5 then tool('renew_slots')(6, P[1]) end
  local asked = numbers(ARGV[5])
  -- Before which position nobody counts anything, as far as that is known without looking.
  local counted = S[TAIL]
  for g = HEADER, #S - GAUGE, GAUGE do
    if S[g + KIND] == WINDOW and S[g + HEAD] < counted then counted = S[g + HEAD] end
  end

  refresh(time)
  local wait, hint = max(0, S[GATE] - S[NOW]), nil
  local g, p = HEADER, P_HEADER
  for i = 1, gauges do
    local kind, amount, seconds = S[g + KIND], asked[1 + i], 0
    if kind == SLOT then
      -- HEAD_AT is never later than the first expiry: most calls need not look.
      if time + TINY >= S[g + HEAD_AT] then tool('expire_slots')(g) end
      if S[g + USED] + amount > max(1, floor(P[p + CAPACITY])) then
        tool('expire_slots')(g)
        hint = max(0, min(HINT, S[g + HEAD_AT] - time))
      end
    elseif kind == DAY then
      local excess = S[g + USED] + amount - P[p + CAPACITY]
      if excess > TINY then seconds = tool('wait_for_bins')(i, g, excess) end
    else
      local lack = min(amount, S[g + TOP]) - S[g + LEVEL]
      if lack > TINY then seconds = lack / P[p + RATE] end
      local excess = kind == WINDOW and amount - (P[p + CAPACITY] - S[g + USED]) or 0
      if excess > TINY then
        seconds = max(seconds, tool('wait_for_charges')(i, g, excess))
      end
    end
    if seconds > wait then wait = seconds end
    g, p = g + GAUGE, p + PLAN
  end

  local number, ahead = 0, S[NOW] + wait - time
  if hint then
    ahead = max(ahead, hint)
  elseif ahead <= asked[1] then
    if wait > 0 then refresh(S[NOW] + wait) end
    number = S[TAIL]
    local now, e = S[NOW], {S[NOW], number, 0}
    g = HEADER
    for i = 1, gauges do
      local kind, amount = S[g + KIND], asked[1 + i]
      e[3 + i] = amount
      if kind == SLOT then
        if amount > 0 then tool('take_slot')(g, number, now) end
      elseif kind == DAY then
        tool('add_to_bin')(i, g, floor(now / BIN), amount)
      else
        S[g + LEVEL] = S[g + LEVEL] - amount
        if kind == WINDOW then
          if S[g + HEAD] >= number then S[g + HEAD], S[g + HEAD_AT] = number, now end
          S[g + USED] = S[g + USED] + amount
        end
      end
      g = g + GAUGE
    end
    S[TAIL], log[number] = number + 1, e
    writes = {number, packed(e)}
  end

  local reply, passed = {number, ahead, S[REPLICAS]}, S[TAIL]
  for g = HEADER, #S - GAUGE, GAUGE do
    local kind = S[g + KIND]
    reply[#reply + 1] = S[g + (kind == BUCKET and LEVEL or USED)]
    if kind == WINDOW and S[g + HEAD] < passed then passed = S[g + HEAD] end
  end
  if passed > counted or S[NOW] >= S[PURGE] then tool('forget')(counted) end
  save()
  return epoch .. packed(reply)
end

local function rewrite(e, position, after, from)
  e[3] = 1
  for i = 1, gauges do
    local g = HEADER + GAUGE * (i - 1)
    local kind, less = S[g + KIND], e[3 + i] - after[from + i]
    if kind ~= SLOT then e[3 + i] = after[from + i] end
    if kind <= BUCKET then S[g + LEVEL] = min(S[g + TOP], S[g + LEVEL] + less) end
    if kind == WINDOW and position >= S[g + HEAD] then S[g + USED] = S[g + USED] - less end
    if kind == DAY then
      local k = floor(e[1] / BIN)
      if k >= S[g + HEAD] and k <= S[g + LAST] then tool('add_to_bin')(i, g, k, -less) end
    end
  end
  tool(position >= tool('counted')() and 'write' or 'drop')(position, e)
end

local function settle()
  local after, names, leases, at = numbers(ARGV[3]), {}, {}, {}
  if #after ~= gauges * (#ARGV - 3) then return 'kinds' end
  for j = 4, #ARGV do
    if string.sub(ARGV[j], 1, EPOCH) == epoch then
      leases[#leases + 1], names[#names + 1], at[#at + 1] = ARGV[j], string.sub(ARGV[j], EPOCH + 1), j - 4
    end
  end
  if #leases == 0 then return 0 end
  for j, raw in ipairs(call('HMGET', STATE, unpack(names))) do
    local position = tonumber(names[j])
    if raw and log[position] == nil then log[position] = numbers(raw) end
    if not raw and S[MOVED] == 1 then position = tonumber(call('HGET', STATE, 'm' .. names[j])) end
    local e = position and (log[position] or not raw and S[MOVED] == 1 and tool('entry')(position))
    if e and e[3] == 0 then rewrite(e, position, after, gauges * at[j]) end
  end
  for g = HEADER, #S - GAUGE, GAUGE do
    if S[g + KIND] == SLOT then S[g + USED] = max(0, S[g + USED] - call('ZREM', SLOTS, unpack(leases))) end
  end
  -- No need of a clock: gauges are settled at the time at which they were last asked, and live long enough.
  time = S[NOW]
  save()
  return 0
end

-- Put charges of a lost state where they belong in time. Every entry moves to a new position; leases stay as they are.
local function merge(added)
  local all = {}
  for position = S[FIRST], S[TAIL] - 1 do
    local e = tool('entry')(position)
    if e then
      all[#all + 1] = {e = e, at = e[1], order = position, moved = true}
      gone[#gone + 1] = position
    end
  end
  for _, one in ipairs(added) do all[#all + 1] = one end
  table.sort(all, function(a, b) return a.at < b.at or (a.at == b.at and a.order < b.order) end)
  local first = S[TAIL]
  log, S[FIRST], S[TAIL] = {}, first, first + #all
  for j, one in ipairs(all) do
    local position = first + j - 1
    if one.moved then
      S[MOVED] = 1
      writes[#writes + 1], writes[#writes + 2] = 'm' .. one.e[2], position
    else
      one.e[2] = position
    end
    writes[#writes + 1], writes[#writes + 2] = position, packed(one.e)
  end
  return all
end

local function recount(i, g, all, added)
  local kind, oldest = S[g + KIND], S[NOW] - S[g + SPAN] + TINY
  for _, one in ipairs(added) do
    local amount, k = one.e[3 + i], floor(one.at / BIN)
    if kind == WINDOW and one.at > oldest then S[g + USED] = S[g + USED] + amount end
    if kind == DAY and (k + 1) * BIN + A_DAY > S[NOW] + TINY then tool('add_to_bin')(i, g, k, amount) end
    if kind == SLOT and amount > 0 then tool('take_slot')(g, one.e[2], time) end
  end
  if kind == WINDOW then
    S[g + HEAD], S[g + HEAD_AT] = S[TAIL], -INF
    for j = #all, 1, -1 do
      if all[j].at <= oldest then break end
      S[g + HEAD], S[g + HEAD_AT] = S[FIRST] + j - 1, all[j].at
    end
  end
  if kind > BUCKET then return end
  -- There is no more than a full bucket would hold now after any of these charges.
  local spent, rate = 0, P[P_HEADER + PLAN * (i - 1) + RATE]
  for j = #all, 1, -1 do
    spent = spent + all[j].e[3 + i]
    S[g + LEVEL] = min(S[g + LEVEL], S[g + TOP] - spent + rate * (S[NOW] - all[j].at))
  end
end

local function restore()
  local given, added, leases, longest = numbers(ARGV[5]), {}, {}, 0
  for g = HEADER, #S - GAUGE, GAUGE do
    local kind = S[g + KIND]
    longest = max(longest, kind == WINDOW and S[g + SPAN] or kind == DAY and A_DAY + BIN or 0)
  end
  if longest == 0 then longest = S[KEEP] end
  refresh(time)
  for from = 0, #given - 1, gauges + 1 do
    local e = {time - given[from + 1], 0, 0}
    for i = 1, gauges do e[3 + i] = given[from + 1 + i] end
    leases[#leases + 1] = ''
    if given[from + 1] < longest then added[#added + 1] = {e = e, at = e[1], order = #leases - 1e15, place = #leases} end
  end
  local newest = S[NOW]
  for _, one in ipairs(added) do newest = max(newest, one.at) end
  refresh(newest)
  local all = merge(added)
  for i = 1, gauges do recount(i, HEADER + GAUGE * (i - 1), all, added) end
  for _, one in ipairs(added) do leases[one.place] = epoch .. one.e[2] end
  save()
  return leases
end

if operation == 'restore' then
  P = numbers(ARGV[4])
  clock(P[3])
  return planned() and restore() or 'kinds'
end
if operation == 'gate' then
  local given = numbers(ARGV[3])
  clock(given[2])
  S[GATE] = max(S[GATE], time + given[1])
  save()
elseif S and operation == 'settle' and gauges > 0 then
  return settle()
elseif S and operation == 'renew' then
  clock()
  tool('renew_slots')(4, numbers(ARGV[3])[1])
  S[TTL] = -INF
  save()
end
return 0
