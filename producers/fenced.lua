#!lua flags=allow-oom
-- Notes at which shapes views were fenced. The fences are in Redis before this is:
-- one that loses its last writes loses the note with them, or before.
--
-- KEYS[1]  the position, a hash (see append.lua); its fields shape:<view>
-- ARGV[1]  the position that must be there
-- ARGV[2…] fields and shapes in turn
-- Returns  {'ok'} or {'moved', where}, as append.lua does
local present = redis.call('HGET', KEYS[1], 'position') or ''
if present ~= ARGV[1] then return {'moved', present} end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return {'ok'}
