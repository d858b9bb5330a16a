-- Takes events of one user: remembers their ids and puts those that belong there into the history, both or neither.
--
-- KEYS  1 the history (service/history/packed.py)   2 ids of the last days: 8 bytes each, UTC day (2) + id (6), oldest first
-- ARGV  1 events in order of time: 19 bytes each, id (6) + whether it goes into the history (1) + packed event (12)
--       2 hash of the user (8 bytes)   3 newest events kept   4 seconds for which the history is kept
--       5 today, in days since 1970   6 days for which an id is remembered   7 most ids remembered
--       8 most bytes of seen items   9 whether later events of an item stay too (1 or 0)
-- Answers one character an event: 1 it was taken, 0 it had been taken before.

local EVENT, ID = 12, 8
local TWO_16, TWO_32 = 65536, 4294967296

-- Where `part` stands in `records`, at `offset` within a record of `size` bytes; nil if nowhere.
local function find(records, size, offset, part)
    local from = 1
    while true do
        local at = string.find(records, part, from, true)
        if not at or (at - 1) % size == offset then return at end
        from = at + 1
    end
end

local function time_of(records, at)
    return (struct.unpack('<I4', records, at + 8))
end

-- 64-bit numbers are pairs (high, low) of 32-bit ones: a number of Lua holds 53 bits.

local function xor(high, low, other_high, other_low)
    return bit.bxor(high, other_high) % TWO_32, bit.bxor(low, other_low) % TWO_32
end

local function xor_shifted(high, low, bits)
    local scale = 2 ^ bits
    return xor(high, low, math.floor(high / scale), math.floor(low / scale) + (high % scale) * 2 ^ (32 - bits))
end

local function low_product(one, other)
    return ((math.floor(one / TWO_16) * other) % TWO_16 * TWO_16 + (one % TWO_16) * other) % TWO_32
end

local function product(high, low, by_high, by_low)
    local low_0, low_1, by_0, by_1 = low % TWO_16, math.floor(low / TWO_16), by_low % TWO_16, math.floor(by_low / TWO_16)
    local lowest = low_0 * by_0
    local middle = low_1 * by_0 + math.floor(lowest / TWO_16)
    local middle_2 = low_0 * by_1 + middle % TWO_16
    local carried = low_1 * by_1 + math.floor(middle / TWO_16) + math.floor(middle_2 / TWO_16)
    local product_low = (middle_2 % TWO_16) * TWO_16 + lowest % TWO_16
    return (carried + low_product(high, by_low) + low_product(low, by_high)) % TWO_32, product_low
end

-- formats.event_ties._mixed
local function mixed(high, low)
    high, low = product(0xBF58476D, 0x1CE4E5B9, xor_shifted(high, low, 30))
    high, low = product(0x94D049BB, 0x133111EB, xor_shifted(high, low, 27))
    return xor_shifted(high, low, 31)
end

local user_low, user_high = struct.unpack('<I4I4', ARGV[2])

-- formats.event_ties.tie_hashes of a stored event, whose time is in whole seconds
local function tie_of(records, at)
    local item_low, item_high = struct.unpack('<I4I4', records, at)
    local microseconds = time_of(records, at) * 1000000
    local time_high, time_low = mixed(math.floor(microseconds / TWO_32), microseconds % TWO_32)
    local high, low = xor(user_high, user_low, item_high, item_low)
    return mixed(xor(high, low, time_high, time_low))
end

local function is_before(records, at, other)
    local time, other_time = time_of(records, at), time_of(other, 1)
    if time ~= other_time then return time < other_time end
    local high, low = tie_of(records, at)
    local other_high, other_low = tie_of(other, 1)
    if high ~= other_high then return high < other_high end
    return low < other_low
end

-- Width and entries of the seen items, and the events.
local function read_history(value)
    if not value then return 4, '', '' end
    local version = string.byte(value, 1)
    if version == 1 then return 4, '', string.sub(value, 2) end
    if version ~= 2 then return nil end
    local width, length = struct.unpack('<BI4', value, 2)
    return width, string.sub(value, 7, 6 + length), string.sub(value, 7 + length)
end

local function write_history(width, seen, events)
    if seen == '' then return '\1' .. events end
    return '\2' .. struct.pack('<BI4', width, #seen) .. seen .. events
end

local function narrowed(seen, width)
    local known, parts = {}, {}
    for at = 1, #seen, width do
        local entry = string.sub(seen, at + 1, at + width - 1)
        if not known[entry] then
            known[entry] = true
            parts[#parts + 1] = entry
        end
    end
    return width - 1, table.concat(parts)
end

local function without_old_ids(ids, oldest)
    local from = 1
    while from < #ids and struct.unpack('<I2', ids, from) < oldest do from = from + ID end
    return string.sub(ids, from)
end

-- What is new in the history, in order of time, and the stored events without those that give way to an earlier one.
local function sort_out_repeats(candidates, events, width, seen, keeps_repeats)
    local fresh, in_call = {}, {}
    for _, event in ipairs(candidates) do
        local item = string.sub(event, 1, 8)
        if keeps_repeats then
            if not in_call[event] and not find(events, EVENT, 0, event) then
                in_call[event] = true
                fresh[#fresh + 1] = event
            end
        elseif not in_call[item] and not find(seen, width, 0, string.sub(item, 9 - width)) then
            in_call[item] = true
            local at = find(events, EVENT, 0, item)
            if at and time_of(event, 1) < time_of(events, at) then
                events = string.sub(events, 1, at - 1) .. string.sub(events, at + EVENT)
                at = nil
            end
            if not at then fresh[#fresh + 1] = event end
        end
    end
    return fresh, events
end

local function merged(events, fresh)
    local parts, after = {}, #events
    for number = #fresh, 1, -1 do
        local event, place = fresh[number], after
        while place > 0 and not is_before(events, place - EVENT + 1, event) do place = place - EVENT end
        table.insert(parts, string.sub(events, place + 1, after))
        table.insert(parts, event)
        after = place
    end
    table.insert(parts, string.sub(events, 1, after))
    for number = 1, math.floor(#parts / 2) do
        parts[number], parts[#parts + 1 - number] = parts[#parts + 1 - number], parts[number]
    end
    return table.concat(parts)
end

-- What does not fit into the window any more is seen.
local function cut(events, limit, width, seen, most_bytes)
    local over = #events - limit * EVENT
    for at = 1, over, EVENT do
        local entry = string.sub(events, at + 8 - width, at + 7)
        if not find(seen, width, 0, entry) then seen = seen .. entry end
        if #seen > most_bytes then width, seen = narrowed(seen, width) end
    end
    return string.sub(events, math.max(over, 0) + 1), width, seen
end

local keeps_repeats = ARGV[9] == '1'
local today, days = tonumber(ARGV[5]), tonumber(ARGV[6])
local width, seen, events = read_history(redis.call('GET', KEYS[1]))
if not width then return redis.error_reply('ERR not a packed history') end

local ids = without_old_ids(redis.call('GET', KEYS[2]) or '', today - days)
local answers, new_ids, candidates = {}, {}, {}
for at = 1, #ARGV[1], 19 do
    local id = string.sub(ARGV[1], at, at + 5)
    local is_new = not find(ids, ID, 2, id)
    answers[#answers + 1] = is_new and '1' or '0'
    if is_new then
        new_ids[#new_ids + 1] = struct.pack('<I2', today) .. id
        if string.byte(ARGV[1], at + 6) == 1 then
            candidates[#candidates + 1] = string.sub(ARGV[1], at + 7, at + 18)
        end
    end
end

if #candidates > 0 then
    local fresh
    fresh, events = sort_out_repeats(candidates, events, width, seen, keeps_repeats)
    events, width, seen = cut(merged(events, fresh), tonumber(ARGV[3]), width, seen, tonumber(ARGV[8]))
    redis.call('SET', KEYS[1], write_history(width, seen, events), 'EX', ARGV[4])
end
if #new_ids > 0 then
    ids = string.sub(ids .. table.concat(new_ids), -tonumber(ARGV[7]) * ID)
    redis.call('SET', KEYS[2], ids, 'EX', (days + 1) * 86400)
end
return table.concat(answers)
