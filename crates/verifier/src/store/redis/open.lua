-- KEYS: the new verification, its slot, the subject's guesses, and the slot's latest verification
-- if the caller knows it.
-- ARGV: now, per_hour, per_day, in_a_row, own id, retention time, own id of KEYS[4] or '', the new
-- verification without its last two fields, '1' if KEYS[4] is to be replaced or changed.
-- The caller knows the rest of a new verification, so only the time of opening is returned.
local log, foreign = guesses(KEYS[3])
if foreign then return {'corrupt'} end
local locked = locked_until(log, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]))
if locked then return {'locked', locked} end

-- Every key must be declared, so return a latest id that the caller did not name, and let it retry.
local follows, withdrawn = '0', nil
local new = ARGV[8] .. cmsgpack.pack(now - TIME, now)
local latest = redis.call('GET', KEYS[2])
if latest then
  if latest ~= ARGV[7] then return {'latest', latest} end
  local v, unreadable = load(KEYS[4])
  if unreadable then return {'corrupt'} end
  if v and live(v) then
    -- The message of a refused one is sent now, and the slot must last as long as its code.
    if v[CF] == REFUSED then redis.call('PEXPIRE', KEYS[2], ARGV[6]) end
    local asked = cmsgpack.unpack(new)
    if v[VT] ~= asked[VT] then
      if ARGV[9] ~= '1' then return {'other_content', flat(KEYS[4], v)} end
      withdrawn = v
    elseif v[DT] == asked[DT] then
      return send(KEYS[4], v, nil)
    else
      if ARGV[9] ~= '1' then return {'other_details', flat(KEYS[4], v)} end
      v[OK], v[OS], v[DT] = asked[OK], asked[OS], asked[DT]
      v[LS] = math.min(v[SN] + asked[LS] - 1, v[MS])
      save(KEYS[4], v)
      return send(KEYS[4], v, nil, asked[LS] - 1)
    end
  end
  if v and v[ST] == APPROVED then follows = '1' end
end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'taken'} end

if withdrawn then
  close(withdrawn, CANCELED)
  save(KEYS[4], withdrawn)
end
redis.call('SET', KEYS[1], new, 'PX', ARGV[6])
redis.call('SET', KEYS[2], ARGV[5], 'PX', ARGV[6])
return {'new', follows, withdrawn and '1' or '0', now}
