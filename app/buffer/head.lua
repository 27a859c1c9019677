-- Read the oldest elements of a stream's list without moving them.
--   KEYS[1] list   <prefix>:buffer:<stream>
--   ARGV    max_elements, max_bytes
-- Returns at least one element where there is one, then as many as fit into max_bytes.
local elements, bytes = {}, 0
for index = 0, tonumber(ARGV[1]) - 1 do
  local element = redis.call('LINDEX', KEYS[1], index)
  if not element then break end
  bytes = bytes + string.len(element)
  if index > 0 and bytes > tonumber(ARGV[2]) then break end
  elements[index + 1] = element
end
return elements
