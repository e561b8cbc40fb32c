-- One call is one operation: ARGV holds what the client knows of the epoch, its clock and times, the operation's name
-- and arguments. The answer: what became of it, the epoch's count, whether to tidy again at once, then its rows.
local NAME, GENERATION, SEEN = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local NOW, TTL, KEEP_SECONDS, TIDY = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local MANY = 500

-- Whether the books are those the client knows: of its epoch, and no younger state than it has seen. Where they are
-- not, every client is kept out until they are rebuilt; a rebuilt epoch has a larger generation, and is taken over.
local function standing()
  local name, generation, count, lost = unpack(redis.call('HMGET', EPOCH, 'name', 'generation', 'count', 'lost'))
  if lost then return 'lost', 0 end
  if name == NAME and tonumber(count) >= SEEN then return 'ok', tonumber(count) end
  if name and name ~= NAME and tonumber(generation) > GENERATION then return 'moved', tonumber(count) end
  redis.call('HSET', EPOCH, 'lost', 'noticed')
  return 'lost', 0
end

local function closed(hold) return hold.state == 'settled' or hold.state == 'refunded' end

-- The rows from which Python finds out why.
local function refused(key, limits)
  local hold, rows = find(key), {}
  for _, limit in ipairs(limits or hold and cjson.decode(hold.limits) or {}) do
    local one = stored(limit[1])
    if one then
      slide(one, NOW)
      rows[#rows + 1] = sums_row(limit[1], one)
    end
  end
  return 'refused', hold and hold_row(key, hold) or false, rows
end

local function done(key, hold)
  keep(key, hold)
  return 'done', hold_row(key, hold)
end

local writes, reads, others = {}, {}, {}

function writes.reserve(key, amount, text, sent)
  local hold = find(key) or {state = 'new', amount = zeros(), limits = text, sent = false}
  local limits = cjson.decode(text)
  local found = booked(limits, NOW)
  local whole = larger(cjson.decode(amount), hold.amount)
  if found and not closed(hold) and hold.limits == text and take(hold, limits, whole, found, NOW, sent == '1') then
    return done(key, hold)
  end
  return refused(key, limits)
end

-- The stamp tells a repeated message, whose answer was lost, from one that asks for more.
function writes.extend(key, amount, whole, sent, stamp)
  local hold = find(key)
  if not hold or closed(hold) then return refused(key) end
  local asked = larger(cjson.decode(amount), hold.amount)
  if stamp ~= '' and hold.stamp == stamp then
    asked = hold.amount
  elseif whole ~= '1' then
    asked = cjson.decode(amount)
    add(asked, hold.amount, 1)
  end
  local limits = cjson.decode(hold.limits)
  if not take(hold, limits, asked, booked(limits, NOW), NOW, sent == '1') then return refused(key) end
  hold.stamp = stamp
  return done(key, hold)
end

local function same(amount, other)
  for place = 1, PLACES do
    if amount[place] ~= other[place] then return false end
  end
  return true
end

function writes.settle(key, amount)
  local hold, spent = find(key), cjson.decode(amount)
  if hold and hold.state == 'settled' and same(hold.amount, spent) then return 'same', hold_row(key, hold) end
  if not hold or closed(hold) then return refused(key) end
  settle(hold, spent, booked(cjson.decode(hold.limits), NOW), NOW)
  return done(key, hold)
end

function writes.refund(key)
  local hold = find(key)
  if hold and hold.state == 'refunded' then return 'same', hold_row(key, hold) end
  if not hold or closed(hold) then return refused(key) end
  refund(hold, booked(cjson.decode(hold.limits), NOW), NOW)
  return done(key, hold)
end

function reads.reservation(key)
  local hold = find(key)
  return 'done', hold and hold_row(key, hold) or false
end

function reads.balance(scope)
  local one = stored(scope)
  if one then slide(one, NOW) end
  return 'done', one and sums_row(scope, one) or false
end

-- Sets what counts as spent, as if booked now; the window is that of sums which are not known yet.
local function set(scope, spent, window)
  local one = stored(scope) or empty({ends = given(window[1]), sliding = given(window[2]), idle = given(window[3])})
  sums[scope] = one
  one.spent, one.overshoot, one.since, one.touched = zeros(), zeros(), NOW, NOW
  one.grains = one.grains and {}
  spend(one, spent, NOW)
  changed(scope)
  return one
end

function reads.reset(scope, spent)
  return 'done', sums_row(scope, set(scope, cjson.decode(spent), {}))
end

-- One page of all rows, those that begin with `prefix`.
local function page(rows, cursor, prefix, row_of)
  local next_cursor, found = unpack(redis.call('HSCAN', rows, cursor, 'COUNT', MANY))
  local told = {}
  for at = 1, #found, 2 do
    local name = found[at]
    if string.sub(name, 1, #prefix) == prefix then told[#told + 1] = row_of(name) end
  end
  return 'done', next_cursor, told
end

function reads.reservations(cursor, prefix)
  return page(HOLDS, cursor, prefix, function(key) return hold_row(key, find(key)) end)
end

function reads.balances(cursor, prefix)
  return page(SUMS, cursor, prefix, function(scope) return select(2, reads.balance(scope)) end)
end

-- The shelf: values by key with a version, beside the books.
local function value_at(key)
  local packed = redis.call('HGET', SHELF, key)
  if not packed then return nil end
  local sound, kept = pcall(cmsgpack.unpack, packed)
  return sound and type(kept) == 'table' and kept.version and kept or {}
end

function others.load(key)
  local kept = value_at(key)
  if not kept then return 'done', false end
  return 'done', kept.value or false, kept.version or false, kept.digest or false, exact(kept.expires)
end

function others.save(key, value, digest, version, expires, stamp)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', EXPIRIES, '-inf', exact(NOW), 'LIMIT', 0, BATCH)) do
    redis.call('HDEL', SHELF, name)
    redis.call('ZREM', EXPIRIES, name)
  end
  local kept = value_at(key)
  if kept and not kept.version then return 'damaged' end
  if kept and kept.stamp == stamp then return 'done', 1 end
  local live = kept and not (kept.expires and kept.expires <= NOW)
  if tonumber(version) ~= (live and kept.version or 0) then return 'done', 0 end
  local ends = tonumber(expires)
  local new = {value = value, version = redis.call('HINCRBY', EPOCH, 'versions', 1), digest = tonumber(digest),
               expires = ends, stamp = stamp}
  redis.call('HSET', SHELF, key, cmsgpack.pack(new))
  if ends then redis.call('ZADD', EXPIRIES, ends, key) else redis.call('ZREM', EXPIRIES, key) end
  redis.call('HINCRBY', EPOCH, 'count', 1)
  return 'done', 1
end

-- The epoch: which books these are, and how many operations they have seen.
local function begin(name, generation, format)
  redis.call('HSET', EPOCH, 'name', name, 'generation', generation, 'count', 0, 'format', format)
  -- No version of the shelf comes twice, not even after all was lost: they go on from the clock's milliseconds.
  redis.call('HSETNX', EPOCH, 'versions', exact(math.floor(math.max(NOW, 0) * 1000)))
end

local epochs = {}

function epochs.open(name, format, create)
  if create == '1' and redis.call('EXISTS', EPOCH) == 0 then begin(name, 0, format) end
  return redis.call('HMGET', EPOCH, 'name', 'generation', 'count', 'format', 'lost')
end

function epochs.clear(builder)
  redis.call('DEL', HOLDS, SUMS, LEASES, CLOSED, DUE)
  redis.call('HSET', EPOCH, 'lost', builder)
  return {1}
end

function epochs.restore(builder, rows)
  if redis.call('HGET', EPOCH, 'lost') ~= builder then return {0} end
  for _, row in ipairs(cjson.decode(rows)) do set(row[1], row[2], row[3]).overshoot = row[4] end
  flush()
  return {1}
end

function epochs.finish(builder, name, format)
  if redis.call('HGET', EPOCH, 'lost') ~= builder then return {0} end
  local before = tonumber(redis.call('HGET', EPOCH, 'generation') or 0)
  begin(name, exact(math.max(before + 1, math.floor(NOW * 1000))), format)
  redis.call('HDEL', EPOCH, 'lost')
  return {1}
end

local function operate(name, ...)
  if epochs[name] then return epochs[name](...) end
  local state, count = standing()
  if state ~= 'ok' then return {state} end
  local again = 0
  local result
  if writes[name] then
    if TIDY then again = math.max(expire(NOW, TTL, BATCH), forget(NOW, KEEP_SECONDS)) >= BATCH and 1 or 0 end
    result = {writes[name](...)}
    if result[1] == 'done' then count = redis.call('HINCRBY', EPOCH, 'count', 1) end
  elseif reads[name] then
    if expire(NOW, TTL, MANY) == MANY then return {'again', count, 0} end
    result = {reads[name](...)}
  else
    result = {others[name](...)}
  end
  flush()
  table.insert(result, 2, count)
  table.insert(result, 3, again)
  return result
end

return operate(unpack(ARGV, 8))
