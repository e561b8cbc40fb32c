-- The shelf: values by key with a version, beside the books.
local function value_at(key)
  local packed = redis.call('HGET', SHELF, key)
  if not packed then return nil end
  local sound, kept = pcall(cmsgpack.unpack, packed)
  return sound and type(kept) == 'table' and kept.version and kept or {}
end

function operations.load(key)
  local kept = value_at(key)
  if not kept then return 'done', false end
  return 'done', kept.value or false, kept.version or false, kept.digest or false, exact(kept.expires)
end

function operations.save(key, value, digest, version, expires, stamp)
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

local function operate(name, ...)
  local state, count = standing()
  if state ~= 'ok' then return {state} end
  return answer(count, false, operations[name](...))
end

return operate(unpack(ARGV, 8))
