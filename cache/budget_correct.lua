#!lua flags=allow-oom
-- Corrects what was spent, where its window is not over.
--
-- KEYS[1]  what was spent: a hash, of each budget "<window> <spent>"
-- ARGV     for each budget: its name, the window, what is to be added, which may be negative
-- Returns  1

for i = 1, #ARGV, 3 do
  local there, spent = string.match(call('HGET', KEYS[1], ARGV[i]) or '', '^(%d+) (%d+)$')
  if there == ARGV[i + 1] then
    call('HSET', KEYS[1], ARGV[i], there .. ' ' .. string.format('%.0f', math.max(tonumber(spent) + tonumber(ARGV[i + 2]), 0)))
  end
end
return 1
