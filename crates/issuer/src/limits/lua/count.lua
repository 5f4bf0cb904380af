#!lua
-- Adds messages to a counter and returns the parts that count.
-- KEYS: counter, a hash from the number of a time part to its messages
-- ARGV: current part, messages to add, ttl ms of the counter, parts that count
-- -> {part, messages, part, messages, ...}
local key, now, add, live = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])

local parts = {}
local stored = redis.call('HGETALL', key)
for i = 1, #stored, 2 do
    local part, messages = tonumber(stored[i]), tonumber(stored[i + 1])
    if not part or not messages then
        return redis.error_reply('ERR a send counter cannot be read')
    end
    if math.abs(now - part) < live then
        parts[part] = messages
    else
        redis.call('HDEL', key, stored[i])
    end
end
if add ~= 0 then
    parts[now] = redis.call('HINCRBY', key, ARGV[1], add)
    redis.call('PEXPIRE', key, ARGV[3])
end
local answer = {}
for part, messages in pairs(parts) do
    answer[#answer + 1] = part
    answer[#answer + 1] = messages
end
return answer
