-- KEYS: the verification. ARGV: the number of the message.
-- Marks the current message as confirmed and returns `marked`, or `done` if it was marked before or is
-- not the current one: a late confirm of an earlier message changes nothing. The
-- first eight bytes of the array suffice: its length, format, status, message number, and whether
-- that message is confirmed (see state.lua). Each number takes one byte, because a policy allows at
-- most ten messages.
local head = redis.call('GETRANGE', KEYS[1], 0, 7)
if head == '' then return {redis.call('EXISTS', KEYS[1]) == 0 and 'done' or 'corrupt'} end
if #head < 8 or string.sub(head, 1, 5) ~= '\220\0\27\3\161' then return {'corrupt'} end
local status, message, confirmed = string.byte(head, 6, 8)
-- 112 is `p`, pending; 97 is `a`: a quick person may be approved before the confirm.
if (status == 112 or status == 97) and message == tonumber(ARGV[1]) and confirmed ~= 1 then
  redis.call('SETRANGE', KEYS[1], 7, '\1')
  return {'marked'}
end
return {'done'}
