
-- settle(KEYS: delivery; ARGV: now ms, retention ms, channel, outcome, fence or '', attempt or '')
-- -> {verdict, record}
local key, now, retention_ms = KEYS[1], tonumber(ARGV[1]), ARGV[2]
local outcome, fence, attempt = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]
local delivery = read(key)
if delivery == false then
    return {'corrupt'}
end
if fence then
    if not delivery or delivery.fence ~= fence then
        return {'fence_lost'}
    end
    if delivery.outcome ~= SENDING then
        -- Settled already. A repeat of the same outcome succeeds, another outcome does not.
        return {delivery.outcome == outcome and 'settled' or 'fence_lost', delivery.bytes}
    end
else
    delivery = delivery or unclaimed(tonumber(ARGV[3]))
    if delivery.outcome ~= QUEUED then
        return {'settled', delivery.bytes}
    end
end
if attempt ~= '' then
    append(delivery, attempt)
end
delivery.outcome = outcome
return {'settled', write(key, delivery, now, retention_ms)}
