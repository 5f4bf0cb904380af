-- Fast path of open.lua: the subject has neither wrong guesses nor a latest verification. All other
-- cases fall through to the code below.
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) == 0 then
  redis.call('SET', KEYS[1], ARGV[8] .. cmsgpack.pack(now - TIME, now), 'PX', ARGV[6])
  redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[6])
  return {'new', '0', '0', now}
end
