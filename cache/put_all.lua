#!lua
-- Stores many values, each under its lease, and each judged as put.lua does.
--
-- KEYS     the entries
-- ARGV[1]  the run_id under which the leases were given
-- of KEYS[i], from ARGV[3i - 1] on
--   the token
--   the whole entry, header and all
--   how long the key lives, ms
-- Returns  { now in us, and for each that was refused its i and why }

local reply = { now() }
local same_redis = run_id() == ARGV[1]

for i = 1, #KEYS do
  local why = store(KEYS[i], ARGV[3 * i - 1], same_redis, ARGV[3 * i], ARGV[3 * i + 1])
  if why ~= '' then
    reply[#reply + 1] = i
    reply[#reply + 1] = why
  end
end
return reply
