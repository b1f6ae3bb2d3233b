#!lua flags=allow-oom
-- Notes at which shapes views were fenced. The fences are in Redis before this is:
-- one that loses its last writes loses the note with them, or before. A Redis that
-- was restarted in between may have lost the fences already, so it notes nothing.
--
-- KEYS[1]  the position, a hash (see append.lua); its fields shape:<view>
-- ARGV[1]  the position that must be there
-- ARGV[2]  the run_id of before the fences
-- ARGV[3…] fields and shapes in turn
-- Returns  {'ok'}              done
--          {'moved', where}    as append.lua does
--          {'restarted', run}  it is another run of Redis
local present = redis.call('HGET', KEYS[1], 'position') or ''
if present ~= ARGV[1] then return {'moved', present} end
local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
if run ~= ARGV[2] then return {'restarted', run} end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
return {'ok'}
