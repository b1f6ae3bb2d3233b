-- Reads dead letters without what is long in them: a letter may have megabytes.
--
-- KEYS: 1 dead letters (stream)
-- ARGV: 1 first id, or ( and the one before it, 2 last id, 3 how many at most,
--       4 bytes after which to stop, 5 bytes of the longest value to return, then
--       the names of the fields to return
-- Returns for each letter: id, bytes of all its fields, and the names and values
-- asked for, in their order; a longer value is left out with its name. Of a
-- dead.parcel the name comes, with an empty value.
local wanted = {}
for i = 6, #ARGV do
  wanted[ARGV[i]] = true
end
local heads, start, bytes = {}, ARGV[1], 0
while #heads < tonumber(ARGV[3]) and bytes < tonumber(ARGV[4]) do
  local letter = redis.call('XRANGE', KEYS[1], start, ARGV[2], 'COUNT', 1)[1]
  if not letter then
    break
  end
  local fields, own, size = {}, letter[2], 0
  for i = 1, #own, 2 do
    size = size + #own[i] + #own[i + 1]
    if own[i] == 'dead.parcel' then
      fields[#fields + 1] = own[i]
      fields[#fields + 1] = ''
    elseif wanted[own[i]] and #own[i + 1] <= tonumber(ARGV[5]) then
      fields[#fields + 1] = own[i]
      fields[#fields + 1] = own[i + 1]
    end
  end
  bytes = bytes + size
  heads[#heads + 1] = {letter[1], size, fields}
  start = '(' .. letter[1]
end
return heads
