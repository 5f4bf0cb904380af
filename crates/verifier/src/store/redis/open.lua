-- KEYS: the new verification, its slot, the subject's guesses.
-- ARGV: now, per_hour, per_day, in_a_row, own id, forget at, key prefix of verifications,
--       then the fields of the new verification as name, value.
local now = tonumber(ARGV[1])
local locked = locked_until(KEYS[3], now, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if locked then return {'locked', locked} end

-- The key of the slot's latest verification is known only now; it has the same hash tag.
local follows = '0'
local latest = redis.call('GET', KEYS[2])
if latest then
  local key = ARGV[7] .. latest
  local v = load(key)
  if v and live(v, now) then return send(key, v, now, nil) end
  if v and v.st == 'approved' then follows = '1' end
end

local fields = {}
for i = 8, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PEXPIREAT', KEYS[1], ARGV[6])
redis.call('SET', KEYS[2], ARGV[5], 'PXAT', ARGV[6])
return {'send', '1', follows, flat(load(KEYS[1]))}
