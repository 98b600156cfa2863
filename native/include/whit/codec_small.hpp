// The profile `small`: the centre, one byte (the mean magnitude with which the neighbourhood starts), coded answers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "whit/chunk.hpp"
#include "whit/range_coder.hpp"
#include "whit/symbol_model.hpp"

namespace whit::detail {

inline std::uint8_t mean_of(const std::vector<std::int32_t>& symbols, std::int32_t centre) {
    std::uint64_t sum = 0;
    for (const std::int32_t symbol : symbols) sum += static_cast<std::uint64_t>(std::abs(symbol - centre));
    return Neighbourhood::mean_byte(sum, symbols.size());
}

inline void encode_small(const std::vector<std::int32_t>& symbols, std::size_t rows, Bytes& bytes) {
    const std::int32_t centre = put_centre(symbols, bytes);
    const std::uint8_t mean = mean_of(symbols, centre);
    bytes.push_back(mean);
    RangeEncoder coder;
    SymbolModel model;
    Neighbourhood near(rows, mean);
    for (auto symbol = symbols.begin(); symbol != symbols.end();) {
        near.begin_column();
        for (std::size_t row = 0; row < rows; ++row, ++symbol) {
            near.push(row, model.code(coder, *symbol - centre, near.level(row)));
        }
    }
    const Bytes coded = coder.finish();
    bytes.insert(bytes.end(), coded.begin(), coded.end());
}

inline std::vector<std::int32_t> decode_small(Reader& reader, std::size_t rows, std::size_t columns) {
    const std::int32_t centre = take_centre(reader);
    const auto mean = static_cast<std::uint8_t>(reader.byte());
    RangeDecoder coder(reader.take(reader.left()));
    SymbolModel model;
    Neighbourhood near(rows, mean);
    std::vector<std::int32_t> symbols(rows * columns);
    for (auto symbol = symbols.begin(); symbol != symbols.end();) {
        near.begin_column();
        for (std::size_t row = 0; row < rows; ++row, ++symbol) {
            const std::int32_t found = model.code(coder, 0, near.level(row));
            near.push(row, found);
            *symbol = centre + found;
        }
    }
    if (!coder.finished()) damaged("there are more bytes than codes");
    return symbols;
}

/// Calls `visit(place, symbol, level, model)` before each symbol of a chunk is learned, without coding anything.
template <typename Visit>
void for_each_small(const std::vector<std::int32_t>& symbols, std::size_t rows, const Visit& visit) {
    const std::int32_t centre = centre_of(symbols);
    SymbolModel model;
    Neighbourhood near(rows, mean_of(symbols, centre));
    for (std::size_t place = 0; place < symbols.size();) {
        near.begin_column();
        for (std::size_t row = 0; row < rows; ++row, ++place) {
            const std::int32_t symbol = symbols[place] - centre;
            const int level = near.level(row);
            visit(place, symbol, level, model);
            model.update(symbol, level);
            near.push(row, symbol);
        }
    }
}

inline double small_bits(const std::vector<std::int32_t>& symbols, std::size_t rows) {
    double sum = 0;
    for_each_small(symbols, rows, [&](std::size_t, std::int32_t symbol, int level, const SymbolModel& model) {
        sum += static_cast<double>(model.bits(symbol, level));
    });
    return sum;
}

}  // namespace whit::detail
