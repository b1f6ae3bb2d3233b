#!lua flags=allow-oom
-- Admits operations of callers: GCRA. A key holds the theoretical arrival time,
-- when a caller who kept to the rate would come next, in microseconds. A caller
-- may be ahead of it by the burst. No arrival time lies further ahead, unless the
-- clock went back or the limit was lowered: then it is moved.
--
-- A process may ask for more than it needs now and use the rest within a life. What
-- is out so is written behind the arrival time: how much was given since a moment,
-- and how much in the life before that. Until it is used or over, the arrival time
-- does not fall below what it stands for, or else a caller who waits until all is
-- allowed again would have all of that and what is out besides.
--
-- KEYS     the callers' counters
-- of KEYS[i], from ARGV[5i - 4] on
--   microseconds between two operations at the rate
--   operations at once
--   how many are asked for now
--   how many more for later
--   the life of what is for later, in microseconds
-- Returns  { now in us, and for each key
--            how many are admitted, how many more would be,
--            us until all would be, us until one would be }

local us = now()
local reply = { us }

for i, key in ipairs(KEYS) do
  local at = 5 * i - 4
  local interval, count, asked = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local later, life = tonumber(ARGV[at + 3]), tonumber(ARGV[at + 4])
  local burst = interval * count

  local old = redis.pcall('GET', key)
  local arrival, given, before, since = 0, 0, 0, 0
  if type(old) == 'string' then
    local a, g, b, s = string.match(old, '^(%d+) ?(%d*) ?(%d*) ?(%d*)$')
    arrival, given, before, since = tonumber(a) or 0, tonumber(g) or 0, tonumber(b) or 0, tonumber(s) or 0
  end
  if us >= since + 2 * life then
    given, before, since = 0, 0, us
  elseif us >= since + life then
    given, before, since = 0, given, us
  end

  arrival = math.max(arrival, us + interval * (given + before))
  arrival = math.min(arrival, us + burst)
  local admitted = math.min(asked + later, math.floor((us + burst - arrival) / interval))
  if admitted > 0 then
    arrival = arrival + admitted * interval
    given = given + math.max(admitted - asked, 0)
    local text, keep = string.format('%.0f', arrival), arrival - us
    if given + before > 0 then
      text = text .. string.format(' %.0f %.0f %.0f', given, before, since)
      keep = math.max(keep, since + 2 * life - us)
    end
    redis.call('SET', key, text, 'PX', math.ceil(keep / 1000))
  end

  reply[#reply + 1] = admitted
  reply[#reply + 1] = math.floor((us + burst - arrival) / interval)
  reply[#reply + 1] = arrival - us
  reply[#reply + 1] = admitted < asked and arrival + interval - us - burst or 0
end
return reply
