-- reserve, extend, settle, refund.
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

function operations.reserve(key, amount, text, sent)
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
function operations.extend(key, amount, whole, sent, stamp)
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

function operations.settle(key, amount)
  local hold, spent = find(key), cjson.decode(amount)
  if hold and hold.state == 'settled' and same(hold.amount, spent) then return 'same', hold_row(key, hold) end
  if not hold or closed(hold) then return refused(key) end
  settle(hold, spent, booked(cjson.decode(hold.limits), NOW), NOW)
  return done(key, hold)
end

function operations.refund(key)
  local hold = find(key)
  if hold and hold.state == 'refunded' then return 'same', hold_row(key, hold) end
  if not hold or closed(hold) then return refused(key) end
  refund(hold, booked(cjson.decode(hold.limits), NOW), NOW)
  return done(key, hold)
end

local function operate(name, ...)
  local state, count = standing()
  if state ~= 'ok' then return {state} end
  local again = TIDY and math.max(expire(NOW, TTL, BATCH), forget(NOW, KEEP_SECONDS)) >= BATCH
  local result = {operations[name](...)}
  flush()
  if result[1] == 'done' then count = redis.call('HINCRBY', EPOCH, 'count', 1) end
  return answer(count, again, unpack(result))
end

return operate(unpack(ARGV, 8))
