-- KEYS: the verification, the subject's guesses.
-- ARGV: now, per_hour, per_day, in_a_row, service, number of steps of the fallback that the message
-- starts, then optionally the next code: digest key, digest, sealing key, sealed code.
local v, unreadable = load(KEYS[1])
if unreadable then return {'corrupt'} end
if not v or v[SV] ~= ARGV[5] or not live(v) then return {'none'} end
local log, foreign = guesses(KEYS[2])
if foreign then return {'corrupt'} end
local locked = locked_until(log, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if locked then return {'locked', locked} end
local code = ARGV[7] and {ARGV[7], ARGV[8], ARGV[9], ARGV[10]}
return send(KEYS[1], v, code, tonumber(ARGV[6]))
