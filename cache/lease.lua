#!lua
-- Takes the lease of an entry, unless another holds it, or a pause is on. A value
-- stays as it is.
-- The holder's own token is granted again, since a client repeats a command
-- whose reply it lost.
--
-- KEYS[1]  the entry
-- ARGV[1]  the token, 8 bytes
-- ARGV[2]  how long the lease lives, ms
-- ARGV[3]  how much longer the key lives, ms
-- ARGV[4]  may be left out: the value that the caller has seen, as value_of tells
--          it, empty for none. Where another is there, no lease is taken
-- Returns  { 1 granted, 0 held by another or 2 another value is there, now in us,
--            end of the lease that is there in ms, run_id }

local token, life, grace = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local us = now()
local ms = math.floor(us / 1000)
local head = head_of(KEYS[1])

if head and lease_of(head) ~= NO_LEASE and token_of(head) ~= token and deadline_of(head) > ms then
  return { 0, us, deadline_of(head), run_id() }
end

if ARGV[4] and head and state_of(head) ~= 'f' and value_of(head) ~= ARGV[4] then
  return { 2, us, 0, run_id() }
end

local deadline = ms + life
if head then
  redis.call('SETRANGE', KEYS[1], LEASE, lease(token, deadline))
  outlive(KEYS[1], life + grace)
else
  redis.call('SET', KEYS[1], fence(NO_VERSION, lease(token, deadline)), 'PX', life + grace)
end
return { 1, us, deadline, run_id() }
