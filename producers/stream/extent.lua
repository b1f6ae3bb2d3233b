-- Says how far a stream goes, without the entries that XINFO shows.
--
-- KEYS: 1 stream
-- Returns: id of the newest entry ever, entries ever, entries now; nothing where
-- there is no stream.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return {}
end
local info, reply = {}, redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #reply, 2 do
  info[reply[i]] = reply[i + 1]
end
return {info['last-generated-id'], info['entries-added'], info['length']}
