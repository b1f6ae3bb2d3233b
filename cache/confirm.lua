#!lua flags=allow-oom
-- Notes in a view's key that this Redis lacks nothing that the one before it had.
--
-- KEYS[1]  the view's key
-- ARGV[1]  the run_id that is confirmed
-- Returns  0 where this is another Redis by now, else 1

if run_id() ~= ARGV[1] then
  return 0
end
local old = redis.pcall('GET', KEYS[1])
if type(old) == 'string' and #old == 77 and string.sub(old, 1, 1) == SCHEMA then
  redis.call('SETRANGE', KEYS[1], 37, ARGV[1])
end
return 1
