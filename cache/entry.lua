-- What the scripts know of an entry. This text stands before each of them.
-- The layout is that of header.go; offsets count from 0, as GETRANGE's do. To make
-- a string takes Lua as long as the string is: none is made in vain.

local call, pcall, sub, byte = redis.call, redis.pcall, string.sub, string.byte -- found once
local SCHEMA = '1'
local FIRST = byte(SCHEMA)
local WIDTH = 72
local LAST = '71' -- of the header; as text, since Redis would make text of a number
local LEASE = 38 -- token of 8 bytes, deadline of 6
local NO_LEASE = string.rep('\0', 14)
local PAUSE = string.rep('\0', 7) .. '\1' -- in place of a token: nobody has the lease, or gets it before the deadline
local NO_VALUE = string.rep('\0', 20) -- saved, fresh until, cost, run
local NO_VERSION = '0000000000000000000000000000ffffffff'

-- The time in microseconds: below 2^53, so a Lua number holds it exactly.
local function now()
  local t = call('TIME')
  return t[1] * 1000000 + t[2]
end

local function run_id()
  return string.match(call('INFO', 'server'), 'run_id:(%x+)')
end

-- The header at the beginning of what a key holds, or nil where there is none that
-- this schema knows.
local function head_in(text)
  if type(text) == 'string' and #text >= WIDTH and byte(text) == FIRST then
    return #text == WIDTH and text or sub(text, 1, WIDTH)
  end
  return nil
end

-- The header of an entry, or nil.
local function head_of(key) return head_in(pcall('GETRANGE', key, '0', LAST)) end

local function state_of(head) return sub(head, 2, 2) end
local function version_of(head) return sub(head, 3, 38) end
local function token_of(head) return sub(head, 39, 46) end
local function lease_of(head) return sub(head, 39, 52) end
local function deadline_of(head) return (struct.unpack('>I6', head, 47)) end

-- What tells one value of a key from another: its version, and when it was saved.
local function value_of(head) return sub(head, 3, 38) .. sub(head, 53, 58) end

local function lease(token, deadline) return token .. struct.pack('>I6', deadline) end

-- An entry without a value. What says when it was written stands where a value says
-- when it was saved; it may be left out.
local function fence(version, lease, written)
  return SCHEMA .. 'f' .. version .. lease .. (written or NO_VALUE)
end

-- Whether version a is above b. Not by < on the strings: Lua compares by
-- the server's locale, and there are some in which ff or aa is one letter. Twelve
-- digits at a time fit a number exactly; the first 16, an epoch and what no xid
-- reaches, are mostly the same. What is no digit is older than all.
local function exceeds(a, b)
  for i = sub(a, 1, 16) == sub(b, 1, 16) and 17 or 1, 36, 12 do
    local x, y = sub(a, i, i + 11), sub(b, i, i + 11)
    if x ~= y then
      x, y = tonumber(x, 16) or -1, tonumber(y, 16) or -1
      if x ~= y then
        return x > y
      end
    end
  end
  return false
end

-- Whether version a is newer than b. The keys of a batch mostly have the two of the
-- last: what was filled together changes together.
local last_a, last_b, last
local function newer(a, b)
  if a ~= last_a or b ~= last_b then
    last_a, last_b, last = a, b, exceeds(a, b)
  end
  return last
end

-- Lets a key live for at least so many milliseconds more.
local function outlive(key, ms)
  if call('PTTL', key) < ms then
    call('PEXPIRE', key, ms)
  end
end

-- Stores an entry, header and all, unless something newer was applied meanwhile.
-- Either way the lease ends, and the pause begins that the entry may have in its
-- place. A put whose reply was lost comes again: it finds its
-- own value, and is accepted again. Returns why it was refused, empty where it was
-- not.
local function store(key, token, same_redis, entry, ms)
  local head = head_of(key)
  if not head or token_of(head) ~= token then
    return head and head == head_in(entry) and '' or 'the lease is gone'
  end
  if not same_redis then
    call('SETRANGE', key, LEASE, lease_of(entry))
    return 'redis was restarted since the lease was taken'
  end
  if newer(version_of(head), version_of(entry)) then
    call('SETRANGE', key, LEASE, lease_of(entry))
    return 'the key has changed since'
  end
  call('PSETEX', key, ms, entry)
  return ''
end
