-- KEYS: the verification. ARGV: now, service.
local v = load(KEYS[1])
if not v or v.sv ~= ARGV[2] then return {'none'} end
if live(v, tonumber(ARGV[1])) then
  v.st = 'canceled'
  redis.call('HSET', KEYS[1], 'st', v.st)
  redis.call('HDEL', KEYS[1], 'dk', 'dg', 'ck', 'cs', 'os')
end
return {'found', flat(v)}
