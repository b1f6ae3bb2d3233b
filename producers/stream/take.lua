-- Takes parked events that are due. Each counts as delivered, and is due again
-- after the lease unless it is settled or renewed before. Half a millisecond in
-- its due time says that it is taken and not answered, a quarter that the handler
-- hangs which had it, alone or with others.
--
-- What is due so was taken by a process that died. Delivered often enough, it may
-- be what kills them: then it is a suspect, as is what hangs, and taken alone, when
-- nothing else is due. Together with others, each death would count as a delivery of them all.
--
-- KEYS: of each topic: parked (sorted set), parked entries (hash)
-- ARGV: 1 how many at most, 2 lease in ms, 3 deliveries that make a suspect, 4 bytes
-- of parcels, about, at most
-- Returns: 1 ms until the next is due (-1: nothing is parked), 2 whether what was
-- taken is a suspect (1 or 0), then for each event: number of its topic (from 1),
-- id, deliveries with this one, parcel.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = string.format('%.0f', now)
local lease = string.format('%.0f.5', now + ARGV[2])
local left, bytes = tonumber(ARGV[1]), tonumber(ARGV[4])
local page = 500
local chosen, suspect = {}, nil
for i = 1, #KEYS, 2 do
  local offset = 0
  while left > 0 do
    local found = redis.call('ZRANGE', KEYS[i], '-inf', due, 'BYSCORE', 'LIMIT', offset, page, 'WITHSCORES')
    for j = 1, #found, 2 do
      local id = found[j]
      local hangs = string.find(found[j + 1], '.25', 1, true)
      local unanswered = string.find(found[j + 1], '.', 1, true)
      if hangs or unanswered and tonumber(redis.call('HGET', KEYS[i + 1], id .. ' n') or 0) >= tonumber(ARGV[3]) then
        suspect = suspect or {i, id}
      elseif left > 0 then
        chosen[#chosen + 1] = {i, id}
        left = left - 1
        bytes = bytes - redis.call('HSTRLEN', KEYS[i + 1], id)
        if bytes <= 0 then
          left = 0
        end
      end
    end
    if #found < 2 * page then
      break
    end
    offset = offset + page
  end
end
local taken = {-1, 0}
if #chosen == 0 and suspect then
  chosen[1] = suspect
  taken[2] = 1
end
for _, event in ipairs(chosen) do
  local i, id = event[1], event[2]
  local parcel = redis.call('HGET', KEYS[i + 1], id)
  if parcel then
    redis.call('ZADD', KEYS[i], lease, id)
    taken[#taken + 1] = (i + 1) / 2
    taken[#taken + 1] = id
    taken[#taken + 1] = redis.call('HINCRBY', KEYS[i + 1], id .. ' n', 1)
    taken[#taken + 1] = parcel
  else
    redis.call('ZREM', KEYS[i], id)
  end
end
for i = 1, #KEYS, 2 do
  local first = redis.call('ZRANGE', KEYS[i], 0, 0, 'WITHSCORES')
  if first[2] then
    local ms = math.ceil(math.max(0, tonumber(first[2]) - now))
    if taken[1] < 0 or ms < taken[1] then
      taken[1] = ms
    end
  end
end
return taken
