#!lua
-- Counts requests of a service in a minute of the clock; a caller may take several at once.
-- KEYS: counter, "<minute> <count>"
-- ARGV: now ms, limit, ttl ms of a new counter, requests wanted
-- -> {minute, granted}; if none is granted, {minute from which requests are admitted again, 0}
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
    -- A clock that steps back a little continues the minute it was in. A minute further ahead was
    -- written before a clock correction.
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
    -- Keep the ttl, so that a counter that a wrong clock put in the future expires soon.
    redis.call('SET', key, value, 'KEEPTTL')
else
    redis.call('SET', key, value, 'PX', ARGV[3])
end
return {minute, granted}
