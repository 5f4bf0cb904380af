-- KEYS: the verification. ARGV: now. Returns the operator's view: the recipient's tag, whether the
-- current message is confirmed, and the verification without code and order.
local v, unreadable = load(KEYS[1])
if unreadable then return {'corrupt'} end
if not v then return {'none'} end
local shown = flat(KEYS[1], v)
for i = #shown, 13, -1 do shown[i] = nil end
return {'found', v[RT], v[CF] == 1 and '1' or '0', shown}
