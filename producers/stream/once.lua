-- Appends events, each of them once: one whose key is there was appended before, and
-- what the key holds is the id of its entry.
--
-- KEYS: for each event 1 its stream, 2 its key (the stream again where it has none)
-- ARGV: 1 how long a key lives in ms; then for each event how many fields and values
-- there are, and these
-- Returns for each event the id of its entry, and 1 where it was there before, else 0.
--
-- Redis rolls nothing back, so that all which could fail is tried before the first
-- write. (Out of memory, that write fails; those behind it are then let through.)
local entries = {}
for i = 1, #KEYS, 2 do
  local kind = redis.call('TYPE', KEYS[i]).ok
  if kind ~= 'none' and kind ~= 'stream' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is something else than a stream')
  end
  if KEYS[i + 1] ~= KEYS[i] then
    entries[i] = redis.call('GET', KEYS[i + 1])
  end
end
local reply, at, now = {}, 2, {}
for i = 1, #KEYS, 2 do
  local n = tonumber(ARGV[at])
  local entry, before = entries[i] or now[KEYS[i + 1]], 1
  if not entry then
    entry, before = redis.call('XADD', KEYS[i], '*', unpack(ARGV, at + 1, at + n)), 0
    if KEYS[i + 1] ~= KEYS[i] then
      redis.call('SET', KEYS[i + 1], entry, 'PX', ARGV[1])
      now[KEYS[i + 1]] = entry
    end
  end
  at = at + n + 1
  reply[i], reply[i + 1] = entry, before
end
return reply
