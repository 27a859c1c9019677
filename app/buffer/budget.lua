-- May one more request go to this venue now? One budget for all workers of all hosts (a token bucket, kept as the time at
-- which the next evenly spaced request would be due).
--   KEYS[1] string  <prefix>:budget:<venue>:<kind>   that time, microseconds, with a TTL
--   KEYS[2] string  <prefix>:blocked:<venue>         exists while the venue told us to stay away, with that TTL
--   ARGV    interval_us, burst
-- Returns 0 when the request may go (and is counted), else the microseconds after which to ask again.
local blocked = redis.call('PTTL', KEYS[2])
if blocked > 0 then return blocked * 1000 end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local due = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local allowed_at = due - (burst - 1) * interval
if allowed_at > now then return allowed_at - now end
local next_due = due + interval
redis.call('SET', KEYS[1], string.format('%.0f', next_due), 'PX', math.ceil((next_due - now) / 1000) + 1000)
return 0
