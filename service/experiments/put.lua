-- Changes or removes one definition, if none has changed since the caller read them.
--
-- KEYS  1 hash: experiment key -> definition; ':version' -> version
-- ARGV  1 the version that the caller read; empty: there was none   2 the experiment's key   3 its definition; empty: remove it
-- Answers the new version, or an empty string if others were faster.

local found = redis.call('HGET', KEYS[1], ':version') or ''
if found ~= ARGV[1] then return '' end
-- By time, so that a reader notices when everything was lost and begun anew.
local time = redis.call('TIME')
local version = math.max(time[1] * 1000000 + time[2], (tonumber(found) or 0) + 1)
if ARGV[3] == '' then
    redis.call('HDEL', KEYS[1], ARGV[2])
else
    redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
end
local text = string.format('%.0f', version)
redis.call('HSET', KEYS[1], ':version', text)
return text
