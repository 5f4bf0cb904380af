#!lua
-- Reads and writes the record of a delivery in the layout of codec.rs. Shared head of claim.lua,
-- settle.lua, receipt.lua and reopen.lua. A record in another layout counts as corrupt.

local VERSION, VERSION_1 = 2, 1
local HEAD, LEASE, TAIL, ATTEMPT = '>BBI4I2I6', '>I6', '>c16BI6B', '>BI6I3BI2'
local HEAD_LEN, LEASE_LEN, TAIL_LEN, ATTEMPT_LEN = 14, 6, 24, 13
local NO_TRACE = string.rep('\0', 16)
local QUEUED, SENDING, ACCEPTED, DELIVERED, FAILED, PARKED = 0, 1, 2, 3, 4, 6
local LAST_OUTCOME = 6
local ACCEPTED_CLASS, UNKNOWN_OUTCOME, LAST_CLASS = 0, 6, 8
local LAST_RECEIPT = 4
local LAST_CHANNEL = 1
local KEPT_ATTEMPTS = 16
local MAX_FENCE, MAX_COUNT, MAX_MS = 4294967295, 65535, 281474976710655

-- Returns the start of each attempt in `bytes`, from `at` on, or nil if they do not fill it
-- exactly.
local function attempt_starts(bytes, at)
    local starts = {}
    while at <= #bytes do
        if #starts == KEPT_ATTEMPTS or at + ATTEMPT_LEN - 1 > #bytes then
            return nil
        end
        local class, _, _, provider_len, id_len = struct.unpack(ATTEMPT, bytes, at)
        if class > LAST_CLASS then
            return nil
        end
        starts[#starts + 1] = at
        at = at + ATTEMPT_LEN + provider_len + id_len
    end
    return at == #bytes + 1 and starts or nil
end

-- Returns the delivery under `key`, nil if there is none, or false if it is corrupt.
local function read(key)
    local bytes = redis.pcall('GET', key)
    if bytes == false then
        return nil
    end
    if type(bytes) ~= 'string' or #bytes < HEAD_LEN then
        return false
    end
    local version, kind, fence, count, updated = struct.unpack(HEAD, bytes)
    local channel, outcome = math.floor(kind / 16), kind % 16
    local at, lease = HEAD_LEN + 1, 0
    if (version ~= VERSION and version ~= VERSION_1) or channel > LAST_CHANNEL or outcome > LAST_OUTCOME
        or fence == MAX_FENCE then
        return false
    end
    if outcome == SENDING then
        if #bytes < HEAD_LEN + LEASE_LEN then
            return false
        end
        lease = struct.unpack(LEASE, bytes, at)
        at = at + LEASE_LEN
    end
    local trace, receipt, receipt_at, service = NO_TRACE, 0, 0, ''
    if version == VERSION then
        if #bytes < at + TAIL_LEN - 1 then
            return false
        end
        local service_len
        trace, receipt, receipt_at, service_len = struct.unpack(TAIL, bytes, at)
        at = at + TAIL_LEN
        service = bytes:sub(at, at + service_len - 1)
        if #service < service_len then
            return false
        end
        at = at + service_len
        if receipt > LAST_RECEIPT or (receipt == 0 and receipt_at ~= 0) then
            return false
        end
    end
    local starts = attempt_starts(bytes, at)
    if not starts or #starts > count then
        return false
    end
    return {
        bytes = bytes, channel = channel, outcome = outcome, fence = fence, lease = lease,
        updated = updated, count = count, starts = starts, attempts = bytes:sub(at),
        first = at, trace = trace, receipt = receipt, receipt_at = receipt_at,
        service = service,
    }
end

-- Returns a new delivery that no worker has claimed.
local function unclaimed(channel, trace, service)
    return {
        channel = channel, outcome = QUEUED, fence = 0, lease = 0,
        count = 0, starts = {}, attempts = '', first = 1,
        trace = trace or NO_TRACE, receipt = 0, receipt_at = 0, service = service or '',
    }
end

-- Adds an attempt and drops the oldest one beyond KEPT_ATTEMPTS.
local function append(delivery, attempt)
    if #delivery.starts == KEPT_ATTEMPTS then
        delivery.attempts = delivery.attempts:sub(delivery.starts[2] - delivery.first + 1)
    end
    delivery.attempts = delivery.attempts .. attempt
    delivery.count = math.min(delivery.count + 1, MAX_COUNT)
end

-- Writes the delivery. This is the only write of each script, and its last step.
local function write(key, delivery, now, retention_ms)
    local lease = delivery.outcome == SENDING and struct.pack(LEASE, delivery.lease) or ''
    local bytes = struct.pack(HEAD, VERSION, delivery.channel * 16 + delivery.outcome,
        delivery.fence, delivery.count, now) .. lease
        .. struct.pack(TAIL, delivery.trace, delivery.receipt, delivery.receipt_at, #delivery.service)
        .. delivery.service .. delivery.attempts
    redis.call('SET', key, bytes, 'PX', retention_ms)
    return bytes
end
