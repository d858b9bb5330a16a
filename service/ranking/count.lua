-- Counts events of one domain's items by day, once, and tells the readers.
--
-- KEYS  1 hash: item id -> packed counts   2 stream: the latest changes   3 hash: writer -> its last change
-- ARGV  1 the writer   2 its number of this change   3 the change: MessagePack of [[item id, day, count], ...]
--       4 today, in days since 1970   5 most items   6 changes kept
-- Packed counts: number of the last change (6 bytes), then per span of days 6 bytes: a day in it (2), count (4).
-- Answers 1, or 0 if this change had been counted before.

local HORIZON = 512

-- Older days are counted together: an event of so long ago has lost the same weight a few days earlier or later.
local function span_of(day, today)
    local age = today - day
    if age < 16 then return day end
    if age < 128 then return math.floor(day / 8) * 8 + 4 end
    return math.floor(day / 64) * 64 + 32
end

local function add(packed, number, day, count, today)
    local counts = {}
    for at = 7, #packed, 6 do
        local other, other_count = struct.unpack('<I2I4', packed, at)
        local span = span_of(other, today)
        if today - span <= HORIZON then counts[span] = (counts[span] or 0) + other_count end
    end
    local span = span_of(day, today)
    counts[span] = (counts[span] or 0) + count
    local parts = { struct.pack('<I6', number) }
    for other, other_count in pairs(counts) do
        parts[#parts + 1] = struct.pack('<I2I4', other, math.min(other_count, 4294967295))
    end
    return table.concat(parts)
end

if redis.call('HGET', KEYS[3], ARGV[1]) == ARGV[2] then return 0 end

local today, most_items = tonumber(ARGV[4]), tonumber(ARGV[5])
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
-- Not from 1: were everything lost, a reader must not take the new changes for those it had.
local time = redis.call('TIME')
local number = last and tonumber(string.match(last[1], '^%d+')) + 1 or time[1] * 1000 + math.floor(time[2] / 1000)
local items = redis.call('HLEN', KEYS[1])
for _, change in ipairs(cmsgpack.unpack(ARGV[3])) do
    local item_id, day, count = change[1], change[2], change[3]
    local packed = redis.call('HGET', KEYS[1], item_id)
    if today - day <= HORIZON and (packed or items < most_items) then
        if not packed then items = items + 1 end
        redis.call('HSET', KEYS[1], item_id, add(packed or '', number, day, count, today))
    end
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[6], number .. '-0', 'change', ARGV[3])
redis.call('HSET', KEYS[3], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[3], 86400)
return 1
