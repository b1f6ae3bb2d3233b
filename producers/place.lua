-- Sets the relay's position without appending anything.
--
-- KEYS[1]   the position, a hash (see append.lua)
-- ARGV[1]   the position that must be there; '' where none must be
-- ARGV[2]   the position that will be
-- ARGV[3]   its epoch
-- ARGV[4]   '1': begin anew, and forget what was noted about streams
-- Returns   {'ok'}, {'done'} or {'moved', where}, as append.lua does
local present = redis.call('HGET', KEYS[1], 'position') or ''
if present == ARGV[2] then return {'done'} end
if present ~= ARGV[1] then return {'moved', present} end
if ARGV[4] == '1' then redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'position', ARGV[2], 'epoch', ARGV[3])
return {'ok'}
