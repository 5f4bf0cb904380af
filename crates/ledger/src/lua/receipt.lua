
-- receipt(KEYS: delivery; ARGV: now ms, retention ms, receipt, provider, message id or '')
-- -> {verdict, record}. Implements `receipt` of state.rs.
local key, now, retention_ms = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local told, provider, message_id = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local RANK = {1, 2, 2, 3}
local ARRIVED = 4

local delivery = read(key)
if delivery == false then
    return {'corrupt'}
elseif not delivery then
    return {'unknown'}
elseif delivery.outcome == SENDING then
    return {'early'}
end

local asked, last_accepted = false, false
for _, start in ipairs(delivery.starts) do
    local class, _, _, name_len, id_len = struct.unpack(ATTEMPT, delivery.bytes, start)
    local name_at = start + ATTEMPT_LEN
    local name = delivery.bytes:sub(name_at, name_at + name_len - 1)
    local id = delivery.bytes:sub(name_at + name_len, name_at + name_len + id_len - 1)
    local by_this = name == provider and (id == '' or message_id == '' or id == message_id)
    asked = asked or by_this
    last_accepted = by_this and class == ACCEPTED_CLASS
end
if not asked then
    return {delivery.outcome == QUEUED and 'early' or 'unknown'}
end
local counts = told == ARRIVED or last_accepted
if not counts or RANK[told] <= (RANK[delivery.receipt] or 0) then
    return {'repeated'}
end
delivery.receipt, delivery.receipt_at = told, now
if told == ARRIVED then
    delivery.outcome = DELIVERED
elseif RANK[told] == 2 and delivery.outcome == ACCEPTED then
    delivery.outcome = FAILED
end
return {'counted', write(key, delivery, now, retention_ms)}
