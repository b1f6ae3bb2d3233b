-- Put before the scripts that need it. Reports whether a stream was lost, and how
-- many entries were ever added to it. It is lost when it cannot be the one that the
-- relay last wrote to: gone, or its last id or its count of entries below what was
-- noted with the position, or made anew since (then nothing was ever trimmed from
-- it, and still the noted entry is missing).
local function lost(position, key)
  local last = redis.call('HGET', position, 'last:' .. key)
  if redis.call('EXISTS', key) == 0 then return last ~= false, 0 end
  local info = {}
  local flat = redis.call('XINFO', 'STREAM', key)
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  local added = info['entries-added']
  -- Mostly nobody else has written since.
  if not last or last == info['last-generated-id'] then return false, added end
  local ms, seq = string.match(last, '(%d+)-(%d+)')
  local nowMs, nowSeq = string.match(info['last-generated-id'], '(%d+)-(%d+)')
  ms, seq, nowMs, nowSeq = tonumber(ms), tonumber(seq), tonumber(nowMs), tonumber(nowSeq)
  if nowMs < ms or (nowMs == ms and nowSeq < seq) then return true, added end
  if added < tonumber(redis.call('HGET', position, 'added:' .. key) or '0') then return true, added end
  return added == info['length'] and #redis.call('XRANGE', key, last, last) == 0, added
end
