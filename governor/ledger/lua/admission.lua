-- What each operation does to a hold and the sums of its scopes: governor/ledger/admission.py, line by line.
-- False: refused. Then nothing has changed, and Python finds the reason in the rows that are answered.

-- Whether an expired hold counts as spent on a scope.
local function weighs(hold, one) return hold.sent and counts(one, hold.moment) end

local function held_on(hold, one)
  local own = hold.state == 'open' or (hold.state == 'expired' and weighs(hold, one))
  return own and hold.amount or zeros()
end

-- Takes an open or expired hold's weight off a scope.
local function free(hold, one)
  if hold.state == 'open' then
    add(one.reserved, hold.amount, -1)
  elseif hold.state == 'expired' and weighs(hold, one) then
    unspend(one, hold.amount, hold.moment)
  end
end

local function fits(hold, limits, amount, found)
  for _, limit in ipairs(limits) do
    local one = found[limit[1]]
    local held = held_on(hold, one)
    for place = 1, PLACES do
      local ceiling, more = limit[1 + place], amount[place] - held[place]
      if ceiling ~= cjson.null and more > 0 and one.spent[place] + one.reserved[place] + more > ceiling then
        return false
      end
    end
  end
  return true
end

local function take(hold, limits, amount, found, now, sent)
  if not fits(hold, limits, amount, found) then return false end
  for scope, one in pairs(found) do
    free(hold, one)
    add(one.reserved, amount, 1)
    if hold.state == 'new' then one.refs = one.refs + 1 end
    one.touched = now
    changed(scope)
  end
  hold.amount, hold.state, hold.moment, hold.sent = amount, 'open', now, hold.sent or sent
  return true
end

local function larger(amount, other)
  local most = {}
  for place = 1, PLACES do most[place] = math.max(amount[place], other[place]) end
  return most
end

local function settle(hold, spent, found, now)
  local late = hold.state == 'expired' and hold.sent
  local at = late and hold.moment or now
  local bound = (hold.sent or hold.state == 'open') and hold.amount or zeros()
  for scope, one in pairs(found) do
    free(hold, one)
    if not late or live(one, at) then spend(one, spent, at) end
    for place = 1, PLACES do
      one.overshoot[place] = one.overshoot[place] + math.max(0, spent[place] - bound[place])
    end
    one.touched = now
    changed(scope)
  end
  hold.amount, hold.state, hold.moment = spent, 'settled', now
end

local function refund(hold, found, now)
  for scope, one in pairs(found) do
    free(hold, one)
    one.touched = now
    changed(scope)
  end
  hold.amount, hold.state, hold.moment = zeros(), 'refunded', now
end

-- Books open holds as spent at their bound where their lease ran out; how many it were.
local function expire(now, ttl, most)
  local overdue = redis.call('ZRANGEBYSCORE', LEASES, '-inf', exact(now - ttl), 'LIMIT', 0, most)
  for _, key in ipairs(overdue) do
    local hold = find(key)
    local found, at = booked(cjson.decode(hold.limits), now), hold.moment + ttl
    for _, one in pairs(found) do at = lapse(one, at, now) end
    for scope, one in pairs(found) do
      add(one.reserved, hold.amount, -1)
      if hold.sent and live(one, at) then spend(one, hold.amount, at) end
      one.expired, one.touched = one.expired + 1, now
      changed(scope)
    end
    hold.state, hold.moment = 'expired', at
    keep(key, hold)
  end
  flush()
  return #overdue
end

-- Forgets holds that closed long ago, and sums in which nothing is left; how many of the more numerous kind.
local function forget(now, keep_seconds)
  local old = redis.call('ZRANGEBYSCORE', CLOSED, '-inf', exact(now - keep_seconds), 'LIMIT', 0, BATCH)
  for _, key in ipairs(old) do
    for scope, one in pairs(booked(cjson.decode(find(key).limits), now)) do
      one.refs = one.refs - 1
      changed(scope)
    end
    changed_holds[key] = nil
    redis.call('HDEL', HOLDS, key)
    redis.call('ZREM', CLOSED, key)
    holds[key] = nil
  end
  flush()
  local idle = redis.call('ZRANGEBYSCORE', DUE, '-inf', exact(now), 'LIMIT', 0, BATCH)
  for _, scope in ipairs(idle) do
    redis.call('HDEL', SUMS, scope)
    redis.call('ZREM', DUE, scope)
    sums[scope] = nil
  end
  return math.max(#old, #idle)
end
