-- KEYS: the new verification, its slot, the subject's guesses, and the slot's latest verification
--       as far as the caller knows it.
-- ARGV: now, per_hour, per_day, in_a_row, own id, forget at, own id of KEYS[4] or '', the new
--       verification as it is to be stored. Who opened it knows it, so it is not told again.
local now = tonumber(ARGV[1])
local log, foreign = guesses(KEYS[3])
if foreign then return {'corrupt'} end
local locked = locked_until(log, now, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if locked then return {'locked', locked} end

-- Every key is declared, so a latest one that the caller did not name is named to him first.
local follows = '0'
local latest = redis.call('GET', KEYS[2])
if latest then
  if latest ~= ARGV[7] then return {'latest', latest} end
  local v, unreadable = load(KEYS[4], now)
  if unreadable then return {'corrupt'} end
  if v and live(v, now) then return send(KEYS[4], v, now, nil) end
  if v and v[ST] == APPROVED then follows = '1' end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'taken'} end

redis.call('SET', KEYS[1], ARGV[8], 'PXAT', ARGV[6])
redis.call('SET', KEYS[2], ARGV[5], 'PXAT', ARGV[6])
return {'new', follows}
