-- KEYS: the verification, the refusal of one of its messages.
-- ARGV: the number of the message, the refusal, how long the refusal is kept in milliseconds.
-- Marks the current message as refused by a send limit, unless it is confirmed or a later one. The
-- refusal has a key of its own. See confirm.lua for the offsets.
redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
local head = redis.call('GETRANGE', KEYS[1], 0, 7)
if #head == 8 and string.sub(head, 1, 5) == '\220\0\27\3\161' then
  local message, confirmed = string.byte(head, 7, 8)
  if message == tonumber(ARGV[1]) and confirmed == 0 then
    redis.call('SETRANGE', KEYS[1], 7, '\3')
  end
end
return {'done'}
