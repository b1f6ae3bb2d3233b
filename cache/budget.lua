#!lua
-- Spends of a model's budgets, of all or of none. Each is counted in windows that
-- begin at multiples of its length since 1970, by the clock of Redis.
--
-- KEYS[1]  what was spent: a hash, of each budget "<window> <spent>"
-- ARGV     for each budget: its name, the window's length in ms, the limit, the cost
-- Returns  { 0, how long until the windows that are full are over, ms }, or
--          { the window of each budget … } where it was spent

local ms = math.floor(now() / 1000)

local function spent_in(name, window)
  local text = call('HGET', KEYS[1], name)
  local there, spent = string.match(text or '', '^(%d+) (%d+)$')
  return there == window and tonumber(spent) or 0
end

local wait, longest, windows, sums = 0, 0, {}, {}
for i = 1, #ARGV, 4 do
  local name, length, limit, cost = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local number = math.floor(ms / length)
  local window = string.format('%.0f', number)
  local sum = spent_in(name, window) + cost
  if sum > limit then
    wait = math.max(wait, (number + 1) * length - ms)
  end
  longest = math.max(longest, length)
  windows[#windows + 1] = window
  sums[#sums + 1] = string.format('%.0f', sum)
end
if wait > 0 then
  return { '0', string.format('%.0f', wait) }
end
for i = 1, #windows do
  call('HSET', KEYS[1], ARGV[4 * i - 3], windows[i] .. ' ' .. sums[i])
end
outlive(KEYS[1], longest)
return windows
