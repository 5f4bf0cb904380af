-- KEYS: the verification. ARGV: the number of the message.
-- A late confirmation of an earlier message is not the current one's.
if redis.call('HGET', KEYS[1], 'sn') == ARGV[1] then redis.call('HSET', KEYS[1], 'cf', '1') end
return {'done'}
