-- Removes items of one domain whose counts are still those that the caller read.
--
-- KEYS  1 hash: item id -> packed counts
-- ARGV  item id, packed counts, item id, packed counts, ...
-- Answers how many were removed.

local removed = 0
for at = 1, #ARGV, 2 do
    if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
        removed = removed + redis.call('HDEL', KEYS[1], ARGV[at])
    end
end
return removed
