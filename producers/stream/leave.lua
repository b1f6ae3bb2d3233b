-- Takes consumers out of a group where nothing is pending for them. To delete one
-- loses what is pending, hence the look in the same script.
--
-- KEYS: the streams
-- ARGV: 1 group, then the names of consumers
-- Returns how many it took out.
local n = 0
for _, stream in ipairs(KEYS) do
  for i = 2, #ARGV do
    local pending = redis.pcall('XPENDING', stream, ARGV[1], '-', '+', 1, ARGV[i])
    if not pending.err and #pending == 0 then
      redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], ARGV[i])
      n = n + 1
    end
  end
end
return n
