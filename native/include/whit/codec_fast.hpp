// The profile `fast`: interleaved rANS with one static table a chunk (Duda, "Asymmetric numeral systems", 2013).
//
//     variable     centre
//     variable     below: how far the table reaches below the centre
//     byte         symbols of the table; the last stands for every code outside it
//     variable     each symbol's share of 4096, but for the last, which has what is left and at least 1
//     variable     number of codes outside the table, then each as a zigzag variable-length integer
//     4 bytes      each lane's state
//     2 bytes      words, as the lanes ask for them
//
// Code i belongs to lane i mod lanes: 8 lanes from 16,384 codes on, else 2. Invariant: between codes every state is in
// [2^16, 2^32), and the last code leaves each at 2^16 with no word left, so that damage seldom goes unseen.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "whit/chunk.hpp"
#include "whit/span.hpp"

namespace whit::detail {

inline constexpr unsigned share_bits = 12;
inline constexpr std::uint32_t shares = 1u << share_bits;
inline constexpr std::uint32_t lowest_state = 1u << 16;
inline constexpr std::int32_t table_reach = 60;

inline bool many_lanes(std::size_t codes) { return codes >= 16384; }

/// The shares of all symbols, which sum to 4096; what occurs has at least 1, and so has the last.
inline std::vector<std::uint32_t> shares_of(const std::vector<std::size_t>& counts, std::size_t total) {
    std::vector<std::uint32_t> share(counts.size());
    std::uint32_t sum = 0;
    for (std::size_t s = 0; s < counts.size(); ++s) {
        const auto exact = static_cast<std::uint32_t>((counts[s] * shares + total / 2) / total);
        share[s] = std::max<std::uint32_t>(exact, counts[s] > 0 || s + 1 == counts.size() ? 1 : 0);
        sum += share[s];
    }
    for (; sum != shares; sum += sum < shares ? 1 : -1) {
        auto largest = std::max_element(share.begin(), share.end());
        *largest += sum < shares ? 1 : -1;
    }
    return share;
}

struct FastTable {
    std::int32_t low;
    std::vector<std::uint32_t> share;
    std::size_t outside = 0;  ///< Codes outside it.

    std::size_t escape() const { return share.size() - 1; }

    std::size_t symbol(std::int32_t code) const {
        const auto place = static_cast<std::uint32_t>(code) - static_cast<std::uint32_t>(low);
        return std::min<std::size_t>(place, escape());
    }
};

inline FastTable fast_table(Span<const std::int32_t> codes, std::int32_t centre) {
    const Extent extent = extent_of(codes);
    const std::int32_t low = std::max(extent.least, centre - table_reach);
    const std::int32_t high = std::min(extent.most, centre + table_reach);
    FastTable table{low, std::vector<std::uint32_t>(static_cast<std::size_t>(high - low) + 2)};
    // Four by turns, because one that is counted up twice in a row waits for itself.
    std::vector<std::size_t> counts(table.share.size());
    std::array<std::vector<std::uint32_t>, 4> turns;
    turns.fill(std::vector<std::uint32_t>(counts.size()));
    std::size_t i = 0;
    for (; i + 4 <= codes.size(); i += 4) {
        for (std::size_t turn = 0; turn < 4; ++turn) ++turns[turn][table.symbol(codes[i + turn])];
    }
    for (; i < codes.size(); ++i) ++turns[0][table.symbol(codes[i])];
    for (const auto& turn : turns) {
        for (std::size_t s = 0; s < counts.size(); ++s) counts[s] += turn[s];
    }
    table.outside = counts.back();
    table.share = shares_of(counts, codes.size());
    return table;
}

inline void put_table(const FastTable& table, std::int32_t centre, Bytes& bytes) {
    put_variable(bytes, static_cast<std::uint32_t>(centre - table.low));
    bytes.push_back(static_cast<std::uint8_t>(table.share.size()));
    for (std::size_t s = 0; s < table.escape(); ++s) put_variable(bytes, table.share[s]);
}

inline FastTable take_table(Reader& reader, std::int32_t centre) {
    const std::uint32_t below = reader.variable(), size = reader.byte();
    if (below > table_reach || size < 2 || size > 2 * table_reach + 2) damaged("a table is too large or too small");
    FastTable table{centre - static_cast<std::int32_t>(below), std::vector<std::uint32_t>(size)};
    std::uint32_t left = shares;
    for (std::size_t s = 0; s < table.escape(); ++s) {
        table.share[s] = reader.variable();
        if (table.share[s] >= left) damaged("a table's shares are more than 4096");
        left -= table.share[s];
    }
    table.share.back() = left;
    return table;
}

/// What the writer needs of a symbol: so prepared, coding one takes a multiplication and no division.
struct Coding {
    std::uint64_t reciprocal;  // 2^44 / share, rounded up: exact for states below `limit`, in 64 bits
    std::uint64_t limit;       // from here on a state gives off a word first
    std::uint32_t complement;  // 4096 - share
    std::uint32_t start;
};

inline std::vector<Coding> codings_of(const FastTable& table) {
    std::vector<Coding> codings;
    std::uint32_t start = 0;
    for (const std::uint32_t share : table.share) {
        const std::uint64_t divisor = std::max<std::uint32_t>(share, 1);
        codings.push_back({((std::uint64_t{1} << 44) + divisor - 1) / divisor, divisor << (32 - share_bits),
                           shares - share, start});
        start += share;
    }
    return codings;
}

template <std::size_t Lanes>
void encode_lanes(const FastTable& table, Span<const std::int32_t> codes, Bytes& bytes) {
    const std::vector<Coding> codings = codings_of(table);
    std::array<std::uint32_t, Lanes> state;
    state.fill(lowest_state);
    // The reader goes forward, so the writer goes backward, from the end of as many words as there can be.
    std::vector<std::uint16_t> words(codes.size() + 1);
    std::uint16_t* next = words.data() + codes.size();
    const auto step = [&](std::uint32_t& x, std::int32_t code) {
        const Coding& coding = codings[table.symbol(code)];
        // No branch: where no word is given off, the next one takes its place.
        *next = static_cast<std::uint16_t>(x);
        const bool high = x >= coding.limit;
        x = high ? x >> 16 : x;
        next -= high ? 1 : 0;
        x += static_cast<std::uint32_t>(x * coding.reciprocal >> 44) * coding.complement + coding.start;
    };
    std::size_t i = codes.size();
    while (i % Lanes != 0) --i, step(state[i % Lanes], codes[i]);
    for (; i > 0; i -= Lanes) {
        for (std::size_t lane = Lanes; lane-- > 0;) step(state[lane], codes[i - Lanes + lane]);
    }
    for (const std::uint32_t x : state) {
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(x >> shift));
    }
    std::size_t at = bytes.size();
    bytes.resize(at + 2 * static_cast<std::size_t>(words.data() + codes.size() - next));
    for (const std::uint16_t* word = next + 1; at < bytes.size(); ++word, at += 2) {
        bytes[at] = static_cast<std::uint8_t>(*word);
        bytes[at + 1] = static_cast<std::uint8_t>(*word >> 8);
    }
}

inline void encode_fast(Span<const std::int32_t> codes, Bytes& bytes) {
    const std::int32_t centre = put_centre(codes, bytes);
    const FastTable table = fast_table(codes, centre);
    put_table(table, centre, bytes);
    std::vector<std::int32_t> outside;
    if (table.outside > 0) {
        for (const std::int32_t code : codes) {
            if (table.symbol(code) == table.escape()) outside.push_back(code);
        }
    }
    put_variable(bytes, static_cast<std::uint32_t>(outside.size()));
    for (const std::int32_t code : outside) put_variable(bytes, zigzag(code));
    if (many_lanes(codes.size())) {
        encode_lanes<8>(table, codes, bytes);
    } else {
        encode_lanes<2>(table, codes, bytes);
    }
}

/// What a state's low 12 bits say: the code, its share, and how far into the share the state is.
struct Slot {
    std::int32_t code;
    std::uint16_t share;
    std::uint16_t place;
};

inline std::vector<Slot> slots_of(const FastTable& table, std::int32_t outside) {
    std::vector<Slot> slots;
    slots.reserve(shares);
    for (std::size_t s = 0; s < table.share.size(); ++s) {
        const std::int32_t code = s == table.escape() ? outside : table.low + static_cast<std::int32_t>(s);
        for (std::uint32_t place = 0; place < table.share[s]; ++place) {
            slots.push_back({code, static_cast<std::uint16_t>(table.share[s]), static_cast<std::uint16_t>(place)});
        }
    }
    return slots;
}

template <std::size_t Lanes>
void decode_lanes(Reader& reader, const std::vector<Slot>& slots, Span<std::int32_t> codes) {
    std::array<std::uint32_t, Lanes> state;
    for (std::uint32_t& x : state) {
        x = reader.fixed();
        if (x < lowest_state) damaged("a state is out of range");
    }
    const Span<const std::uint8_t> words = reader.take(reader.left());
    const std::uint8_t* next = words.begin();
    const Slot* table = slots.data();
    const auto step = [table](std::uint32_t& x, std::int32_t& code) {
        const Slot slot = table[x & (shares - 1)];
        code = slot.code;
        x = slot.share * (x >> share_bits) + slot.place;
    };
    std::size_t i = 0;
    // As long as there is a word for every lane none needs to be asked for, and no branch depends on the codes.
    for (; i + Lanes <= codes.size() && static_cast<std::size_t>(words.end() - next) >= 2 * Lanes; i += Lanes) {
        for (std::size_t lane = 0; lane < Lanes; ++lane) {
            std::uint32_t& x = state[lane];
            step(x, codes[i + lane]);
            const std::uint32_t more = x << 16 | next[0] | std::uint32_t{next[1]} << 8;
            const bool low = x < lowest_state;
            x = low ? more : x;
            next += low ? 2 : 0;
        }
    }
    for (; i < codes.size(); ++i) {
        std::uint32_t& x = state[i % Lanes];
        step(x, codes[i]);
        if (x < lowest_state) {
            if (words.end() - next < 2) damaged("they are cut short");
            x = x << 16 | next[0] | std::uint32_t{next[1]} << 8;
            next += 2;
        }
    }
    for (const std::uint32_t x : state) {
        if (x != lowest_state || next != words.end()) damaged("they do not end where the codes do");
    }
}

inline void decode_fast(Reader& reader, Span<std::int32_t> codes) {
    constexpr std::int32_t outside = std::numeric_limits<std::int32_t>::min();
    const FastTable table = take_table(reader, take_centre(reader));
    const std::uint32_t count = reader.variable();
    if (count > codes.size() || count > reader.left()) damaged("more codes lie outside the table than there are");
    std::vector<std::int32_t> escaped(count);
    for (std::int32_t& code : escaped) code = take_centre(reader);
    const std::vector<Slot> slots = slots_of(table, outside);
    if (many_lanes(codes.size())) {
        decode_lanes<8>(reader, slots, codes);
    } else {
        decode_lanes<2>(reader, slots, codes);
    }
    auto next = escaped.begin();
    // Bytes that were forged may have more of them than were counted.
    if (count == 0 && std::find(codes.begin(), codes.end(), outside) == codes.end()) return;
    for (std::int32_t& code : codes) {
        if (code != outside) continue;
        if (next == escaped.end()) damaged("more codes lie outside the table than were counted");
        code = *next++;
    }
    if (next != escaped.end()) damaged("fewer codes lie outside the table than were counted");
}

}  // namespace whit::detail
