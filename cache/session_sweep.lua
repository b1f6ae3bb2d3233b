#!lua flags=allow-oom
-- Removes revocations whose tokens have ended, but those that have been prolonged since
-- they were looked up.
--
-- KEYS[1]   the index: sorted set of what is revoked, by how long it is kept
-- KEYS[2…]  what is revoked, under the name of a session
-- ARGV[1]   now, in Unix ms
-- ARGV[2…]  their names in the index, in the order of the keys
-- Returns   how many it has removed

local now, swept = tonumber(ARGV[1]), 0
for i = 2, #KEYS do
  local last = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if last and tonumber(last) <= now then
    redis.call('ZREM', KEYS[1], ARGV[i])
    local value = redis.pcall('GET', KEYS[i])
    -- What has a TTL goes by itself: an earlier release has revoked it again, for longer.
    if type(value) == 'string' and string.sub(value, 1, 2) == '1r' and redis.call('PTTL', KEYS[i]) < 0 then
      redis.call('DEL', KEYS[i])
    end
    swept = swept + 1
  end
end
return swept
