-- What a person sees and sets. Leases that ran out are booked first: of very many, some in each call.
local MANY = 500

function operations.reservation(key)
  local hold = find(key)
  return 'done', hold and hold_row(key, hold) or false
end

function operations.balance(scope)
  local one = stored(scope)
  if one and slide(one, NOW) then changed(scope) end
  return 'done', one and sums_row(scope, one) or false
end

function operations.reset(scope, spent)
  return 'done', sums_row(scope, set(scope, cjson.decode(spent), {}, NOW))
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

function operations.reservations(cursor, prefix)
  return page(HOLDS, cursor, prefix, function(key) return hold_row(key, find(key)) end)
end

function operations.balances(cursor, prefix)
  return page(SUMS, cursor, prefix, function(scope) return select(2, operations.balance(scope)) end)
end

local function operate(name, ...)
  local state, count = standing()
  if state ~= 'ok' then return {state} end
  if expire(NOW, TTL, MANY) == MANY then return answer(count, false, 'again') end
  local result = {operations[name](...)}
  flush()
  return answer(count, false, unpack(result))
end

return operate(unpack(ARGV, 8))
