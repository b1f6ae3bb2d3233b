#!lua
-- Notes that an answer is being made for a scope, unless the scope has been
-- forgotten since it was asked for.
--
-- KEYS[1]  the index of the scope's answers: sorted set, by when they are over
-- KEYS[2]  what the scope has asked for: sorted set, by when that is over
-- KEYS[3]  up to which event the scope is forgotten
-- ARGV[1]  the event that asked, in the form that KEYS[3] has
-- ARGV[2]  the answer's key
-- ARGV[3]  how long an answer may live, in milliseconds
-- ARGV[4]  how long an answer may take, in milliseconds
--
-- Returns 1, or 0 where the scope is forgotten and nothing was noted.
local forgotten = redis.call('GET', KEYS[3])
if forgotten and forgotten >= ARGV[1] then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function note(set, life)
  redis.call('ZREMRANGEBYSCORE', set, '-inf', now)
  redis.call('ZADD', set, 'GT', now + life, ARGV[2])
  if redis.call('PTTL', set) < tonumber(life) then
    redis.call('PEXPIRE', set, life)
  end
end
note(KEYS[1], ARGV[3])
note(KEYS[2], ARGV[4])
return 1
