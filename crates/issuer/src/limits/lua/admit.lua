#!lua
-- Counts requests of a service in its minute of the clock, several at once for a caller who has many.
-- KEYS: counter, "<minute> <count>"
-- ARGV: now ms, limit, ms until the counter is forgotten, how many are wanted
-- -> {minute, how many are granted}; of none it is the minute before which all are refused
local MINUTE_MS, AHEAD_MINUTES = 60000, 2
local key, now, limit = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

local minute, count = math.floor(now / MINUTE_MS), 0
local stored = redis.call('GET', key)
if stored then
    local stored_minute, stored_count = stored:match('^(%-?%d+) (%d+)$')
    stored_minute, stored_count = tonumber(stored_minute), tonumber(stored_count)
    if not stored_minute then
        return redis.error_reply('ERR a send counter cannot be read')
    end
    -- A clock that steps back a little goes on in the minute it was in. A clock that has been
    -- corrected wrote a minute further ahead.
    if stored_minute >= minute and stored_minute - minute <= AHEAD_MINUTES then
        minute, count = stored_minute, stored_count
    end
end
if count >= limit then
    return {minute + 1, 0}
end
local granted = math.min(tonumber(ARGV[4]), limit - count)
local value = string.format('%.0f %d', minute, count + granted)
if count > 0 then
    -- Not prolonged: a minute that a wrong clock put in the future is soon forgotten.
    redis.call('SET', key, value, 'KEEPTTL')
else
    redis.call('SET', key, value, 'PX', ARGV[3])
end
return {minute, granted}
