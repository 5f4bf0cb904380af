
-- claim(KEYS: delivery; ARGV: now ms, retention ms, channel, lease ms, trace id, service)
-- -> {verdict, record}
local key, now, retention_ms = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local delivery = read(key)
if delivery == false then
    return {'corrupt'}
end
delivery = delivery or unclaimed(tonumber(ARGV[3]), ARGV[5], ARGV[6])
if delivery.outcome > SENDING then
    return {'ended', delivery.bytes}
end
local verdict = 'yours'
if delivery.outcome == SENDING then
    if delivery.lease > now then
        return {'held', delivery.bytes}
    end
    -- The holder's lease ended without a settlement: record an attempt that began with the claim
    -- and has an unknown outcome.
    append(delivery, struct.pack(ATTEMPT, UNKNOWN_OUTCOME, delivery.updated, 0, 0, 0))
    verdict = 'yours_after_crash'
end
delivery.fence = delivery.fence + 1
delivery.outcome = SENDING
delivery.lease = math.min(now + tonumber(ARGV[4]), MAX_MS)
return {verdict, write(key, delivery, now, retention_ms)}
