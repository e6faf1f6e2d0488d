-- Counts one event for every key, or none. ARGV is now, then the interval and
-- the bucket of each key, all in microseconds. Returns how long to wait, and 0
-- for an event that was counted.
local now = tonumber(ARGV[1])
local full, wait = {}, 0
for i, key in ipairs(KEYS) do
	local interval, bucket = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
	local stored = tonumber(redis.call('GET', key) or now)
	full[i] = math.min(math.max(stored, now), now + bucket) + interval
	wait = math.max(wait, full[i] - bucket - now)
end
if wait > 0 then
	return wait
end
for i, key in ipairs(KEYS) do
	local left = math.ceil((full[i] - now) / 1000) + 1000
	redis.call('SET', key, string.format('%.0f', full[i]), 'PX', left)
end
return 0
