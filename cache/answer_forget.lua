#!lua
-- Forgets what a scope was asked for up to an event.
--
-- KEYS[1]  the index of the scope's answers: sorted set, by when they are over
-- KEYS[2]  what the scope has asked for: sorted set
-- KEYS[3]  up to which event the scope is forgotten
-- ARGV[1]  the event that forgets, in the form that KEYS[3] has
-- ARGV[2]  how long to remember that, in milliseconds
--
-- Returns the keys of the scope's answers. They stay in the index until their
-- time is over, so that a repetition finds what the first one left.
local forgotten = redis.call('GET', KEYS[3])
if not forgotten or forgotten < ARGV[1] then
  redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
end
redis.call('DEL', KEYS[2])
return redis.call('ZRANGE', KEYS[1], 0, -1)
