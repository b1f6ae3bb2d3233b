-- Looks whether the relay's position and the streams are as it left them, and
-- notes, where they are, for which run of Redis that holds.
--
-- KEYS[1]   the position, a hash (see append.lua); the streams it names live in
--           the same slot
-- ARGV[1]   the position that ought to be there
-- ARGV[2]   where nothing waits behind that position, the run_id that is noted with it
--           if it is still this run's; else ''
-- ARGV[3…]  fields and values in turn, '' for none, that are known of that run: where
--           they are others by now it is not noted
-- Returns   {the position or '', a lost stream's key or '', 'full' or ''}; full where
--           Redis evicts nothing and has less than a twentieth of its memory left
local function unchanged()
  for i = 3, #ARGV, 2 do
    if (redis.call('HGET', KEYS[1], ARGV[i]) or '') ~= ARGV[i + 1] then return false end
  end
  return true
end
local full = ''
local memory = redis.call('INFO', 'memory')
local most = tonumber(string.match(memory, 'maxmemory:(%d+)'))
if most > 0 and string.match(memory, 'maxmemory_policy:([%w-]+)') == 'noeviction'
  and tonumber(string.match(memory, 'used_memory:(%d+)')) > most * 0.95 then
  full = 'full'
end
local present = redis.call('HGET', KEYS[1], 'position') or ''
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  local key = string.match(field, '^last:(.*)$')
  if key and lost(KEYS[1], key) then return {present, key, full} end
end
if ARGV[2] ~= '' and present ~= '' and present == ARGV[1] then
  local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  if run == ARGV[2] and redis.call('HGET', KEYS[1], 'run_id') ~= run and unchanged() then
    redis.pcall('HSET', KEYS[1], 'run_id', run) -- out of memory: the next look will do
  end
end
return {present, '', full}
