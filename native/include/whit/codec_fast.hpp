// The profile `fast`: interleaved rANS (Duda, "Asymmetric numeral systems", 2013) with the tables of `FastModel`.
//
//     variable     centre
//     byte         mean magnitude with which rows start, in units of 1/32
//     byte         how many low bits of each code stand apart; 128 more for 3x3 kernels
//     ...          these bits, packed
//     variable     number of codes beyond the symbols, then each as a zigzag variable-length integer
//     4 bytes      each lane's state
//     2 bytes      words, as the lanes ask for them
//
// The code in a column's row r belongs to lane r mod 4. Invariant: between codes every state is in [2^16, 2^32), and
// the last code leaves each at 2^16 with no word left, so that damage seldom goes unseen.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "whit/bit_packing.hpp"
#include "whit/chunk.hpp"
#include "whit/fast_model.hpp"
#include "whit/fast_strip.hpp"
#include "whit/neighbourhood.hpp"
#include "whit/span.hpp"

namespace whit::detail {

inline constexpr std::uint32_t lowest_state = 1u << 16;
inline constexpr std::size_t state_lanes = 4;
inline constexpr unsigned most_apart = 16;

/// Eight rows' symbols, or the distances of their tables.
using Row8 = std::array<std::int16_t, FastModel::block>;

/// Notes the share of every symbol, and writes them once all are known.
class FastEncoder {
public:
    explicit FastEncoder(std::size_t codes)
        : size_(codes), shares_(new FastTable::Share[codes]), next_(shares_.get()) {}

    /// Gives back the symbols of `count` codes.
    Eight block(FastModel& model, const BlockContext& context, const std::int16_t* codes, std::size_t count) {
        const Eight wanted = (Eight::load(codes) ^ context.flip) - context.flip;
        const Eight found = (wanted + Eight::all(FastModel::zero)) & Eight::all(FastTable::symbols - 1);
        alignas(16) Row8 tables, symbols;
        context.table.store(tables.data());
        found.store(symbols.data());
        for (std::size_t j = 0; j < count; ++j) {
            FastTable& table = model.at(tables[j]);
            const auto s = static_cast<std::size_t>(symbols[j]);
            *next_++ = table.share[s];
            table.count[s] += FastTable::one;
        }
        return found;
    }

    void finish(const Strip& strip, Bytes& bytes) const {
        std::array<std::uint32_t, state_lanes> state;
        state.fill(lowest_state);
        // The reader goes forward, so the writer goes backward, from the end of as many words as there can be.
        const std::unique_ptr<std::uint16_t[]> words(new std::uint16_t[size_ + 1]);
        std::uint16_t* word = words.get() + size_;
        const FastTable::Share* share = shares_.get() + size_;
        const auto step = [&](std::uint32_t& x) {
            --share;
            // No branch: where no word is given off, the next one takes its place.
            *word = static_cast<std::uint16_t>(x);
            const std::uint32_t high = 0 - static_cast<std::uint32_t>(x >> (32 - share_bits) >= share->size);
            x >>= high & 16;
            word -= high & 1;
            x += x / share->size * (all_shares - share->size) + share->below;
        };
        for (std::size_t column = strip.all_columns(); column-- > 0;) {
            std::size_t row = strip.height(column);
            while (row % state_lanes != 0) --row, step(state[row % state_lanes]);
            for (; row > 0; row -= state_lanes) {
                for (std::size_t lane = state_lanes; lane-- > 0;) step(state[lane]);
            }
        }
        for (const std::uint32_t x : state) {
            for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<std::uint8_t>(x >> shift));
        }
        std::size_t at = bytes.size();
        bytes.resize(at + 2 * static_cast<std::size_t>(words.get() + size_ - word));
        for (++word; at < bytes.size(); ++word, at += 2) {
            bytes[at] = static_cast<std::uint8_t>(*word);
            bytes[at + 1] = static_cast<std::uint8_t>(*word >> 8);
        }
    }

private:
    std::size_t size_;
    std::unique_ptr<FastTable::Share[]> shares_;
    FastTable::Share* next_;
};

/// Reads symbols; whatever bytes it is given, it never reads outside them.
class FastDecoder {
public:
    explicit FastDecoder(Reader& reader) {
        for (std::uint32_t& x : state_) {
            x = reader.fixed();
            if (x < lowest_state) damaged("a state is out of range");
        }
        const Span<const std::uint8_t> words = reader.take(reader.left());
        next_ = words.begin();
        end_ = words.end();
    }

    /// The symbols of `count` rows; all further ones stand for 0.
    Eight block(FastModel& model, const BlockContext& context, const std::int16_t*, std::size_t count) {
        Row8 &tables = tables_, &symbols = symbols_;
        context.table.store(tables.data());
        // As long as there is a word for every code none needs to be asked for, and no branch depends on the codes.
        if (count == FastModel::block && static_cast<std::size_t>(end_ - next_) >= 2 * FastModel::block) {
            const std::uint8_t* next = next_;
            for (std::size_t j = 0; j < FastModel::block; ++j) {
                std::uint32_t& state = state_[j % state_lanes];
                const std::uint32_t x = step(state, model.at(tables[j]), symbols[j]);
                const std::uint32_t low = 0 - static_cast<std::uint32_t>(x < lowest_state);
                const std::uint32_t word = next[0] | std::uint32_t{next[1]} << 8;
                state = x << (low & 16) | (word & low);
                next += low & 2;
            }
            next_ = next;
        } else {
            symbols.fill(FastModel::zero);
            for (std::size_t j = 0; j < count; ++j) read(state_[j % state_lanes], model.at(tables[j]), symbols[j]);
        }
        return Eight::load(symbols.data());
    }

    bool finished() const {
        return next_ == end_ && std::all_of(state_.begin(), state_.end(), [](auto x) { return x == lowest_state; });
    }

private:
    static std::uint32_t step(std::uint32_t x, FastTable& table, std::int16_t& symbol) {
        const std::uint32_t slot = x & (all_shares - 1);
        const std::size_t s = first_above(table.end.data(), slot);
        symbol = static_cast<std::int16_t>(s);
        table.count[s] += FastTable::one;
        return table.share[s].size * (x >> share_bits) + slot - table.share[s].below;
    }

    void read(std::uint32_t& state, FastTable& table, std::int16_t& symbol) {
        state = step(state, table, symbol);
        if (state >= lowest_state) return;
        if (end_ - next_ < 2) damaged("they are cut short");
        state = state << 16 | next_[0] | std::uint32_t{next_[1]} << 8;
        next_ += 2;
    }

    alignas(16) Row8 tables_;
    alignas(16) Row8 symbols_;
    std::array<std::uint32_t, state_lanes> state_;
    const std::uint8_t* next_;
    const std::uint8_t* end_;
};

/// Sends all blocks through a coder; `codes`, in padded columns, are what it reads or what it finds.
template <bool Kernels, typename Coder>
void code_columns(const Strip& strip, std::uint8_t mean, std::int16_t* codes, Coder& coder) {
    constexpr std::size_t block = FastModel::block;
    FastModel model(strip.rows, mean);
    const std::size_t columns = strip.all_columns(), stride = strip.padded();
    const std::vector<std::int16_t> none(stride);
    const auto before = [&](std::size_t column) -> FastModel::Before {
        const std::size_t place = (strip.first + column) % Neighbourhood::places;
        const std::int16_t* here = codes + column * stride;
        return {column < 1 ? none.data() : here - stride, column < 3 ? none.data() : here - 3 * stride,
                Eight::all(place % 3 > 0 ? -1 : 0), Eight::all(place >= 3 ? -1 : 0)};
    };
    const auto context = [&model](std::size_t row, const FastModel::Before& left) {
        if constexpr (Kernels) return model.in_kernels(row, left);
        return model.in_matrix(row);
    };
    const auto code = [&](const BlockContext& now, std::int16_t* here, std::size_t row, std::size_t count) {
        const Eight symbols = coder.block(model, now, here, count);
        const Eight found = ((symbols - Eight::all(FastModel::zero)) ^ now.flip) - now.flip;
        found.store(here);
        model.push(row, found, count);
    };
    FastModel::Before left = before(0);
    BlockContext next = context(0, left);
    for (std::size_t column = 0; column < columns; ++column) {
        const FastModel::Before left_of_next = before(column + 1);
        std::int16_t* here = codes + column * stride;
        const std::size_t height = strip.height(column);
        std::size_t row = 0;
        for (; row + block < height; row += block, here += block) {
            const BlockContext now = next;
            next = context(row + block, left);
            code(now, here, row, block);
        }
        const BlockContext now = next;
        next = context(0, left_of_next);
        code(now, here, row, height - row);
        left = left_of_next;
    }
}

template <typename Coder>
void code_strip(const Strip& strip, bool kernels, std::uint8_t mean, std::int16_t* codes, Coder& coder) {
    if (kernels) {
        code_columns<true>(strip, mean, codes, coder);
    } else {
        code_columns<false>(strip, mean, codes, coder);
    }
}

/// How many low bits of codes should stand apart, so that few of what is left are beyond the symbols.
inline unsigned bits_apart(const std::vector<std::int32_t>& codes, std::int32_t centre) {
    std::array<std::size_t, 32> wide{};
    for (const std::int32_t code : codes) {
        const auto magnitude = static_cast<std::uint32_t>(std::abs(code - centre));
        ++wide[magnitude == 0 ? 0 : floor_log2(magnitude) + 1];
    }
    // What stands apart costs its bits, also where a code has fewer, and what is beyond some 12 more.
    const auto cost = [&](unsigned apart) {
        std::size_t bits = 0;
        for (unsigned width = 0; width < wide.size(); ++width) {
            bits += wide[width] * (std::max(apart, width) + (width > apart + 3 ? 12 : 0));
        }
        return bits;
    };
    unsigned best = 0;
    for (unsigned apart = 1; apart <= most_apart; ++apart) {
        if (cost(apart) < cost(best)) best = apart;
    }
    return best;
}

inline void encode_fast(const Strip& strip, const std::int32_t* codes, Bytes& bytes) {
    std::vector<std::int32_t> sample;
    const std::size_t step = strip.codes() / 4096 + 1;
    strip.in_order([&](std::size_t at) { sample.push_back(codes[at]); }, step);
    const std::int32_t centre = put_centre(sample, bytes);
    const unsigned apart = bits_apart(sample, centre);
    // Half of what the bits tell, so that what is left of a code is the nearest.
    const std::int32_t low = centre - (1 << apart >> 1);

    std::vector<std::int16_t> columns = strip.gather(codes, low, apart);
    std::uint32_t sum = 0;
    for (const std::int16_t code : columns) sum += static_cast<std::uint32_t>(std::abs(code));
    const bool kernels = layout_of(columns, strip.padded(), strip.pitch, 0) == Layout::kernels;
    const std::size_t rounded = (32 * std::size_t{sum} + strip.codes() / 2) / strip.codes();
    const auto mean = static_cast<std::uint8_t>(std::min<std::size_t>(rounded, 255));
    bytes.push_back(mean);
    bytes.push_back(static_cast<std::uint8_t>(apart | (kernels ? 128 : 0)));
    if (apart > 0) {
        std::vector<std::int32_t> bits;
        strip.in_order([&](std::size_t at) { bits.push_back((codes[at] - low) & ((1 << apart) - 1)); });
        const Bytes packed = pack_bits(bits, static_cast<int>(apart), 0);
        bytes.insert(bytes.end(), packed.begin(), packed.end());
    }

    std::vector<std::int32_t> beyond;
    strip.for_each_beyond(columns, [&](std::size_t at, int) { beyond.push_back((codes[at] - low) >> apart); });
    put_variable(bytes, static_cast<std::uint32_t>(beyond.size()));
    for (const std::int32_t code : beyond) put_variable(bytes, zigzag(code));

    FastEncoder coder(strip.codes());
    code_strip(strip, kernels, mean, columns.data(), coder);
    coder.finish(strip, bytes);
}

inline std::vector<std::int32_t> take_apart(Reader& reader, std::size_t codes, unsigned apart) {
    if (apart == 0) return {};
    const Span<const std::uint8_t> packed = reader.take(packed_size(codes, static_cast<int>(apart)));
    const std::size_t used = codes * apart % 8;
    if (used != 0 && packed[packed.size() - 1] >> used != 0) damaged("bits that are left over are not 0");
    return unpack_bits(packed, static_cast<std::int64_t>(codes), static_cast<int>(apart), 0);
}

inline void decode_fast(Reader& reader, const Strip& strip, std::int32_t* codes) {
    const std::int32_t centre = take_centre(reader);
    const auto mean = static_cast<std::uint8_t>(reader.byte());
    const std::uint32_t how = reader.byte();
    const unsigned apart = how & 127;
    if (apart > most_apart) damaged("more than 16 bits stand apart");
    const std::vector<std::int32_t> low_bits = take_apart(reader, strip.codes(), apart);
    const std::uint32_t count = reader.variable();
    if (count > strip.codes() || count > reader.left()) damaged("more codes are beyond the symbols than there are");
    std::vector<std::int32_t> beyond(count);
    for (std::int32_t& code : beyond) code = take_centre(reader);

    std::vector<std::int16_t> columns(strip.padded() * strip.all_columns());
    FastDecoder coder(reader);
    code_strip(strip, how >= 128, mean, columns.data(), coder);
    if (!coder.finished()) damaged("they do not end where the codes do");

    const std::int32_t low = centre - (1 << apart >> 1);
    strip.scatter(columns, low, apart, codes);
    auto bits = low_bits.begin();
    if (apart > 0) strip.in_order([&](std::size_t at) { codes[at] += *bits++; });
    auto next = beyond.begin();
    strip.for_each_beyond(columns, [&](std::size_t at, std::int32_t found) {
        if (next == beyond.end()) damaged("more codes are beyond the symbols than were counted");
        // Unsigned, because forged numbers may be of any size.
        const auto more = static_cast<std::uint32_t>(*next++) - static_cast<std::uint32_t>(found);
        codes[at] = static_cast<std::int32_t>(static_cast<std::uint32_t>(codes[at]) + (more << apart));
    });
    if (next != beyond.end()) damaged("fewer codes are beyond the symbols than were counted");
}

}  // namespace whit::detail
