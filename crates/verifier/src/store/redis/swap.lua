#!lua
-- KEYS: the verification. ARGV: what it was, what it is to be. -> 1 if it was that
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
return 1
