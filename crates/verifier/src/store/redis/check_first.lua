-- The usual way of check.lua: the right code of a live verification that nobody has guessed at. The
-- part below is for all others, and for what cannot be read.
local function approved()
  local packed = redis.call('GET', KEYS[1])
  local fine, v = pcall(cmsgpack.unpack, packed or '')
  if not fine or type(v) ~= 'table' then return false end
  -- Numbers are at 1, 3 to 5, 10 to 15, 26 and 27, the answers at 25, texts elsewhere (see
  -- state.lua).
  for i = 1, 27 do
    local is_number = i == 1 or (i >= 3 and i <= 5) or (i >= 10 and i <= 15) or i >= 26
    if i ~= 25 and type(v[i]) ~= (is_number and 'number' or 'string') then return false end
  end
  -- 27 is when it was opened, 26 how far that was ahead of this server, 10 for how long, 13 its
  -- cooldown, 20 and 21 its digest.
  if type(v[25]) ~= 'table' or #v[25] ~= 0 or v[1] ~= 3 or v[2] ~= 'p' or v[6] ~= ARGV[5]
    or now >= v[27] + v[10] or TIME >= v[27] - v[26] + v[10]
    or v[27] - v[26] - TIME > math.max(v[13], 5000)
    or ARGV[4] == '0' or redis.call('EXISTS', KEYS[2]) ~= 0 then
    return false
  end
  for field, value in pairs(cmsgpack.unpack(ARGV[6])) do
    if v[field] ~= value then return false end
  end
  local matched = false
  for i = 9, #ARGV, 2 do
    if ARGV[i] == v[20] and ARGV[i + 1] == v[21] then matched = true end
  end
  if not matched then return false end
  v[2] = 'a'
  for i = 16, 24 do
    if i ~= 18 then v[i] = '' end
  end
  v[25][1] = {ARGV[7], 'approved', ARGV[8]}
  redis.call('SET', KEYS[1], cmsgpack.pack(v), 'KEEPTTL')
  return {'approved', '0', v[7], v[8], v[9]}
end
local answer = approved()
if answer then return answer end
