#!lua
-- swap(KEYS: delivery; ARGV: what it was, what it is to be, retention ms) -> 1 if it was that
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
