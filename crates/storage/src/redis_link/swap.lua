#!lua
-- swap(KEYS: key; ARGV: expected value, new value, ttl ms (optional: keeps the ttl)) -> 1 if it
-- swapped, else 0
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[3] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
end
return 1
