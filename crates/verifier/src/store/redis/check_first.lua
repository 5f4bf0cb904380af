-- Fast path of check.lua: the right code of a live verification whose subject has no wrong guesses.
-- All other cases, and unreadable records, fall through to the code below. Comparing a value of
-- another type raises an error, which ends this part before it writes anything.
local function approved()
  local v = cmsgpack.unpack(redis.call('GET', KEYS[1]))
  -- Fields 1, 3 to 5, 10 to 15, 26 and 27 are numbers, 25 holds the answers, all others are strings
  -- (see state.lua).
  if v[1] ~= 3 or v[2] ~= 'p' or v[6] ~= ARGV[5] or ARGV[4] == '0' or #v ~= 27 or #v[25] ~= 0
    or v[3] < 0 or v[4] < 0 or v[5] < 0 or v[11] < 0 or v[12] < 0 or v[14] < 0 or v[15] < 0
    or v[7] < '' or v[8] < '' or v[9] < '' or v[16] < '' or v[17] < '' or v[18] < ''
    or v[19] < '' or v[22] < '' or v[23] < '' or v[24] < '' then
    return false
  end
  -- Field 27 is the time of opening, 26 how far that was ahead of this server, 10 the lifetime, 13
  -- the cooldown.
  local life, opened = v[10], v[27] - v[26]
  local ahead = opened - TIME
  if now >= v[27] + life or TIME >= opened + life or (ahead > 5000 and ahead > v[13])
    or v[13] < 0 or life < 0 or v[26] < 0 or v[27] < 0 then
    return false
  end
  if ARGV[6] ~= '\128' then
    for field, value in pairs(cmsgpack.unpack(ARGV[6])) do
      if v[field] ~= value then return false end
    end
  end
  local matched = false
  for i = 9, #ARGV, 2 do
    if ARGV[i] == v[20] and ARGV[i + 1] == v[21] then matched = true end
  end
  if not matched or redis.call('EXISTS', KEYS[2]) ~= 0 then return false end
  v[2], v[16], v[17], v[19], v[20], v[21], v[22], v[23], v[24] = 'a', '', '', '', '', '', '', '', ''
  v[25][1] = {ARGV[7], 'approved', ARGV[8]}
  redis.call('SET', KEYS[1], cmsgpack.pack(v), 'KEEPTTL')
  return {'approved', '0', v[7], v[8], v[9]}
end
local is_usual, answer = pcall(approved)
if is_usual and answer then return answer end
