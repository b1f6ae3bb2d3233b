-- Counts what a group has not read, without bringing it.
--
-- KEYS: 1 stream
-- ARGV: 1 id of the newest entry that was read, 2 how many to count at most
-- Returns: how many, and the id of the first ('' for none).
local found = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
return {#found, found[1] and found[1][1] or ''}
