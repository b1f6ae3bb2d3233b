-- Removes entries that every group has acknowledged, or, where there is no group,
-- those that have waited for one long enough.
--
-- KEYS: 1 stream
-- ARGV: 1 ms that an entry stays at least, 2 ms that it stays where there is no
--       group, then the groups that must be there
-- Returns how many it removed, or -1 where a group is missing: when it comes it
-- reads from the start, so nothing is known to be acknowledged.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return 0
end

-- Ids are <ms>-<number> with up to 20 digits each, more than Lua's numbers hold.
local function less(a, b)
  local a1, a2 = string.match(a, '^(%d+)-(%d+)$')
  local b1, b2 = string.match(b, '^(%d+)-(%d+)$')
  if a1 ~= b1 then
    if #a1 ~= #b1 then return #a1 < #b1 end
    return a1 < b1
  end
  if #a2 ~= #b2 then return #a2 < #b2 end
  return a2 < b2
end

local groups = redis.call('XINFO', 'GROUPS', KEYS[1])
local t = redis.call('TIME')
local keep = #groups > 0 and ARGV[1] or ARGV[2]
local floor = string.format('%.0f-0', t[1] * 1000 + math.floor(t[2] / 1000) - keep)
local missing = {}
for i = 3, #ARGV do
  missing[ARGV[i]] = true
end
for _, info in ipairs(groups) do
  local group = {}
  for i = 1, #info, 2 do
    group[info[i]] = info[i + 1]
  end
  missing[group['name']] = nil
  local oldest = group['last-delivered-id']
  local pending = redis.call('XPENDING', KEYS[1], group['name'])
  if pending[1] > 0 and less(pending[2], oldest) then
    oldest = pending[2]
  end
  if less(oldest, floor) then
    floor = oldest
  end
end
if next(missing) then
  return -1
end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', floor)
