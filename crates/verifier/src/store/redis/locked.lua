-- KEYS: the subject's guesses. ARGV: now, per_hour, per_day, in_a_row.
-- Returns the time until which the subject is locked, or ''.
local log, foreign = guesses(KEYS[1])
if foreign then return {'corrupt'} end
return {'found', locked_until(log, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])) or ''}
