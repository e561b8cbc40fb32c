-- The epoch: which books these are, and how many operations they have seen; how they are begun, and rebuilt.
local function begin(name, generation, format)
  redis.call('HSET', EPOCH, 'name', name, 'generation', generation, 'count', 0, 'format', format)
  -- No version of the shelf comes twice, not even after all was lost: they go on from the clock's milliseconds.
  redis.call('HSETNX', EPOCH, 'versions', exact(math.floor(math.max(NOW, 0) * 1000)))
end

function operations.open(name, format, create)
  if create == '1' and redis.call('EXISTS', EPOCH) == 0 then begin(name, 0, format) end
  return redis.call('HMGET', EPOCH, 'name', 'generation', 'count', 'format', 'lost')
end

function operations.clear(builder)
  redis.call('DEL', HOLDS, SUMS, LEASES, CLOSED, DUE)
  redis.call('HSET', EPOCH, 'lost', builder)
  return {1}
end

function operations.restore(builder, rows)
  if redis.call('HGET', EPOCH, 'lost') ~= builder then return {0} end
  for _, row in ipairs(cjson.decode(rows)) do set(row[1], row[2], row[3], NOW).overshoot = row[4] end
  flush()
  return {1}
end

function operations.finish(builder, name, format)
  if redis.call('HGET', EPOCH, 'lost') ~= builder then return {0} end
  local before = tonumber(redis.call('HGET', EPOCH, 'generation') or 0)
  begin(name, exact(math.max(before + 1, math.floor(NOW * 1000))), format)
  redis.call('HDEL', EPOCH, 'lost')
  return {1}
end

local function operate(name, ...) return operations[name](...) end

return operate(unpack(ARGV, 8))
