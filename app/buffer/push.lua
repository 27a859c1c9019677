-- Append one batch to a stream's list, unless the list would pass its bound in bytes.
--   KEYS[1] list   <prefix>:buffer:<stream>   elements as app/codec.py writes them, oldest first
--   KEYS[2] hash   <prefix>:buffer-bytes      stream -> bytes in its list
--   KEYS[3] hash   <prefix>:buffer-events     stream -> events in its list
--   ARGV    stream, element, events, max_bytes, channel
-- Returns the number of events now in the list, or -1 when it is full (nothing has changed then). An empty list takes
-- any element, so one that is larger than the bound cannot block its stream for ever. What was appended is published on
-- `channel`: nothing is kept where nobody listens (docs/decisions/0007-live-views-listen-to-the-push.md).
local size = string.len(ARGV[2])
if redis.call('LLEN', KEYS[1]) > 0 then
  local held = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
  if held + size > tonumber(ARGV[4]) then return -1 end
end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('HINCRBY', KEYS[2], ARGV[1], size)
local events = redis.call('HINCRBY', KEYS[3], ARGV[1], ARGV[3])
redis.pcall('PUBLISH', ARGV[5], ARGV[2]) -- a user of Redis who may not publish there pushes all the same
return events
