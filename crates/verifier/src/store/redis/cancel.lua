-- KEYS: the verification. ARGV: now, service.
local v, unreadable = load(KEYS[1])
if unreadable then return {'corrupt'} end
if not v or v[SV] ~= ARGV[2] then return {'none'} end
if live(v) then
  close(v, CANCELED)
  save(KEYS[1], v)
end
return {'found', flat(KEYS[1], v)}
