-- Gives a dead letter back to its group: parked, due at once, never delivered.
--
-- KEYS: 1 dead letters (stream), 2 parked (sorted set), 3 parked entries (hash)
-- ARGV: 1 id of the dead letter, 2 id of the event's own entry, 3 parcel
-- Returns 1, or 0 where the dead letter is gone, replayed or dropped by another.
if #redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1]) == 0 then
  return 0
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[3], ARGV[2] .. ' n', 0)
redis.call('ZADD', KEYS[2], 0, ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[1])
return 1
