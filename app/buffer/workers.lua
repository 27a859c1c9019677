-- The stream workers that are there, and their names forgotten that are not.
--   KEYS[1] set      <prefix>:workers   names of workers that were there
--   KEYS[2] prefix   <prefix>:worker:   of the keys, with a TTL, that hold what each says of itself
-- Returns name, value, name, value, ...
local found = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local told = redis.call('GET', KEYS[2] .. name)
  if told then
    found[#found + 1] = name
    found[#found + 1] = told
  else
    redis.call('SREM', KEYS[1], name)
  end
end
return found
