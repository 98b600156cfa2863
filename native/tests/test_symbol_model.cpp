#include <cstdint>
#include <cstdlib>
#include <vector>

#include "check.hpp"
#include "whit/range_coder.hpp"
#include "whit/symbol_model.hpp"

namespace {

const std::vector<std::int32_t> symbols = {0, 1, -1, 0, 14, -15, 16, 0, 0, 300, -70000, 1 << 24, -(1 << 24), 0, 2, 5};

}  // namespace

TEST("what the model is asked to code comes back, over and over") {
    whit::RangeEncoder encoder;
    whit::SymbolModel writer;
    for (int round = 0; round < 50; ++round) {
        for (std::size_t i = 0; i < symbols.size(); ++i) {
            CHECK(writer.code(encoder, symbols[i], static_cast<int>(i % whit::Neighbourhood::levels)) == symbols[i]);
        }
    }
    const std::vector<std::uint8_t> bytes = encoder.finish();
    whit::RangeDecoder decoder(bytes);
    whit::SymbolModel reader;
    for (int round = 0; round < 50; ++round) {
        for (std::size_t i = 0; i < symbols.size(); ++i) {
            CHECK(reader.code(decoder, 0, static_cast<int>(i % whit::Neighbourhood::levels)) == symbols[i]);
        }
    }
    CHECK(decoder.finished());
}

TEST("bits promises what the coder needs, to a thousandth") {
    whit::RangeEncoder encoder;
    whit::SymbolModel model;
    whit::Neighbourhood near(8, 100);
    double promised = 0;
    std::uint32_t random = 1;
    for (int column = 0; column < 2000; ++column) {
        near.begin_column();
        for (std::size_t row = 0; row < 8; ++row) {
            random = random * 1664525u + 1013904223u;
            const auto symbol = static_cast<std::int32_t>((random >> 24) * (random >> 16 & 255) >> 12) - 4;
            const int level = near.level(row);
            promised += static_cast<double>(model.bits(symbol, level));
            model.code(encoder, symbol, level);
            near.push(row, symbol);
        }
    }
    const double written = 8.0 * static_cast<double>(encoder.finish().size());
    CHECK(std::abs(written - promised) < promised / 1000 + 40);
}

TEST("levels rise with the magnitudes around") {
    whit::Neighbourhood near(1, 0);
    int before = near.level(0);
    CHECK(before == 0);
    for (const std::int32_t symbol : {1, 2, 4, 16, 64, 1 << 24}) {
        for (int i = 0; i < 200; ++i) {
            near.begin_column();
            near.push(0, symbol);
        }
        CHECK(near.level(0) % whit::Neighbourhood::levels >= before);
        before = near.level(0) % whit::Neighbourhood::levels;
    }
    CHECK(before == whit::Neighbourhood::levels - 1);
}

TEST("signs that repeat along a row cost less than a bit") {
    whit::Neighbourhood near(1, 40);
    whit::SymbolModel model;
    for (int column = 0; column < 300; ++column) {
        near.begin_column();
        const std::int32_t symbol = column / 3 % 2 == 0 ? 1 : -1;
        const int level = near.level(0);
        if (column > 200) CHECK(model.bits(symbol, level) + 0.5f < model.bits(-symbol, level));
        model.update(symbol, level);
        near.push(0, symbol);
    }
}
