-- Puts an event aside until it is due and acknowledges its stream entry.
--
-- KEYS: 1 stream, 2 parked (sorted set), 3 parked entries (hash)
-- ARGV: 1 group, 2 id, 3 delay in ms, 4 deliveries so far, 5 parcel, 6 empty, or .25
-- where its handler hangs (see take.lua)
-- Returns 1.
--
-- It stores first: Redis rolls nothing back, so that an error on the way (out of
-- memory, a key of another type) must find the entry unacknowledged.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
redis.call('HSET', KEYS[3], ARGV[2], ARGV[5], ARGV[2] .. ' n', ARGV[4])
redis.call('ZADD', KEYS[2], string.format('%.0f', now + ARGV[3]) .. ARGV[6], ARGV[2])
redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
return 1
