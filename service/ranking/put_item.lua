-- Sets or removes what is known of one item besides the bundle, and numbers the change.
--
-- KEYS  1 hash: item -> state   2 sorted set: item, by the number of its last change   3 hash: number of the last change of all, and where
--       the numbers start: at the time, so that a reader notices when everything was lost and begun anew
-- ARGV  1 the item   2 its state; empty: as the bundle has it
-- Answers the number.

local time = redis.call('TIME')
local now = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
if redis.call('HSETNX', KEYS[3], 'start', now) == 1 then redis.call('HSET', KEYS[3], 'number', now) end
local number = redis.call('HINCRBY', KEYS[3], 'number', 1)
if ARGV[2] == '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
else
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
redis.call('ZADD', KEYS[2], string.format('%d', number), ARGV[1])
return number
