-- Remove head elements, only while they are exactly the batches that were stored.
--   KEYS[1] list   <prefix>:buffer:<stream>
--   KEYS[2] hash   <prefix>:buffer-bytes
--   KEYS[3] hash   <prefix>:buffer-events
--   ARGV    stream, then identity and events of each stored batch, in order
-- The identity is the first 26 bytes of an element (epoch and batch number), so two flushers, a failover or a restored
-- Redis can never remove what was not stored: the first difference ends the removal. Returns the number removed.
local removed = 0
for index = 2, #ARGV, 2 do
  local element = redis.call('LINDEX', KEYS[1], 0)
  if not element or string.sub(element, 1, string.len(ARGV[index])) ~= ARGV[index] then break end
  redis.call('LPOP', KEYS[1])
  redis.call('HINCRBY', KEYS[2], ARGV[1], -string.len(element))
  redis.call('HINCRBY', KEYS[3], ARGV[1], -tonumber(ARGV[index + 1]))
  removed = removed + 1
end
if redis.call('LLEN', KEYS[1]) == 0 then
  redis.call('HDEL', KEYS[2], ARGV[1])
  redis.call('HDEL', KEYS[3], ARGV[1])
end
return removed
