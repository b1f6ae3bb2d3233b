-- Moves the due time of parked events that somebody has taken: forward while
-- they are worked on, or to now where they are handed back.
--
-- KEYS: 1 parked (sorted set), 2 parked entries (hash)
-- ARGV: 1 lease in ms, 2 what to add to their deliveries (0, or -1 to take the
--       last one back), then the ids
-- Returns how many are still parked. Half a millisecond in the due time says that
-- an event is taken and not answered, as in take.lua.
local t = redis.call('TIME')
local due = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000) + ARGV[1])
if ARGV[2] == '0' then
  due = due .. '.5'
end
local n = 0
for i = 3, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], due, ARGV[i])
    if ARGV[2] ~= '0' then
      redis.call('HINCRBY', KEYS[2], ARGV[i] .. ' n', ARGV[2])
    end
    n = n + 1
  end
end
return n
