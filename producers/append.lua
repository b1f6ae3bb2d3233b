-- Appends events to streams and moves the relay's position, both or neither.
--
-- KEYS[1]   the position, a hash: position, epoch, run_id and, for each stream
--           that the relay wrote to, last:<key> and added:<key>
-- KEYS[2…]  the streams
-- ARGV[1]   the position that must be there
-- ARGV[2]   the position that will be
-- ARGV[3…]  for each event: the number of its stream among KEYS, how many strings
--           follow, and those: field names and values in turn
-- Returns   {'ok'}             done
--           {'done'}           was done before: the reply got lost
--           {'moved', where}   another position is there, '' where none is
--           {'lost', key}      a stream is not the one that was written to
--           {'type', key}      a key holds something else than a stream
--
-- Lua has no rollback, so everything is checked before the first write. The first
-- write is an XADD, which Redis refuses when it is out of memory; what follows it
-- in a script it lets pass.
local present = redis.call('HGET', KEYS[1], 'position') or ''
if present == ARGV[2] then return {'done'} end
if present ~= ARGV[1] then return {'moved', present} end
local added = {}
for i = 2, #KEYS do
  local key = KEYS[i]
  local kind = redis.call('TYPE', key).ok
  if kind ~= 'stream' and kind ~= 'none' then return {'type', key} end
  local gone, count = lost(KEYS[1], key)
  if gone then return {'lost', key} end
  added[key] = count
end
local last = {}
local at = 3
while at <= #ARGV do
  local key, count = KEYS[tonumber(ARGV[at])], tonumber(ARGV[at + 1])
  last[key] = redis.call('XADD', key, '*', unpack(ARGV, at + 2, at + 1 + count))
  added[key] = added[key] + 1
  at = at + 2 + count
end
local fields = {'position', ARGV[2]}
for key, id in pairs(last) do
  fields[#fields + 1] = 'added:' .. key
  fields[#fields + 1] = added[key]
  fields[#fields + 1] = 'last:' .. key
  fields[#fields + 1] = id
end
redis.call('HSET', KEYS[1], unpack(fields))
return {'ok'}
