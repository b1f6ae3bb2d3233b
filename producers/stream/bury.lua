-- Makes an event a dead letter, and settles it wherever it waits.
--
-- KEYS: 1 stream, 2 dead letters (stream), 3 parked (sorted set), 4 parked entries (hash)
-- ARGV: 1 group, 2 id, then the fields of the dead letter
-- Returns the dead letter's id, or an empty text where the event is settled already:
-- a script whose answer got lost comes again. That is known only while its entry is in
-- the stream; where it is not, two letters are better than none.
--
-- It stores first: Redis rolls nothing back, so that an error on the way must
-- find the event unsettled.
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], ARGV[2], ARGV[2], 1)
local there = redis.pcall('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if not pending.err and #pending == 0 and not there.err and #there > 0 and not redis.call('ZSCORE', KEYS[3], ARGV[2]) then
  return ''
end
local id = redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
redis.pcall('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.pcall('ZREM', KEYS[3], ARGV[2])
redis.pcall('HDEL', KEYS[4], ARGV[2], ARGV[2] .. ' n')
return id
