-- KEYS: the verification. ARGV: now, service.
local now = tonumber(ARGV[1])
local v, unreadable = load(KEYS[1], now)
if unreadable then return {'corrupt'} end
if not v or v[SV] ~= ARGV[2] then return {'none'} end
if live(v, now) then
  close(v, CANCELED)
  save(KEYS[1], v)
end
return {'found', flat(KEYS[1], v)}
