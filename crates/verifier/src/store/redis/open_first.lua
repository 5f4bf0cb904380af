-- The usual way of open.lua: the subject has neither guesses nor a latest verification. The part
-- below is for all others.
if redis.call('EXISTS', KEYS[1], KEYS[2], KEYS[3]) == 0 then
  local forget_at = now + tonumber(ARGV[6])
  redis.call('SET', KEYS[1], ARGV[8] .. cmsgpack.pack(now - TIME, now), 'PXAT', forget_at)
  redis.call('SET', KEYS[2], ARGV[5], 'PXAT', forget_at)
  return {'new', '0', '0', string.format('%.0f', now)}
end
