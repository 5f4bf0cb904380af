-- The part that every script of the verifier shares, behind `clock.lua`; mod.rs puts the header in
-- front of both. Times are milliseconds and stay below 2^53, so that Lua's numbers hold them
-- exactly.

local HOUR, DAY, AFTERLIFE = 3600000, 86400000, 3600000
-- How far ahead of the server's clock a verification may have been opened at least, and how long guesses are kept.
local SKEW, GUESSES_KEPT = 5000, 90 * DAY

-- A verification is one MessagePack array: a third of the memory of a hash, whose values beyond
-- 64 bytes cost a table, and each script changes it with a single write. `EX` and `RA` are kept
-- as distance from `OA`. `AN` holds {check id, verdict, fingerprints} for each check compared.
-- `RT`, `VT` and `DT` are short tags of the recipient, of the variables and of locale and fallback;
-- the last two are empty without any. `LS` is the last message that a fallback step may send.
-- The fields that confirm.lua reads are in front of those with a variable length, so that their
-- places are fixed. The last two are known only to the script that opens: how far `OA` was ahead of
-- this server, and `OA`.
local FM, ST, SN, CF, CL, SV, CH, PU, MT, EX, RA, MS, CD, RO, LS, CK, CS, OK, OS, DK, DG, RT, VT,
  DT, AN, SK, OA =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27
local FORMAT = 3
local TYPES = {'number', 'string', 'number', 'number', 'number', 'string', 'string', 'string',
  'string', 'number', 'number', 'number', 'number', 'number', 'number', 'string', 'string',
  'string', 'string', 'string', 'string', 'string', 'string', 'string', 'table', 'number', 'number'}
-- Of the current message: whether the broker confirmed it, or who asked for it.
local UNCONFIRMED, UNCONFIRMED_STEP = 0, 2
local PENDING, APPROVED, CANCELED, EXHAUSTED, EXPIRED = 'p', 'a', 'c', 'm', 'x'

local function text(number) return string.format('%.0f', number) end

-- What stands at `key` as a table; nil if nothing does. The second value says that it is foreign.
local function unpacked(key)
  local packed = redis.call('GET', key)
  if not packed then return nil, false end
  local fine, value = pcall(cmsgpack.unpack, packed)
  if not fine or type(value) ~= 'table' then return nil, true end
  return value, false
end

-- The verification at `key`, or nil; the second value says that it cannot be read. One whose time
-- to be remembered is over is not there, unless `always`.
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

-- Writes `v`, to be forgotten when the one before was to be.
local function save(key, v)
  v[EX], v[RA] = v[EX] - v[OA], v[RA] - v[OA]
  redis.call('SET', key, cmsgpack.pack(v), 'KEEPTTL')
  v[EX], v[RA] = v[EX] + v[OA], v[RA] + v[OA]
end

-- Ends `v`: everything that could still be checked, sent or compared is forgotten.
local function close(v, status)
  v[ST], v[CK], v[CS], v[OS], v[DK], v[DG] = status, '', '', '', '', ''
  v[RT], v[VT], v[DT] = '', '', ''
end

-- As core's `Pending::is_live`, where `OA - SK` is when it was opened by the clock of this server: that
-- clock alone tells whether it was corrected since, because an issuer whose clock is ahead opens every
-- verification ahead of it. And by that clock no code lives longer than its policy says.
local function live(v)
  return v[ST] == PENDING and now < v[EX] and v[OA] - v[SK] - TIME <= math.max(v[CD], SKEW)
    and TIME < v[EX] - v[SK]
end

-- `v` as reply.rs reads it.
local function flat(key, v)
  local status = v[ST]
  if status == PENDING and not live(v) then status = EXPIRED end
  return {string.sub(key, -16), v[SV], status, v[CH], v[PU], v[MT], text(v[OA]), text(v[EX]),
    text(math.min(v[RA], now + v[CD])), text(v[SN]), text(v[CL]), v[SN] < v[LS] and '1' or '0',
    v[CK], v[CS], v[OK], v[OS]}
end

-- Wrong guesses of the subject: {how many in a row, {recipient, how many at it, ...}, time, ...},
-- the times oldest first. The second value says that they cannot be read. An earlier build wrote no
-- recipients: no approval takes its guesses back.
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

-- Writes the log after one more guess at `recipient`, as core's `GuessLog::with_wrong` and
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

-- Until when the subject may not guess, or nil, as core's `GuessLog::locked_until`.
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

-- The message after the current one, asked for by a request or by a step; as core's
-- `Pending::further`. A request ends the fallback, or begins one of `steps`.
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

-- What a request for a message means for a live verification, as core's `Pending::send`.
local function send(key, v, code, steps)
  if v[CF] == UNCONFIRMED then return {'send', '0', '0', '0', flat(key, v)} end
  if now < v[RA] and v[RA] <= now + 2 * v[CD] then return {'cooling', flat(key, v)} end
  return further(key, v, code, UNCONFIRMED, steps)
end
