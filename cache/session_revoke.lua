#!lua flags=allow-oom
-- Keeps a token out, and tells whoever remembers it. Of two revocations the later
-- time and the longer life stand, in whichever order they come. It has no TTL, or
-- Redis might evict it, and lives until it is swept.
--
-- A session that is there has an end, after which nobody could come in by it: where the
-- revocation does not say one, it is kept a little longer than that, and the s behind
-- its time says so to those who repeat it.
--
-- KEYS[1]  what is revoked, under the name of a session
-- KEYS[2]  the index: sorted set of what is revoked, by how long it is kept
-- ARGV[1]  when, in Unix ms: of a user, tokens issued until then are out
-- ARGV[2]  how long it is kept, in Unix ms
-- ARGV[3]  its name in the index
-- ARGV[4]  the channel
-- ARGV[5]  what is announced there
-- ARGV[6]  how long it outlasts a session that is there, in ms; 0: ARGV[2] is what was said
-- Returns  1

local at, last, more = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[6])
local session = ''
local before = redis.call('GET', KEYS[1])
if before then
  local ends, kept = redis.call('PEXPIRETIME', KEYS[1]), nil
  local time, mark = string.match(before, '^1r(%d+)(s?)$')
  if time then
    at, session = math.max(at, tonumber(time)), mark
    kept = mark == 's' and redis.call('ZSCORE', KEYS[2], ARGV[3])
  elseif string.sub(before, 1, 2) == '1l' and ends > 0 then
    session, kept = 's', ends + more
  end
  if more > 0 and kept then
    last = tonumber(kept)
  end
  -- Of a session; or of a revocation by an earlier release, which had a TTL.
  last = math.max(last, ends)
end
redis.call('ZADD', KEYS[2], 'GT', string.format('%.0f', last), ARGV[3])
redis.call('SET', KEYS[1], string.format('1r%.0f', at) .. session)
redis.call('PUBLISH', ARGV[4], ARGV[5])
return 1
