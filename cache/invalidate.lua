#!lua flags=allow-oom
-- Removes values that are older than a change, and leaves fences at its version.
-- The lease of a fill under way stays: its put is compared with the fence. A
-- change without a version takes value and lease away, whatever their version.
-- It must work when Redis is full: a value makes room for a mere header.
--
-- KEYS     the entries
-- ARGV[1]  how long a fence lives beyond the lease, ms
-- ARGV[1 + i]  the version of the change of KEYS[i], or empty
-- Returns  a string with, for each key, 2 and when the value was saved (6 bytes)
--          where it removed one, 1 where it did something else, or 0

local grace = ARGV[1] -- as it came: to write a number takes longer than all else here
local ms = math.floor(now() / 1000)
local written = struct.pack('>I6', ms) .. sub(NO_VALUE, 7)
local marks = {}

-- Where a key is not there, it takes one command to look and to write; but that
-- hands over what is there with its body, and so takes long where it is. Keys of a
-- batch are mostly alike: the next is expected to be as the last was.
local absent = false

-- The fences of each version that no lease is held under: a batch has few versions.
local fences = {}

local function bare(version)
  local text = fences[version]
  if not text then
    text = fence(version, NO_LEASE, written)
    fences[version] = text
  end
  return text
end

-- What to say of a key that had this header.
local function mark_of(head)
  return state_of(head) == 'f' and '1' or '2' .. sub(head, 53, 58)
end

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
  call('SET', key, fence(version_of(head), left, written), 'PX', grace)
  return mark_of(head)
end

-- The header of an entry, or nil where there was none: then its fence was set.
local function set_or_head_of(key, version)
  if not absent then
    local head = head_of(key)
    if head then
      return head
    end
  end
  local there = pcall('SET', key, bare(version), 'NX', 'GET', 'PX', grace)
  absent = not there
  if there and not head_in(there) then
    call('PSETEX', key, grace, bare(version))
  end
  return head_in(there)
end

-- Removes what is older.
local function outdate(key, version)
  local head = set_or_head_of(key, version)
  if not head then
    return '1'
  end
  if not newer(version, version_of(head)) then
    return '0'
  end
  local held = lease_of(head)
  if held == NO_LEASE then
    call('PSETEX', key, grace, bare(version))
  else
    call('PSETEX', key, grace + math.max(deadline_of(head) - ms, 0), fence(version, held, written))
  end
  return mark_of(head)
end

for i, key in ipairs(KEYS) do
  local version = ARGV[1 + i]
  marks[i] = version == '' and forget(key) or outdate(key, version)
end
return table.concat(marks)
