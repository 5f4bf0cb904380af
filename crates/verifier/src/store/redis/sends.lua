-- KEYS: the verification. ARGV: none. Returns the values that the audit needs: number of messages,
-- whether the current one is confirmed, and when the code expires.
local v, unreadable = load(KEYS[1], true)
if unreadable then return {'corrupt'} end
if not v then return {'none'} end
return {'found', text(v[SN]), v[CF] == 1 and '1' or '0', text(v[EX])}
