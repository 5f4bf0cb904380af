-- KEYS: the verification, the subject's guesses.
-- ARGV: now, per_hour, per_day, in_a_row, service, the message it follows, then the next code as
--       for resend; or nothing. As core's `Pending::step`.
local now, after = tonumber(ARGV[1]), tonumber(ARGV[6])
local v, unreadable = load(KEYS[1], now)
if unreadable then return {'corrupt'} end
if not v or v[SV] ~= ARGV[5] or not live(v, now) then return {'none'} end
local log, foreign = guesses(KEYS[2])
if foreign then return {'corrupt'} end
local locked = locked_until(log, now, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if locked then return {'locked', locked} end
if v[CF] == UNCONFIRMED_STEP and v[SN] == after + 1 then
  return {'send', '0', '0', flat(KEYS[1], v)}
end
if v[SN] ~= after then return {'none'} end
local code = ARGV[7] and {ARGV[7], ARGV[8], ARGV[9], ARGV[10]}
return further(KEYS[1], v, now, code, UNCONFIRMED_STEP)
