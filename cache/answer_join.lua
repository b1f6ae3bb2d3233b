#!lua
-- Has a question join the one whose holder makes the answer at this moment.
--
-- KEYS[1]  the answer's entry
-- KEYS[2]  the line: a hash, see answer_line.go
-- ARGV[1]  the event that asks, in the form of eventOrder
-- ARGV[2]  1 where nobody waits for it, else 0
-- ARGV[3]  1 where it is to end in no silence (durable); else, and of an older release, not
-- Returns  1, or 0 where there is nothing to join: nobody makes the answer, or not for
--          an event, or for this very one, or for one that is given less

local head = head_of(KEYS[1])
if not head or lease_of(head) == NO_LEASE or deadline_of(head) <= math.floor(now() / 1000) then
  return 0
end
local line = call('HMGET', KEYS[2], 't', 'by', 'w', 'n')
if line[1] ~= token_of(head) or line[2] == ARGV[1] or line[3] == '1' and ARGV[2] ~= '1' then
  return 0
end
if line[4] < ARGV[1] then
  call('HSET', KEYS[2], 'n', ARGV[1])
end
if ARGV[2] ~= '1' then
  call('HINCRBY', KEYS[2], 'c', '1')
end
if ARGV[3] == '1' then
  call('HSET', KEYS[2], 'd', '1')
end
return 1
