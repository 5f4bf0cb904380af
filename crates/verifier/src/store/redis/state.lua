-- What every script of the verifier shares; the header is put in front of it by mod.rs. Times are
-- milliseconds and stay below 2^53, so that Lua's numbers hold them exactly. `now` is always an
-- argument: one clock decides, not two.

local HOUR, DAY, AFTERLIFE = 3600000, 86400000, 3600000

-- A verification is one MessagePack array: a third of the memory of a hash, whose values beyond
-- 64 bytes cost a table, and each script changes it with a single write. `EX` and `RA` are kept
-- as distance from `OA`. `AN` holds {check id, verdict, fingerprints} for each check compared.
-- What confirm.lua looks for stands in front of what has a length, so that it has a place.
local FM, ST, SN, CF, CL, SV, CH, PU, MT, OA, EX, RA, MS, CD, RO, CK, CS, OK, OS, DK, DG, AN =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22
local FORMAT = 2
local TYPES = {'number', 'string', 'number', 'number', 'number', 'string', 'string', 'string',
  'string', 'number', 'number', 'number', 'number', 'number', 'number', 'string', 'string',
  'string', 'string', 'string', 'string', 'table'}
-- Of the current message: whether the broker confirmed it, or who asked for it.
local UNCONFIRMED, UNCONFIRMED_STEP = 0, 2
local PENDING, APPROVED, CANCELED, EXHAUSTED = 'p', 'a', 'c', 'm'

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
-- to be remembered is over is not there, whatever the clock of Redis says.
local function load(key, now)
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
  if now and now >= v[EX] + AFTERLIFE then return nil, false end
  return v, false
end

-- Writes `v`, to be forgotten when the one before was to be.
local function save(key, v)
  v[EX], v[RA] = v[EX] - v[OA], v[RA] - v[OA]
  redis.call('SET', key, cmsgpack.pack(v), 'KEEPTTL')
  v[EX], v[RA] = v[EX] + v[OA], v[RA] + v[OA]
end

-- Ends `v`: what could still be checked or sent is forgotten.
local function close(v, status)
  v[ST], v[CK], v[CS], v[OS], v[DK], v[DG] = status, '', '', '', '', ''
end

-- `v` as reply.rs reads it.
local function flat(key, v)
  return {string.sub(key, -16), v[SV], v[ST], v[CH], v[PU], v[MT], text(v[OA]), text(v[EX]), text(v[RA]),
    text(v[SN]), text(v[CL]), v[CK], v[CS], v[OK], v[OS]}
end

local function live(v, now) return v[ST] == PENDING and now < v[EX] end

-- Wrong guesses of the subject: {how many in a row, time, time, ...}, oldest first. The second
-- value says that they cannot be read.
local function guesses(key)
  local log, foreign = unpacked(key)
  if not log then return {0}, foreign end
  for i = 1, math.max(#log, 1) do
    if type(log[i]) ~= 'number' then return {0}, true end
  end
  return log, false
end

-- Until when the subject may not guess, or nil, as core's `GuessLog::locked_until`.
local function locked_until(log, now, per_hour, per_day, in_a_row)
  if log[1] >= in_a_row then return '9223372036854775807' end
  if #log == 1 then return nil end
  local found
  for span, limit in pairs({[HOUR] = per_hour, [DAY] = per_day}) do
    local recent = {}
    for i = 2, #log do
      if log[i] + span > now then recent[#recent + 1] = log[i] end
    end
    local first = #recent >= limit and recent[#recent - limit + 1]
    if first then found = math.max(found or 0, first + span) end
  end
  return found and text(found)
end

-- The message after the current one, asked for by a request or by a step; as core's
-- `Pending::further`.
local function further(key, v, now, code, unconfirmed)
  if v[SN] >= v[MS] then return {'exhausted', flat(key, v)} end
  if v[RO] == 1 then
    if not code then return {'needs_code', flat(key, v)} end
    v[DK], v[DG], v[CK], v[CS] = code[1], code[2], code[3], code[4]
  end
  v[SN], v[CF], v[RA] = v[SN] + 1, unconfirmed, now + v[CD]
  save(key, v)
  return {'send', '0', '0', flat(key, v)}
end

-- What a request for a message means for a live verification, as core's `Pending::send`.
local function send(key, v, now, code)
  if v[CF] == UNCONFIRMED then return {'send', '0', '0', flat(key, v)} end
  if now < v[RA] then return {'cooling', flat(key, v)} end
  return further(key, v, now, code, UNCONFIRMED)
end
