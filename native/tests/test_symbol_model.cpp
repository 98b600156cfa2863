#include <cstdint>
#include <cstdlib>
#include <vector>

#include "check.hpp"
#include "whit/ans_coder.hpp"
#include "whit/symbol_model.hpp"

namespace {

const std::vector<std::int32_t> symbols = {0, 1, -1, 0, 14, -15, 16, 0, 0, 300, -70000, 1 << 24, -(1 << 24), 0, 2, 5};

}  // namespace

TEST("what the model is asked to code comes back, over and over") {
    for (const whit::Layout layout : {whit::Layout::matrix, whit::Layout::kernels}) {
        whit::AnsEncoder encoder;
        whit::SymbolModel writer(layout);
        whit::Neighbourhood near(3, 40, layout);
        for (int column = 0; column < 320; ++column) {
            near.begin_column();
            for (std::size_t row = 0; row < 3; ++row) {
                const std::int32_t symbol = symbols[(static_cast<std::size_t>(column) * 3 + row) % symbols.size()];
                near.push(row, writer.code(encoder, symbol, near.context(row)));
            }
        }
        const std::vector<std::uint8_t> bytes = encoder.finish();
        whit::AnsDecoder decoder(bytes);
        whit::SymbolModel reader(layout);
        near = whit::Neighbourhood(3, 40, layout);
        for (int column = 0; column < 320; ++column) {
            near.begin_column();
            for (std::size_t row = 0; row < 3; ++row) {
                const std::int32_t symbol = reader.code(decoder, 0, near.context(row));
                CHECK(symbol == symbols[(static_cast<std::size_t>(column) * 3 + row) % symbols.size()]);
                near.push(row, symbol);
            }
        }
        CHECK(decoder.finished());
    }
}

TEST("bits promises what the coder needs, to a thousandth") {
    whit::AnsEncoder encoder;
    whit::SymbolModel model(whit::Layout::matrix);
    whit::Neighbourhood near(8, 100, whit::Layout::matrix);
    double promised = 0;
    std::uint32_t random = 1;
    for (int column = 0; column < 2000; ++column) {
        near.begin_column();
        for (std::size_t row = 0; row < 8; ++row) {
            random = random * 1664525u + 1013904223u;
            const auto symbol = static_cast<std::int32_t>((random >> 24) * (random >> 16 & 255) >> 12) - 4;
            const whit::Context context = near.context(row);
            promised += static_cast<double>(model.bits(symbol, context));
            model.code(encoder, symbol, context);
            near.push(row, symbol);
        }
    }
    const double written = 8.0 * static_cast<double>(encoder.finish().size());
    CHECK(std::abs(written - promised) < promised / 1000 + 40);
}

TEST("levels rise with the magnitudes around") {
    for (const whit::Layout layout : {whit::Layout::matrix, whit::Layout::kernels}) {
        whit::Neighbourhood near(1, 0, layout);
        int before = near.context(0).level;
        CHECK(before == 0);
        for (const std::int32_t symbol : {1, 2, 4, 16, 64, 1 << 24}) {
            for (int i = 0; i < 500; ++i) {
                near.begin_column();
                near.push(0, symbol);
            }
            CHECK(near.context(0).level >= before);
            before = near.context(0).level;
        }
        CHECK(before == whit::Neighbourhood::levels - 1);
    }
}

TEST("signs that repeat along a row cost less than a bit") {
    whit::Neighbourhood near(1, 40, whit::Layout::matrix);
    whit::SymbolModel model(whit::Layout::matrix);
    for (int column = 0; column < 300; ++column) {
        near.begin_column();
        const std::int32_t symbol = column / 3 % 2 == 0 ? 1 : -1;
        const whit::Context context = near.context(0);
        if (column > 200) CHECK(model.bits(symbol, context) + 0.5f < model.bits(-symbol, context));
        model.update(symbol, context);
        near.push(0, symbol);
    }
}

TEST("opposite signs share one distribution") {
    whit::Neighbourhood plus(1, 40, whit::Layout::kernels), minus(1, 40, whit::Layout::kernels);
    for (const std::int32_t symbol : {2, -1, 1, 5, -3}) {
        plus.begin_column();
        minus.begin_column();
        plus.push(0, symbol);
        minus.push(0, -symbol);
        const whit::Context a = plus.context(0), b = minus.context(0);
        CHECK(a.level == b.level && a.local == b.local && a.recent == b.recent && a.kernel == b.kernel);
        CHECK(a.recent_flipped != b.recent_flipped && a.kernel_flipped != b.kernel_flipped);
    }
}

TEST("lanes move towards their target, and keep every share") {
    whit::Distributions<1> distributions;
    distributions.start(0, 30000, 20000);
    for (int i = 0; i < 2000; ++i) distributions.update(0, i % 700 == 0 ? 3 : 5);
    for (std::size_t s = 0; s + 1 < whit::detail::Lanes::count; ++s) {
        const auto share = distributions[0].at[s + 1] - distributions[0].at[s];
        CHECK(share >= static_cast<int>(whit::detail::least_share));
        CHECK((share > 30000) == (s == 5));
    }
}

TEST("kernels are told by their signs, where columns come in nines") {
    std::vector<std::int32_t> kernels, noise;
    std::uint32_t random = 1;
    for (int i = 0; i < 16 * 90; ++i) {
        random = random * 1664525u + 1013904223u;
        kernels.push_back((i % 16 + i / 16 / 9) % 3 - 1);
        noise.push_back(static_cast<std::int32_t>(random >> 16) % 3 - 1);
    }
    CHECK(whit::layout_of(kernels, 16, 90, 0) == whit::Layout::kernels);
    CHECK(whit::layout_of(noise, 16, 90, 0) == whit::Layout::matrix);
    CHECK(whit::layout_of(kernels, 18, 80, 0) == whit::Layout::matrix);
}
