-- Makes the model active again that was so before, if the active one is still the caller's.
--
-- KEYS  1 hash: version, previous, number
-- ARGV  1 the version that is to be left   2 the version that is to come back
-- Answers 1, or 0 if others were faster.

local found = redis.call('HMGET', KEYS[1], 'version', 'previous')
if found[1] ~= ARGV[1] or found[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'previous', ARGV[1])
redis.call('HINCRBY', KEYS[1], 'number', 1)
return 1
