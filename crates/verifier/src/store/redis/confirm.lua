-- KEYS: the verification. ARGV: the number of the message.
-- A late confirmation of an earlier message is not the current one's.
local v, unreadable = load(KEYS[1], nil)
if unreadable then return {'corrupt'} end
if v and v[ST] == PENDING and v[CF] ~= 1 and v[SN] == tonumber(ARGV[1]) then
  v[CF] = 1
  save(KEYS[1], v)
end
return {'done'}
