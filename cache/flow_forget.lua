#!lua flags=allow-oom
-- Forgets what has been told of an answer that is being made, and ends it for those
-- who follow it.
--
-- KEYS[1]  the flow: a stream
-- ARGV[1]  the channel
-- ARGV[2]  the end mark
-- ARGV[3]  how long the mark is kept, ms
-- Returns  1, or 0 where there was no flow

if call('EXISTS', KEYS[1]) == 0 then
  return 0
end
call('XTRIM', KEYS[1], 'MAXLEN', '0')
local id = call('XADD', KEYS[1], '*', 'g', '-', 'n', '0', 'end', ARGV[2])
call('PUBLISH', ARGV[1], id .. ' - 0 end ' .. ARGV[2])
call('PEXPIRE', KEYS[1], ARGV[3])
return 1
