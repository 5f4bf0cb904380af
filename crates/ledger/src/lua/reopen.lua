
-- reopen(KEYS: delivery; ARGV: now ms, retention ms) -> {verdict, record}
local delivery = read(KEYS[1])
if delivery == false then
    return {'corrupt'}
elseif not delivery or delivery.outcome ~= PARKED then
    return {'unknown'}
end
delivery.outcome = QUEUED
return {'counted', write(KEYS[1], delivery, tonumber(ARGV[1]), ARGV[2])}
