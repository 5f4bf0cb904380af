-- KEYS: the verification, the subject's guesses.
-- ARGV: now, per_hour, per_day, in_a_row, service, expectations (a MessagePack map of fields),
-- check id, fingerprints joined by commas, then digest key and digest of each candidate.
local v, unreadable = load(KEYS[1])
if unreadable then return {'corrupt'} end
if not v or v[SV] ~= ARGV[5] then return {'refused', '0'} end

local function answered(verdict, repeated)
  if verdict == 'approved' then return {verdict, repeated, v[CH], v[PU], v[MT]} end
  return {verdict, repeated}
end

-- A repeat of this check gets the stored result. The same id with another code or other
-- expectations is refused.
for _, answer in ipairs(v[AN]) do
  if answer[1] == ARGV[7] then
    for print in string.gmatch(ARGV[8], '[^,]+') do
      if string.find(',' .. answer[3] .. ',', ',' .. print .. ',', 1, true) then
        -- Write the record again, unchanged. The caller then waits until a replica has the writes
        -- of its connection, and another connection may have written the approval.
        if answer[2] == 'approved' then save(KEYS[1], v) end
        return answered(answer[2], '1')
      end
    end
    return {'refused', '0'}
  end
end

local log, foreign = guesses(KEYS[2])
if foreign then return {'corrupt'} end
if not live(v)
  or locked_until(log, tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])) then
  return {'refused', '0'}
end

-- A plain comparison is safe: both sides are keyed digests, and a caller without the key cannot
-- choose the digest that is compared, so its timing reveals nothing about the code.
local known, matched = false, false
for i = 9, #ARGV, 2 do
  if ARGV[i] == v[DK] then known = true end
  if ARGV[i] == v[DK] and ARGV[i + 1] == v[DG] then matched = true end
end
-- The code was digested under a key that is not loaded here yet: do not count an attempt.
if not known then return {'corrupt'} end
for field, value in pairs(cmsgpack.unpack(ARGV[6])) do
  if v[field] ~= value then matched = false end
end

local verdict, recipient = 'wrong', v[RT]
if matched then
  verdict = 'approved'
  close(v, APPROVED)
else
  v[CL] = math.max(v[CL] - 1, 0)
  if v[CL] == 0 then
    verdict = 'last_wrong'
    close(v, EXHAUSTED)
  end
end
v[AN][#v[AN] + 1] = {ARGV[7], verdict, ARGV[8]}

-- Write the verification first: if the script is stopped in between, the attempt still counts.
save(KEYS[1], v)
remember(KEYS[2], log, recipient, verdict == 'approved')
return answered(verdict, '0')
