#!lua
-- Keeps a token out, and tells whoever remembers it. Of two revocations the later
-- time and the longer life stand, in whichever order they come.
--
-- KEYS[1]  what is revoked, under the name of a session
-- ARGV[1]  when, in Unix ms: of a user, tokens issued until then are out
-- ARGV[2]  how long it is kept, in Unix ms
-- ARGV[3]  the channel
-- ARGV[4]  what is announced there
-- Returns  1

local at, last = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = redis.call('GET', KEYS[1])
if before then
  if string.sub(before, 1, 2) == '1r' then
    at = math.max(at, tonumber(string.sub(before, 3)) or 0)
  end
  last = math.max(last, redis.call('PEXPIRETIME', KEYS[1]))
end
redis.call('SET', KEYS[1], string.format('1r%.0f', at), 'PXAT', string.format('%.0f', last))
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
