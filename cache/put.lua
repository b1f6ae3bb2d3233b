#!lua
-- Stores a value under a lease.
--
-- KEYS[1]  the entry
-- ARGV[1]  the token
-- ARGV[2]  the run_id under which the lease was given
-- ARGV[3]  the value's version, which the entry has too
-- ARGV[4]  the whole entry, header and all
-- ARGV[5]  how long the key lives, ms
-- Returns  { why it was refused, empty where it was not, now in us }

local us = now()
return { store(KEYS[1], ARGV[1], run_id() == ARGV[2], ARGV[4], ARGV[5]), us }
