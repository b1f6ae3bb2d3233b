#!lua
-- Adds pieces to the flow of an answer that is being made, and tells those who
-- follow it. Only the holder of the answer's lease may: one that was taken for dead
-- adds nothing to what its successor tells. An end may also come from whoever wrote
-- last, since the lease is over when the answer stands.
--
-- KEYS[1]  the flow: a stream
-- KEYS[2]  the answer's entry
-- ARGV[1]  the channel
-- ARGV[2]  the lease's token
-- ARGV[3]  the generation, as readers are told it
-- ARGV[4]  how long the flow is kept, ms
-- ARGV[5]  how many pieces it may have
-- ARGV[6]  the end mark, or empty
-- ARGV[7]  the number of the first piece, from 0
-- ARGV[8…] pieces
-- Returns  1, or 0 where nothing was added

local flow, channel, generation = KEYS[1], ARGV[1], ARGV[3]
local mark, first = ARGV[6], tonumber(ARGV[7])

-- How many pieces of this generation there are. A repetition of a call whose reply
-- was lost adds nothing twice.
local there, ours, ended = 0, false, false
local last = call('XREVRANGE', flow, '+', '-', 'COUNT', '1')[1]
if last and last[2][2] == generation then
  ours, there, ended = true, tonumber(last[2][4]) + 1, last[2][5] == 'end'
end
local head = head_of(KEYS[2])
local held = head and token_of(head) == ARGV[2]
if not held and not (ours and #ARGV == 7) then
  return 0
end
if ended then
  return 1
end
if not ours then
  call('XTRIM', flow, 'MAXLEN', '0') -- what another one told is void; ids go on
end

local function add(n, kind, what)
  local id = call('XADD', flow, 'MAXLEN', ARGV[5], '*', 'g', generation, 'n', n, kind, what)
  call('PUBLISH', channel, id .. ' ' .. generation .. ' ' .. n .. ' ' .. kind .. ' ' .. what)
end
for i = 8, #ARGV do
  local n = first + i - 8
  if n >= there then
    add(string.format('%d', n), 'c', ARGV[i])
  end
end
if mark ~= '' then
  add(string.format('%d', first + #ARGV - 7), 'end', mark)
end
call('PEXPIRE', flow, ARGV[4])
return 1
