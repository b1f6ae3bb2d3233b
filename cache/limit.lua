#!lua flags=allow-oom
-- Admits one operation, or not: GCRA. The key holds the theoretical arrival time,
-- when a caller who kept to the rate would come next, in microseconds. A caller
-- may be ahead of it by the burst. No arrival time lies further ahead, unless the
-- clock went back or the limit was lowered: then it is moved.
--
-- KEYS[1]  the caller's counter
-- ARGV[1]  microseconds between two operations at the rate
-- ARGV[2]  operations at once
-- Returns  { 1 admitted or 0 not, how many more would be, us until all would be,
--            us until one would be, now in us }

local interval, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local burst = interval * count
local us = now()
local old = redis.pcall('GET', KEYS[1])
local arrival = type(old) == 'string' and tonumber(old) or 0
arrival = math.min(math.max(arrival, us), us + burst)

local ahead = arrival + interval - us
if ahead > burst then
  return { 0, 0, arrival - us, ahead - burst, us }
end
redis.call('SET', KEYS[1], string.format('%.0f', us + ahead), 'PX', math.ceil(ahead / 1000))
return { 1, math.floor((burst - ahead) / interval), ahead, 0, us }
