#!lua flags=allow-oom
-- Ends a lease without a value. It allocates nothing, so it may run when Redis
-- is full.
--
-- KEYS[1]  the entry
-- ARGV[1]  the token
-- Returns  now in us

local head = head_of(KEYS[1])
if head and token_of(head) == ARGV[1] then
  redis.call('SETRANGE', KEYS[1], LEASE, NO_LEASE)
end
return now()
