-- The clock of every script. The later of the caller's clock and the server's decides: a caller
-- whose clock is behind approves no expired code, and one whose clock is ahead extends no lifetime.
local stamp = redis.call('TIME')
local TIME = stamp[1] * 1000 + (stamp[2] - stamp[2] % 1000) / 1000
local now = (ARGV[1] or 0) + 0
if TIME > now then now = TIME end

