#!lua
-- swap(KEYS: string; ARGV: expected value, new value, ttl ms; without a ttl the present one stays)
-- -> 1 if the value was replaced, 0 if it was not the expected one
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[3] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
end
return 1
