-- Takes parked events that are due. Each counts as delivered, and is due again
-- after the lease unless it is settled or renewed before.
--
-- KEYS: of each topic: parked (sorted set), parked entries (hash)
-- ARGV: 1 how many at most, 2 lease in ms
-- Returns: 1 ms until the next is due (-1: nothing is parked), then for each
-- event: number of its topic (from 1), id, deliveries with this one, parcel.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local left = tonumber(ARGV[1])
local lease = string.format('%.0f', now + ARGV[2])
local taken = {-1}
for i = 1, #KEYS, 2 do
  local parked, entries = KEYS[i], KEYS[i + 1]
  if left > 0 then
    local due = redis.call('ZRANGE', parked, '-inf', string.format('%.0f', now), 'BYSCORE', 'LIMIT', 0, left)
    for _, id in ipairs(due) do
      local parcel = redis.call('HGET', entries, id)
      if parcel then
        redis.call('ZADD', parked, lease, id)
        local n = redis.call('HINCRBY', entries, id .. ' n', 1)
        taken[#taken + 1] = (i + 1) / 2
        taken[#taken + 1] = id
        taken[#taken + 1] = n
        taken[#taken + 1] = parcel
        left = left - 1
      else
        redis.call('ZREM', parked, id)
      end
    end
  end
  local first = redis.call('ZRANGE', parked, 0, 0, 'WITHSCORES')
  if first[2] then
    local ms = math.max(0, tonumber(first[2]) - now)
    if taken[1] < 0 or ms < taken[1] then
      taken[1] = ms
    end
  end
end
return taken
