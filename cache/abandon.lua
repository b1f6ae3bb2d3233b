#!lua flags=allow-oom
-- Ends a lease without a value. It allocates nothing, so it may run when Redis
-- is full.
--
-- KEYS[1]  the entry
-- ARGV[1]  the token
-- ARGV[2]  for how long nobody is given the lease, ms
-- Returns  now in us

local us = now()
local pause = tonumber(ARGV[2])
local head = head_of(KEYS[1])
if head and token_of(head) == ARGV[1] then
  redis.call('SETRANGE', KEYS[1], LEASE, pause > 0 and lease(PAUSE, math.floor(us / 1000) + pause) or NO_LEASE)
end
return us
