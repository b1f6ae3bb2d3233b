#!lua flags=allow-oom
-- Removes values that are older than a change, and leaves fences at its version.
-- The lease of a fill under way stays: its put is compared with the fence. A
-- change without a version takes value and lease away, whatever their version.
-- It must work when Redis is full: a value makes room for a mere header.
--
-- KEYS     the entries
-- ARGV[1]  how long a fence lives beyond the lease, ms
-- ARGV[1 + i]  the version of the change of KEYS[i], or empty
-- Returns  a string with, for each key, 1 where it did something, else 0

local grace = tonumber(ARGV[1])
local ms = math.floor(now() / 1000)
local marks = {}

for i, key in ipairs(KEYS) do
  local version = ARGV[1 + i]
  local head = head_of(key)
  marks[i] = '0'
  if version == '' then
    if head and (state_of(head) ~= 'f' or lease_of(head) ~= NO_LEASE) then
      redis.call('SET', key, fence(version_of(head), NO_LEASE), 'PX', grace)
      marks[i] = '1'
    end
  elseif not head then
    redis.call('SET', key, fence(version, NO_LEASE), 'PX', grace)
    marks[i] = '1'
  elseif newer(version, version_of(head)) then
    local left = math.max(deadline_of(head) - ms, 0)
    redis.call('SET', key, fence(version, lease_of(head)), 'PX', grace + left)
    marks[i] = '1'
  end
end
return table.concat(marks)
