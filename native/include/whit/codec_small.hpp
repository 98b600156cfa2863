// The profile `small`: the centre, one byte (the mean magnitude with which the neighbourhood starts, and the layout in
// its top bit), coded symbols.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "whit/ans_coder.hpp"
#include "whit/chunk.hpp"
#include "whit/neighbourhood.hpp"
#include "whit/symbol_model.hpp"

namespace whit::detail {

/// The run of whole columns that one chunk holds.
struct Columns {
    std::size_t rows;
    std::size_t first;
    std::size_t last;
    std::size_t all;  ///< Of the whole matrix.
};

inline std::uint8_t mean_of(const std::vector<std::int32_t>& symbols, std::int32_t centre) {
    std::uint64_t sum = 0;
    for (const std::int32_t symbol : symbols) sum += static_cast<std::uint64_t>(std::abs(symbol - centre));
    return Neighbourhood::mean_byte(sum, symbols.size());
}

inline void encode_small(const std::vector<std::int32_t>& symbols, const Columns& columns, Bytes& bytes) {
    const std::int32_t centre = put_centre(symbols, bytes);
    const std::uint8_t mean = mean_of(symbols, centre);
    const Layout layout = layout_of(symbols, columns.rows, columns.all, centre);
    bytes.push_back(static_cast<std::uint8_t>(mean | (layout == Layout::kernels ? 128 : 0)));
    AnsEncoder coder(2 * symbols.size());
    SymbolModel model(layout);
    Neighbourhood near(columns.rows, mean, layout, columns.first);
    for (auto symbol = symbols.begin(); symbol != symbols.end();) {
        near.begin_column();
        for (std::size_t row = 0; row < columns.rows; ++row, ++symbol) {
            near.push(row, model.code(coder, *symbol - centre, near.context(row)));
        }
    }
    const Bytes coded = coder.finish();
    bytes.insert(bytes.end(), coded.begin(), coded.end());
}

inline std::vector<std::int32_t> decode_small(Reader& reader, const Columns& columns) {
    const std::int32_t centre = take_centre(reader);
    const std::uint32_t start = reader.byte();
    const Layout layout = start >= 128 ? Layout::kernels : Layout::matrix;
    AnsDecoder coder(reader.take(reader.left()));
    SymbolModel model(layout);
    Neighbourhood near(columns.rows, static_cast<std::uint8_t>(start & 127), layout, columns.first);
    std::vector<std::int32_t> symbols(columns.rows * (columns.last - columns.first));
    for (auto symbol = symbols.begin(); symbol != symbols.end();) {
        near.begin_column();
        for (std::size_t row = 0; row < columns.rows; ++row, ++symbol) {
            const std::int32_t found = model.code(coder, 0, near.context(row));
            near.push(row, found);
            *symbol = centre + found;
        }
    }
    if (!coder.finished()) damaged("they do not end where the codes do");
    return symbols;
}

/// Calls `visit(place, symbol, context, model)` before each symbol of a chunk is learned, without coding anything.
template <typename Visit>
void for_each_small(const std::vector<std::int32_t>& symbols, const Columns& columns, const Visit& visit) {
    const std::int32_t centre = centre_of(symbols);
    const Layout layout = layout_of(symbols, columns.rows, columns.all, centre);
    SymbolModel model(layout);
    Neighbourhood near(columns.rows, mean_of(symbols, centre), layout, columns.first);
    for (std::size_t place = 0; place < symbols.size();) {
        near.begin_column();
        for (std::size_t row = 0; row < columns.rows; ++row, ++place) {
            const std::int32_t symbol = symbols[place] - centre;
            const Context context = near.context(row);
            visit(place, symbol, context, model);
            model.update(symbol, context);
            near.push(row, symbol);
        }
    }
}

inline double small_bits(const std::vector<std::int32_t>& symbols, const Columns& columns) {
    double sum = 0;
    const auto add = [&](std::size_t, std::int32_t symbol, const Context& context, const SymbolModel& model) {
        sum += static_cast<double>(model.bits(symbol, context));
    };
    for_each_small(symbols, columns, add);
    return sum;
}

}  // namespace whit::detail
