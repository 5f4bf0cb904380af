-- KEYS: the verification, the subject's guesses.
-- ARGV: now, per_hour, per_day, in_a_row, service, the message that the step follows, the details
-- for which it was planned or '', then optionally the next code as in resend.lua.
-- Implements core's `Pending::step`.
local after = tonumber(ARGV[6])
local v, unreadable = load(KEYS[1])
if unreadable then return {'corrupt'} end
if not v or v[SV] ~= ARGV[5] or not live(v) then return {'none'} end
if ARGV[7] ~= '' and ARGV[7] ~= v[DT] then return {'none'} end
local log, foreign = guesses(KEYS[2])
if foreign then return {'corrupt'} end
local locked = locked_until(log, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if locked then return {'locked', locked} end
if v[CF] == UNCONFIRMED_STEP and v[SN] == after + 1 then
  return {'send', '0', '0', '0', flat(KEYS[1], v)}
end
if v[SN] ~= after then return {'none'} end
local code = ARGV[8] and {ARGV[8], ARGV[9], ARGV[10], ARGV[11]}
return further(KEYS[1], v, code, UNCONFIRMED_STEP)
