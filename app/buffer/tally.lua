-- Add what one process has counted since its last call to the sums of all, once: a call whose answer was lost may be repeated.
--   KEYS[1] hash    <prefix>:tally               series -> sum
--   KEYS[2] string  <prefix>:tallied:<process>   number of the last call that was added, with a TTL
--   ARGV    number, ttl_ms, then series and difference, in turn
-- Returns 1 when it was added, 0 when it had been.
if tonumber(redis.call('GET', KEYS[2]) or '0') >= tonumber(ARGV[1]) then return 0 end
for index = 3, #ARGV, 2 do
  redis.call('HINCRBYFLOAT', KEYS[1], ARGV[index], ARGV[index + 1])
end
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
return 1
