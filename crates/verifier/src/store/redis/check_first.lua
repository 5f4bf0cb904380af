-- The usual way of check.lua: the right code of a live verification that nobody has guessed at. The
-- part below is for all others, and for what cannot be read.
local function approved()
  local packed = redis.call('GET', KEYS[1])
  local fine, v = pcall(cmsgpack.unpack, packed or '')
  -- 5 is the checks left, 10 and 11 when it was opened and for how long, 20 and 21 its digest (see
  -- state.lua).
  if not fine or type(v) ~= 'table' or v[1] ~= 2 or v[2] ~= 'p' or type(v[5]) ~= 'number'
    or v[6] ~= ARGV[5] or (ARGV[6] ~= '' and ARGV[6] ~= v[8])
    or type(v[10]) ~= 'number' or type(v[11]) ~= 'number' or tonumber(ARGV[1]) >= v[10] + v[11]
    or type(v[22]) ~= 'table' or #v[22] ~= 0
    or ARGV[4] == '0' or redis.call('EXISTS', KEYS[2]) ~= 0 then
    return false
  end
  for i = 1, 22 do
    if v[i] == nil then return false end
  end
  local matched = false
  for i = 10, #ARGV, 2 do
    if ARGV[i] == v[20] and ARGV[i + 1] == v[21] then matched = true end
  end
  if not matched then return false end
  v[2], v[16], v[17], v[19], v[20], v[21] = 'a', '', '', '', '', ''
  v[22][1] = {ARGV[7], 'approved', ARGV[9]}
  redis.call('SET', KEYS[1], cmsgpack.pack(v), 'KEEPTTL')
  return true
end
if approved() then return {'approved', '0'} end
