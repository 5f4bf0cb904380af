-- KEYS: the verification, the subject's guesses.
-- ARGV: now, per_hour, per_day, in_a_row, service, purpose or '', check id, forget guesses at,
--       fingerprints joined by commas, then digest key and digest of each candidate.
local now = tonumber(ARGV[1])
local v = load(KEYS[1])
if not v or v.sv ~= ARGV[5] then return {'refused', '0'} end

-- A repeat of this check gets the stored answer; the same id with another code gets none.
local field = 'c:' .. ARGV[7]
local answer = redis.call('HGET', KEYS[1], field)
if answer then
  local verdict, typed = string.match(answer, '^(%l[%l_]*) (%S*)$')
  for print in string.gmatch(ARGV[9], '[^,]+') do
    if typed and string.find(typed, print, 1, true) then return {verdict, '1'} end
  end
  return {'refused', '0'}
end

if not live(v, now)
  or locked_until(KEYS[2], now, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])) then
  return {'refused', '0'}
end

-- Equality of keyed digests: whoever lacks the key cannot choose what is compared, so the time
-- this takes tells nothing about the code.
local matched = false
for i = 10, #ARGV, 2 do
  if ARGV[i] == v.dk and ARGV[i + 1] == v.dg then matched = true end
end
if ARGV[6] ~= '' and ARGV[6] ~= v.pu then matched = false end

if matched then
  redis.call('HSET', KEYS[1], 'st', 'approved', field, 'approved ' .. ARGV[9])
  redis.call('HDEL', KEYS[1], 'dk', 'dg', 'ck', 'cs', 'os')
  redis.call('DEL', KEYS[2])
  return {'approved', '0'}
end

local times, row = guesses(KEYS[2])
local kept = {}
for _, at in ipairs(times) do if at + DAY > now then kept[#kept + 1] = text(at) end end
kept[#kept + 1] = text(now)
redis.call('HSET', KEYS[2], 'w', table.concat(kept, ' '), 'n', text(row + 1))
redis.call('PEXPIREAT', KEYS[2], ARGV[8])
local left = math.max(tonumber(v.cl) - 1, 0)
if left > 0 then
  redis.call('HSET', KEYS[1], 'cl', text(left), field, 'wrong ' .. ARGV[9])
  return {'wrong', '0'}
end
redis.call('HSET', KEYS[1], 'cl', '0', 'st', 'max_attempts_reached', field, 'last_wrong ' .. ARGV[9])
redis.call('HDEL', KEYS[1], 'dk', 'dg', 'ck', 'cs', 'os')
return {'last_wrong', '0'}
