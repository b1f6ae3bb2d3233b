#!lua flags=no-writes
-- Tells at which shapes views were fenced, and in which run of Redis that is known.
--
-- KEYS[1]  the position, a hash (see append.lua)
-- ARGV     its fields shape:<view>
-- Returns  {the run_id, and of each field the shape or ''}
local found = {string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')}
for i, field in ipairs(ARGV) do found[i + 1] = redis.call('HGET', KEYS[1], field) or '' end
return found
