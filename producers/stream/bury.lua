-- Makes an event a dead letter, and settles it wherever it waits.
--
-- KEYS: 1 stream, 2 dead letters (stream), 3 parked (sorted set), 4 parked entries (hash)
-- ARGV: 1 group, 2 id, then the fields of the dead letter
-- Returns the dead letter's id.
--
-- It stores first: Redis rolls nothing back, so that an error on the way must
-- find the event unsettled.
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.pcall('ZREM', KEYS[3], ARGV[2])
redis.pcall('HDEL', KEYS[4], ARGV[2], ARGV[2] .. ' n')
return id
