-- KEYS: the verification, the refusal of one of its messages. ARGV: now. Returns the operator's view:
-- the recipient's tag, whether the current message is confirmed, the limit that refused it, and the
-- verification without code and order.
local v, unreadable = load(KEYS[1])
if unreadable then return {'corrupt'} end
if not v then return {'none'} end
local shown = flat(KEYS[1], v)
for i = #shown, 13, -1 do shown[i] = nil end
local refused = v[CF] ~= 1 and redis.call('GET', KEYS[2])
local message, limit = string.match(refused or '', '^(%d+):([a-z_]+)$')
if tonumber(message) ~= v[SN] then limit = '' end
return {'found', v[RT], v[CF] == 1 and '1' or '0', limit, shown}
