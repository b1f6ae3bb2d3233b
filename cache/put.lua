#!lua
-- Stores a value under a lease, unless something newer was applied meanwhile.
-- Either way the lease ends. A put whose reply was lost comes again: it finds its
-- own value, and is accepted again.
--
-- KEYS[1]  the entry
-- ARGV[1]  the token
-- ARGV[2]  the run_id under which the lease was given
-- ARGV[3]  the value's version
-- ARGV[4]  the whole entry, header and all
-- ARGV[5]  how long the key lives, ms
-- Returns  { why it was refused, empty where it was not, now in us }

local us = now()
local head = head_of(KEYS[1])

if head and head == string.sub(ARGV[4], 1, WIDTH) then
  return { '', us }
end
if not head or token_of(head) ~= ARGV[1] then
  return { 'the lease is gone', us }
end
if run_id() ~= ARGV[2] then
  redis.call('SETRANGE', KEYS[1], LEASE, NO_LEASE)
  return { 'redis was restarted since the lease was taken', us }
end
if newer(version_of(head), ARGV[3]) then
  redis.call('SETRANGE', KEYS[1], LEASE, NO_LEASE)
  return { 'the key has changed since', us }
end
redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
return { '', us }
