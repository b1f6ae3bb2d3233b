#!lua
-- Lets other questions for an answer join the one whose holder makes it.
--
-- KEYS[1]  the answer's entry
-- KEYS[2]  the line: a hash, see answer_line.go
-- ARGV[1]  the lease's token
-- ARGV[2]  the event that asked, in the form of eventOrder
-- ARGV[3]  1 where nobody waits for it, else 0
-- ARGV[4]  how long the line is kept, ms
-- Returns  1, or 0 where the lease is another's by now

local head = head_of(KEYS[1])
if not head or token_of(head) ~= ARGV[1] then
  return 0
end
local newest = call('HGET', KEYS[2], 'n')
if not newest or newest < ARGV[2] then
  newest = ARGV[2]
end
call('HSET', KEYS[2], 't', ARGV[1], 'by', ARGV[2], 'w', ARGV[3], 'n', newest)
call('PEXPIRE', KEYS[2], ARGV[4])
return 1
