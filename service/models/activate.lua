-- Makes a model the active one, and remembers which was active before.
--
-- KEYS  1 hash: version, previous, number
-- ARGV  1 the version   2 what is served where nothing has been activated yet
-- Answers 1, or 0 if it was active already.

local active = redis.call('HGET', KEYS[1], 'version')
if active == ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'previous', active or ARGV[2])
redis.call('HINCRBY', KEYS[1], 'number', 1)
return 1
