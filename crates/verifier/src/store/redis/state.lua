-- Functions that the verifier's scripts share, placed after `clock.lua`; mod.rs puts the header in
-- front of both. Times are in milliseconds and below 2^53, so that Lua's numbers hold them exactly.

local HOUR, DAY, AFTERLIFE = 3600000, 86400000, 3600000
-- SKEW: the lead over the server's clock that is always tolerated when a verification is opened.
-- GUESSES_KEPT: how long guesses are kept.
local SKEW, GUESSES_KEPT = 5000, 90 * DAY

-- A verification is one MessagePack array. A hash would take three times the memory, because values
-- beyond 64 bytes cost it a table, and each script changes the array with a single write.
-- Fields: `EX` and `RA` are stored relative to `OA`. `AN` holds {check id, verdict, fingerprints}
-- for each compared check. `RT`, `VT` and `DT` are short tags of the recipient, of the variables,
-- and of locale and fallback; the last two are empty without any. `LS` is the last message that a
-- fallback step may send.
-- The fields that confirm.lua reads come before those of variable length, so that their offsets are
-- fixed. The last two are set by the script that opens: `SK`, how far `OA` was ahead of this
-- server, and `OA`, the time of opening.
local FM, ST, SN, CF, CL, SV, CH, PU, MT, EX, RA, MS, CD, RO, LS, CK, CS, OK, OS, DK, DG, RT, VT,
  DT, AN, SK, OA =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27
local FORMAT = 3
local TYPES = {'number', 'string', 'number', 'number', 'number', 'string', 'string', 'string',
  'string', 'number', 'number', 'number', 'number', 'number', 'number', 'string', 'string',
  'string', 'string', 'string', 'string', 'string', 'string', 'string', 'table', 'number', 'number'}
-- Values of `CF`, for the current message: not confirmed and requested by a caller, or by a step; or
-- refused by a send limit.
local UNCONFIRMED, UNCONFIRMED_STEP, REFUSED = 0, 2, 3
local PENDING, APPROVED, CANCELED, EXHAUSTED, EXPIRED = 'p', 'a', 'c', 'm', 'x'

local function text(number) return string.format('%.0f', number) end

-- Returns the value at `key` as a table, or nil if there is none. The second result is true if the
-- value was not written by these scripts.
local function unpacked(key)
  local packed = redis.call('GET', key)
  if not packed then return nil, false end
  local fine, value = pcall(cmsgpack.unpack, packed)
  if not fine or type(value) ~= 'table' then return nil, true end
  return value, false
end

-- Returns the verification at `key`, or nil; the second result is true if it cannot be read. A
-- verification past its retention counts as absent, unless `always` is set.
local function load(key, always)
  local v, foreign = unpacked(key)
  if not v then return nil, foreign end
  for i = 1, #TYPES do
    if type(v[i]) ~= TYPES[i] then return nil, true end
  end
  if v[FM] ~= FORMAT then return nil, true end
  for _, answer in ipairs(v[AN]) do
    if type(answer) ~= 'table' or type(answer[3]) ~= 'string' then return nil, true end
  end
  v[EX], v[RA] = v[OA] + v[EX], v[OA] + v[RA]
  if not always and now >= v[EX] + AFTERLIFE then return nil, false end
  return v, false
end

-- Writes `v` and keeps its time-to-live.
local function save(key, v)
  v[EX], v[RA] = v[EX] - v[OA], v[RA] - v[OA]
  redis.call('SET', key, cmsgpack.pack(v), 'KEEPTTL')
  v[EX], v[RA] = v[EX] + v[OA], v[RA] + v[OA]
end

-- Ends `v` and erases everything that could still be checked, sent or compared.
local function close(v, status)
  v[ST], v[CK], v[CS], v[OS], v[DK], v[DG] = status, '', '', '', '', ''
  v[RT], v[VT], v[DT] = '', '', ''
end

-- Implements core's `Pending::is_live`. `OA - SK` is the time of opening by this server's clock.
-- Only that clock shows whether it was corrected since, because an issuer whose clock is ahead
-- opens every verification ahead of it. By that clock, no code lives longer than its policy allows.
local function live(v)
  return v[ST] == PENDING and now < v[EX] and v[OA] - v[SK] - TIME <= math.max(v[CD], SKEW)
    and TIME < v[EX] - v[SK]
end

-- Returns `v` in the form that reply.rs reads.
local function flat(key, v)
  local status = v[ST]
  if status == PENDING and not live(v) then status = EXPIRED end
  return {string.sub(key, -16), v[SV], status, v[CH], v[PU], v[MT], text(v[OA]), text(v[EX]),
    text(math.min(v[RA], now + v[CD])), text(v[SN]), text(v[CL]), v[SN] < v[LS] and '1' or '0',
    v[CK], v[CS], v[OK], v[OS]}
end

-- Returns the wrong guesses of the subject: {number in a row, {recipient, count, ...}, time, ...},
-- the times oldest first. The second result is true if they cannot be read. Logs of an earlier
-- build have no recipients, so no approval resets those guesses.
local function guesses(key)
  local log, foreign = unpacked(key)
  if not log then return {0, {}}, foreign end
  if type(log[2]) ~= 'table' then table.insert(log, 2, {}) end
  for i = 1, #log do
    if i ~= 2 and type(log[i]) ~= 'number' then return log, true end
  end
  for i, part in ipairs(log[2]) do
    if type(part) ~= (i % 2 == 1 and 'string' or 'number') then return log, true end
  end
  return log, #log < 2 or #log[2] % 2 == 1
end

-- Writes the log after one more check at `recipient`: core's `GuessLog::with_wrong` or
-- `GuessLog::with_right`.
local function remember(key, log, recipient, is_right)
  local rows, own = {}, 0
  local kept = {log[1], rows}
  for i = 1, #log[2], 2 do
    if log[2][i] == recipient then
      own = own + log[2][i + 1]
    else
      rows[#rows + 1], rows[#rows + 2] = log[2][i], log[2][i + 1]
    end
  end
  for i = 3, #log do
    if log[i] + DAY > now then kept[#kept + 1] = log[i] end
  end
  if is_right then
    kept[1] = math.max(kept[1] - own, 0)
  else
    kept[1] = kept[1] + 1
    rows[#rows + 1], rows[#rows + 2] = recipient, own + 1
    kept[#kept + 1] = now
  end
  if kept[1] == 0 and #kept == 2 then
    redis.call('DEL', key)
  else
    local forget_at = now + (kept[1] == 0 and DAY or GUESSES_KEPT)
    redis.call('SET', key, cmsgpack.pack(kept), 'PXAT', forget_at)
  end
end

-- Returns the time until which the subject is locked, or nil: core's `GuessLog::locked_until`.
local function locked_until(log, per_hour, per_day, in_a_row)
  if log[1] >= in_a_row then return '9223372036854775807' end
  if #log == 2 then return nil end
  local found
  for span, limit in pairs({[HOUR] = per_hour, [DAY] = per_day}) do
    local recent = {}
    for i = 3, #log do
      if log[i] + span > now then recent[#recent + 1] = log[i] end
    end
    local first = #recent >= limit and recent[#recent - limit + 1]
    if first then found = math.max(found or 0, first + span) end
  end
  return found and text(found)
end

-- Decides about the message after the current one, requested by a caller or a step: core's
-- `Pending::further`. A caller's request ends the fallback, or starts one with `steps` steps.
local function further(key, v, code, unconfirmed, steps)
  if v[SN] >= v[MS] then return {'exhausted', flat(key, v)} end
  if v[RO] == 1 then
    if not code then return {'needs_code', flat(key, v)} end
    v[DK], v[DG], v[CK], v[CS] = code[1], code[2], code[3], code[4]
  end
  v[SN], v[CF], v[RA] = v[SN] + 1, unconfirmed, now + v[CD]
  if unconfirmed == UNCONFIRMED then v[LS] = math.min(v[SN] + (steps or 0), v[MS]) end
  save(key, v)
  return {'send', '0', '0', '0', flat(key, v)}
end

-- Counts the times of a refused message from now: core's `Pending::begun_again`.
local function begin_again(key, v)
  v[CF], v[RA] = UNCONFIRMED, now + v[CD]
  if v[SN] == 1 then
    local lifetime = v[EX] - v[OA]
    v[OA], v[SK], v[EX] = now, now - TIME, now + lifetime
    redis.call('PEXPIRE', key, lifetime + AFTERLIFE)
  end
  save(key, v)
end

-- Decides the effect of a request for a message on a live verification: core's `Pending::send`.
local function send(key, v, code, steps)
  if v[CF] == REFUSED then begin_again(key, v) end
  if v[CF] == UNCONFIRMED then return {'send', '0', '0', '0', flat(key, v)} end
  if now < v[RA] and v[RA] <= now + 2 * v[CD] then return {'cooling', flat(key, v)} end
  return further(key, v, code, UNCONFIRMED, steps)
end
