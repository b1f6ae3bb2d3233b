#!lua
-- Gives the holder of a lease more time.
--
-- KEYS[1]  the entry
-- ARGV[1]  the token
-- ARGV[2]  the run_id under which the lease was given
-- ARGV[3]  how long the lease lives from now on, ms
-- ARGV[4]  how much longer the key lives, ms
-- Returns  the new end of the lease in ms, or 0 where the lease is lost

local life, grace = tonumber(ARGV[3]), tonumber(ARGV[4])
local head = head_of(KEYS[1])

if not head or token_of(head) ~= ARGV[1] or run_id() ~= ARGV[2] then
  return 0
end

local deadline = math.floor(now() / 1000) + life
redis.call('SETRANGE', KEYS[1], LEASE, lease(ARGV[1], deadline))
outlive(KEYS[1], life + grace)
return deadline
