#!lua flags=allow-oom
-- Keeps a token out, and tells whoever remembers it. Of two revocations the later
-- time and the longer life stand, in whichever order they come. It has no TTL, or
-- Redis might evict it, and lives until it is swept.
--
-- KEYS[1]  what is revoked, under the name of a session
-- KEYS[2]  the index: sorted set of what is revoked, by how long it is kept
-- ARGV[1]  when, in Unix ms: of a user, tokens issued until then are out
-- ARGV[2]  how long it is kept, in Unix ms
-- ARGV[3]  its name in the index
-- ARGV[4]  the channel
-- ARGV[5]  what is announced there
-- Returns  1

local at, last = tonumber(ARGV[1]), tonumber(ARGV[2])
local before = redis.call('GET', KEYS[1])
if before then
  if string.sub(before, 1, 2) == '1r' then
    at = math.max(at, tonumber(string.sub(before, 3)) or 0)
  end
  -- Of a session; or of a revocation by an earlier release, which had a TTL.
  last = math.max(last, redis.call('PEXPIRETIME', KEYS[1]))
end
redis.call('ZADD', KEYS[2], 'GT', string.format('%.0f', last), ARGV[3])
redis.call('SET', KEYS[1], string.format('1r%.0f', at))
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
