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

local grace = ARGV[1] -- as it came: to write a number takes longer than all else here
local ms = math.floor(now() / 1000)
local marks = {}

-- Where most keys are not there, it takes one command to look and to write; but
-- that hands over what is there with its body, and so takes long where most are.
local few = redis.call('EXISTS', unpack(KEYS)) < #KEYS / 2

-- Removes what is there, whatever its version. A pause stays: nobody has it.
local function forget(key)
  local head = head_of(key)
  if not head then
    return '0'
  end
  local left = token_of(head) == PAUSE and lease_of(head) or NO_LEASE
  if state_of(head) == 'f' and lease_of(head) == left then
    return '0'
  end
  redis.call('SET', key, fence(version_of(head), left), 'PX', grace)
  return '1'
end

-- Removes what is older.
local function outdate(key, version)
  local head
  if few then
    local there = redis.pcall('SET', key, fence(version, NO_LEASE), 'NX', 'GET', 'PX', grace)
    if not there then
      return '1'
    end
    head = head_in(there)
  else
    head = head_of(key)
  end
  if not head then
    redis.call('SET', key, fence(version, NO_LEASE), 'PX', grace)
    return '1'
  end
  if not newer(version, version_of(head)) then
    return '0'
  end
  local held, life = lease_of(head), grace
  if held ~= NO_LEASE then
    life = grace + math.max(deadline_of(head) - ms, 0)
  end
  redis.call('SET', key, fence(version, held), 'PX', life)
  return '1'
end

for i, key in ipairs(KEYS) do
  local version = ARGV[1 + i]
  marks[i] = version == '' and forget(key) or outdate(key, version)
end
return table.concat(marks)
