-- KEYS: the verification, the subject's guesses.
-- ARGV: now, per_hour, per_day, in_a_row, service, purpose or '', check id, forget guesses at,
--       fingerprints joined by commas, then digest key and digest of each candidate.
local now = tonumber(ARGV[1])
local v, unreadable = load(KEYS[1], now)
if unreadable then return {'corrupt'} end
if not v or v[SV] ~= ARGV[5] then return {'refused', '0'} end
local fits = ARGV[6] == '' or ARGV[6] == v[PU]

-- A repeat of this check gets the stored answer; the same id with another code gets none, and an
-- approval is repeated only to whoever asks for its purpose.
for _, answer in ipairs(v[AN]) do
  if answer[1] == ARGV[7] then
    for print in string.gmatch(ARGV[9], '[^,]+') do
      if string.find(answer[3], print, 1, true) and (fits or answer[2] ~= 'approved') then
        -- Written once more, as it is: whoever then waits for a replica waits for a write of this
        -- connection, and the approval may have been another's.
        if answer[2] == 'approved' then save(KEYS[1], v) end
        return {answer[2], '1'}
      end
    end
    return {'refused', '0'}
  end
end

local log, foreign = guesses(KEYS[2])
if foreign then return {'corrupt'} end
if not live(v, now)
  or locked_until(log, now, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])) then
  return {'refused', '0'}
end

-- Equality of keyed digests: whoever lacks the key cannot choose what is compared, so the time
-- this takes tells nothing about the code.
local known, matched = false, false
for i = 10, #ARGV, 2 do
  if ARGV[i] == v[DK] then known = true end
  if ARGV[i] == v[DK] and ARGV[i + 1] == v[DG] then matched = true end
end
-- A key that whoever opened it was told of first: no guess, nothing is used up.
if not known then return {'corrupt'} end

local verdict = 'wrong'
if matched and fits then
  verdict = 'approved'
  close(v, APPROVED)
else
  v[CL] = math.max(v[CL] - 1, 0)
  if v[CL] == 0 then
    verdict = 'last_wrong'
    close(v, EXHAUSTED)
  end
end
v[AN][#v[AN] + 1] = {ARGV[7], verdict, ARGV[9]}

-- The verification first: whatever stops the script in between, a check was used up.
save(KEYS[1], v)
if verdict == 'approved' then
  redis.call('DEL', KEYS[2])
  return {verdict, '0', v[CH]}
else
  local kept = {log[1] + 1}
  for i = 2, #log do
    if log[i] + DAY > now then kept[#kept + 1] = log[i] end
  end
  kept[#kept + 1] = now
  redis.call('SET', KEYS[2], cmsgpack.pack(kept), 'PXAT', ARGV[8])
end
return {verdict, '0'}
