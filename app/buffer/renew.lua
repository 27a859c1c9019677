-- Prolong a lease that is still ours.   KEYS[1] lease   ARGV token, ttl_ms
-- Returns 1 when prolonged, 0 when it has expired, -1 when somebody else holds it.
local holder = redis.call('GET', KEYS[1])
if not holder then return 0 end
if holder ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
