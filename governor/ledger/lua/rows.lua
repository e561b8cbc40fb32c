-- Rows of one tenant's ledger, in one slot: all that scripts touch is declared in KEYS.
-- A hold: {state, amount, limits = JSON text, sent, moment, stamp of the last extension, was = whether kept as open}.
-- Sums of a scope: {window = {ends, sliding, idle}, spent, reserved, overshoot, expired, refs, touched, since, grains,
-- gone}.
-- Figures are lists in the order of governor.ledger.sums.DIMENSIONS; absent fields are None in Python.
local EPOCH, HOLDS, SUMS, LEASES, CLOSED, DUE, SHELF, EXPIRIES = unpack(KEYS)
local PLACES, GRAINS, BATCH = 7, 60, 64

local function zeros() return {0, 0, 0, 0, 0, 0, 0} end

local function add(figures, more, sign)
  for place = 1, PLACES do figures[place] = figures[place] + sign * more[place] end
end

-- Rows are read once a call, changed in memory, and those marked as changed are written at its end.
local holds, sums, changed_holds, changed_sums = {}, {}, {}, {}

local function find(key)
  if holds[key] == nil then
    local row = redis.call('HGET', HOLDS, key)
    holds[key] = row and cmsgpack.unpack(row)
  end
  return holds[key]
end

local function keep(key, hold)
  holds[key], changed_holds[key] = hold, true
end

local function changed(scope) changed_sums[scope] = true end

-- The grain of a moment: Python's at * GRAINS // sliding, to the last bit.
local function grain(at, sliding)
  local scaled = at * GRAINS
  local rest = math.fmod(scaled, sliding)
  local whole = math.floor((scaled - rest) / sliding + 0.5)
  return rest < 0 and whole - 1 or whole
end

-- Lets go of the spend that has left a sliding window; whether anything has changed.
local function slide(one, now)
  if not one.grains then return false end
  local first, left = grain(now - one.window.sliding, one.window.sliding), false
  for at, figures in pairs(one.grains) do
    if at < first then
      add(one.spent, figures, -1)
      one.grains[at], left = nil, true
    end
  end
  if one.gone and first <= one.gone + 1 then return left end -- booked on a clock that was set back
  one.gone = first - 1
  return true
end

local function stored(scope)
  if sums[scope] == nil then
    local row = redis.call('HGET', SUMS, scope)
    sums[scope] = row and cmsgpack.unpack(row)
  end
  return sums[scope]
end

local function empty(window)
  return {window = window, spent = zeros(), reserved = zeros(), overshoot = zeros(), expired = 0, refs = 0,
          touched = 0, grains = window.sliding and {} or nil}
end

local function given(value) return value ~= cjson.null and value or nil end

-- The sums of the scopes of limits (rows of scope, seven ceilings, window), by scope; nil where windows disagree.
local function booked(limits, now)
  local found = {}
  for _, limit in ipairs(limits) do
    local scope = limit[1]
    if not found[scope] then
      local window = {ends = given(limit[9]), sliding = given(limit[10]), idle = given(limit[11])}
      local one = stored(scope) or empty(window)
      if one.window.sliding ~= window.sliding then return nil end
      one.window = window
      slide(one, now)
      found[scope], sums[scope] = one, one
    end
  end
  return found
end

local function spend(one, figures, at)
  if one.grains then
    local when = grain(at, one.window.sliding)
    one.grains[when] = one.grains[when] or zeros()
    add(one.grains[when], figures, 1)
  end
  add(one.spent, figures, 1)
end

-- Whether what is booked as of that moment would count at all.
local function live(one, at) return not one.grains or not one.gone or grain(at, one.window.sliding) > one.gone end

-- Whether a lease that was booked at that moment is part of `spent`: not after a reset, nor once it left the window.
local function counts(one, at) return not (one.since and at <= one.since) and live(one, at) end

-- When a lease that ran out at `ends` is booked: Sums.lapse.
local function lapse(one, ends, now)
  local window = one.window.sliding
  if window and not live(one, ends) and grain(ends, window) >= grain(now - window, window) then
    ends = (one.gone + 1.5) * window / GRAINS
  end
  if not one.since or ends > one.since then return ends end
  return one.since + 2 ^ -20
end

local function unspend(one, figures, at)
  add(one.spent, figures, -1)
  if one.grains then add(one.grains[grain(at, one.window.sliding)], figures, -1) end
end

-- When the sums may be forgotten; nil: never, or not as things are.
local function due(one)
  for place = 1, PLACES do
    if one.reserved[place] ~= 0 then return nil end
  end
  local window, latest = one.window, one.window.ends
  if window.sliding then latest = math.max(latest or -math.huge, one.touched + window.sliding * (1 + 2 / GRAINS)) end
  if window.idle then latest = math.max(latest or -math.huge, one.touched + window.idle) end
  return latest
end

local function write_hold(key, hold)
  local open = hold.state == 'open'
  if hold.was ~= nil and hold.was ~= open then redis.call('ZREM', open and CLOSED or LEASES, key) end
  hold.was = open
  redis.call('ZADD', open and LEASES or CLOSED, hold.moment, key)
  redis.call('HSET', HOLDS, key, cmsgpack.pack(hold))
end

local function write_sums(scope, one)
  local when = one.refs == 0 and due(one)
  if when then redis.call('ZADD', DUE, when, scope) elseif one.waits then redis.call('ZREM', DUE, scope) end
  one.waits = when and true or nil
  redis.call('HSET', SUMS, scope, cmsgpack.pack(one))
end

local function flush()
  for key in pairs(changed_holds) do write_hold(key, holds[key]) end
  for scope in pairs(changed_sums) do write_sums(scope, sums[scope]) end
  changed_holds, changed_sums = {}, {}
end

-- Sets what counts as spent, as if booked now; the window is that of sums which are not known yet.
local function set(scope, spent, window, now)
  local one = stored(scope) or empty({ends = given(window[1]), sliding = given(window[2]), idle = given(window[3])})
  sums[scope] = one
  local since = math.max(now, one.touched, one.since or now)
  one.spent, one.overshoot, one.since, one.touched = zeros(), zeros(), since, now
  one.grains = one.grains and {}
  spend(one, spent, now)
  changed(scope)
  return one
end

-- Answers: integers as they are, seconds as text of all their digits, false for nothing.
local function exact(number) return number and string.format('%.17g', number) or false end

local function hold_row(key, hold)
  local row = {key, hold.state}
  for place = 1, PLACES do row[2 + place] = hold.amount[place] end
  row[10], row[11], row[12] = hold.limits, hold.sent and 1 or 0, exact(hold.moment)
  return row
end

local function sums_row(scope, one)
  local window, grains = one.window, {}
  for at, figures in pairs(one.grains or {}) do grains[#grains + 1] = {at, figures} end
  return {scope, one.spent, one.reserved, one.overshoot, one.expired, one.refs, exact(one.touched), exact(one.since),
          {exact(window.ends), exact(window.sliding), exact(window.idle)}, one.grains and grains or false}
end
