-- One call is one operation: ARGV holds what the client knows of the epoch, its clock and times, the operation's name
-- and arguments. The answer: what became of it, the epoch's count, whether to come again at once, then its rows.
local NAME, GENERATION, SEEN = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local NOW, TTL, KEEP_SECONDS, TIDY = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local operations = {}

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

local function answer(count, again, status, ...) return {status, count, again and 1 or 0, ...} end
