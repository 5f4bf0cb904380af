#!lua
-- What every script of the verifier shares. Times are milliseconds and stay below 2^53, so that
-- Lua's numbers hold them exactly. `now` is always an argument: one clock decides, not two.

local HOUR, DAY = 3600000, 86400000
local FIELDS = {'sv', 'st', 'ch', 'pu', 'mt', 'oa', 'ex', 'ra', 'sn', 'cl', 'cf', 'ms', 'cd', 'ro',
  'ck', 'cs', 'ok', 'os', 'dk', 'dg'}

local function text(number) return string.format('%.0f', number) end

-- The verification as a table, or nil.
local function load(key)
  local values = redis.call('HMGET', key, unpack(FIELDS))
  if not values[1] then return nil end
  local v = {}
  for i, field in ipairs(FIELDS) do v[field] = values[i] end
  v.own = string.sub(key, -16)
  return v
end

local function flat(v)
  local values = {}
  for i, field in ipairs(FIELDS) do values[i] = v[field] or '' end
  values[#FIELDS + 1] = v.own
  return values
end

local function live(v, now) return v.st == 'pending' and now < tonumber(v.ex) end

-- Wrong guesses of the subject: their times, and how many in a row.
local function guesses(key)
  local stored = redis.call('HMGET', key, 'w', 'n')
  local times = {}
  for at in string.gmatch(stored[1] or '', '%S+') do times[#times + 1] = tonumber(at) end
  return times, tonumber(stored[2] or '0')
end

-- Until when the subject may not guess, or nil.
local function locked_until(key, now, per_hour, per_day, in_a_row)
  local times, row = guesses(key)
  if row >= in_a_row then return '9223372036854775807' end
  local found
  for span, limit in pairs({[HOUR] = per_hour, [DAY] = per_day}) do
    local recent = {}
    for _, at in ipairs(times) do if at + span > now then recent[#recent + 1] = at end end
    local first = recent[#recent - limit + 1]
    if #recent >= limit and first then found = math.max(found or 0, first + span) end
  end
  return found and text(found)
end

-- What a request for a message means for a live verification, as core's `Pending::send`.
local function send(key, v, now, code)
  if v.cf ~= '1' then return {'send', '0', '0', flat(v)} end
  if now < tonumber(v.ra) then return {'cooling', flat(v)} end
  if tonumber(v.sn) >= tonumber(v.ms) then return {'exhausted', flat(v)} end
  if v.ro == '1' then
    if not code then return {'needs_code', flat(v)} end
    v.dk, v.dg, v.ck, v.cs = code[1], code[2], code[3], code[4]
  end
  v.sn, v.cf, v.ra = text(tonumber(v.sn) + 1), '0', text(now + tonumber(v.cd))
  redis.call('HSET', key, 'sn', v.sn, 'cf', v.cf, 'ra', v.ra, 'dk', v.dk, 'dg', v.dg, 'ck', v.ck, 'cs', v.cs)
  return {'send', '0', '0', flat(v)}
end
