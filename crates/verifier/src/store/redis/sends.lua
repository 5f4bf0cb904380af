-- KEYS: the verification. ARGV: none. What an audit wants to know: messages, whether the current
-- one is confirmed, when the code expires.
local v, unreadable = load(KEYS[1], true)
if unreadable then return {'corrupt'} end
if not v then return {'none'} end
return {'found', text(v[SN]), v[CF] == 1 and '1' or '0', text(v[EX])}
