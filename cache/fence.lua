#!lua flags=allow-oom
-- Makes a view's key, or raises its fence: every entry of the view that is older
-- no longer counts. The key is the schema, the version and the run_id that is
-- confirmed, none at first. It lives without a TTL.
--
-- KEYS[1]  the view's key
-- ARGV[1]  the version
-- ARGV[2]  raise, or create: leave a key that is there alone
-- Returns  1 where it did something, else 0

local old = redis.pcall('GET', KEYS[1])
if type(old) == 'string' and #old == 77 and string.sub(old, 1, 1) == SCHEMA then
  if ARGV[2] == 'create' or not newer(ARGV[1], string.sub(old, 2, 37)) then
    return 0
  end
  redis.call('SETRANGE', KEYS[1], 1, ARGV[1])
  return 1
end
redis.call('SET', KEYS[1], SCHEMA .. ARGV[1] .. string.rep('-', 40))
return 1
