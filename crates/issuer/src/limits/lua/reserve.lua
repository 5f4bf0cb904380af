#!lua
-- Reserves one message to one recipient; window.rs says the same in Rust.
-- KEYS: sorted set of deliveries by the moment (ms) of their reservation
-- ARGV: now ms, delivery, cooldown ms (0: waived), per hour, per day
-- -> '0' granted, otherwise the moment (ms) before which it is refused
local HOUR_MS, DAY_MS = 3600000, 86400000
local key, now, delivery, cooldown = KEYS[1], tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])

-- Oldest first; never more than the day's limit, for nothing else is ever added.
local stored = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
local live, dead = {}, {}
for i = 1, #stored, 2 do
    local at = tonumber(stored[i + 1])
    if math.abs(now - at) >= DAY_MS then
        -- A day old, or a day ahead: then the clock that wrote it has been mended since.
        dead[#dead + 1] = stored[i]
    elseif stored[i] == delivery then
        return '0'
    else
        live[#live + 1] = at
    end
end

-- The moment from which on fewer than `limit` of the live ones lie in the window.
local function free_at(span, limit)
    local first = #live + 1
    while first > 1 and live[first - 1] + span > now do
        first = first - 1
    end
    local inside = #live - first + 1
    if inside < limit then
        return 0
    end
    return (limit > 0 and live[#live - limit + 1] or now) + span
end

local until_ms = math.max(free_at(HOUR_MS, tonumber(ARGV[4])), free_at(DAY_MS, tonumber(ARGV[5])))
local newest = live[#live]
if newest and newest + cooldown > now and cooldown > 0 then
    until_ms = math.max(until_ms, newest + cooldown)
end
if until_ms > 0 then
    return string.format('%.0f', until_ms)
end

for _, member in ipairs(dead) do
    redis.call('ZREM', key, member)
end
redis.call('ZADD', key, ARGV[1], delivery)
redis.call('PEXPIRE', key, DAY_MS)
return '0'
