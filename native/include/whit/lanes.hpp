// Sixteen unsigned numbers of 16 bits at once: with SSE2, which every x86-64 has, or in plain loops, to the same end.
//
// GCC 12 leaves the plain loops scalar, and decoding then takes twice as long.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#if defined(__SSE2__) && defined(__GNUC__)
#define WHIT_SSE2_LANES
#include <emmintrin.h>
#endif

namespace whit::detail {

struct alignas(16) Lanes {
    static constexpr std::size_t count = 16;
    std::array<std::uint16_t, count> at;
};

#if defined(WHIT_SSE2_LANES)

inline __m128i half_of(const std::uint16_t* lanes, std::size_t half) {
    return _mm_load_si128(reinterpret_cast<const __m128i*>(lanes) + half);
}

inline void set_half(std::uint16_t* lanes, std::size_t half, __m128i value) {
    _mm_store_si128(reinterpret_cast<__m128i*>(lanes) + half, value);
}

/// `(a + b + 1) / 2`, to an address that is aligned like `Lanes`.
inline void mean(const Lanes& a, const Lanes& b, std::uint16_t* result) {
    for (std::size_t half = 0; half < 2; ++half) {
        set_half(result, half, _mm_avg_epu16(half_of(a.at.data(), half), half_of(b.at.data(), half)));
    }
}

/// The last of sixteen numbers below 2^15, aligned like `Lanes` and rising from 0, that is not above `bound`, which is
/// below 2^15 too.
inline std::size_t last_not_above(const std::uint16_t* rising, std::uint16_t bound) {
    const __m128i all = _mm_set1_epi16(static_cast<short>(bound));
    const __m128i above = _mm_packs_epi16(_mm_cmpgt_epi16(half_of(rising, 0), all),
                                          _mm_cmpgt_epi16(half_of(rising, 1), all));
    const auto places = static_cast<unsigned>(_mm_movemask_epi8(above)) | 1u << Lanes::count;
    return static_cast<std::size_t>(__builtin_ctz(places)) - 1;
}

/// Adds `(target - lanes + offset) * step / 65536 - step / 2`, where the bracket and the sum are taken modulo 65536.
inline void move(Lanes& lanes, const Lanes& target, std::uint16_t step, std::uint16_t offset) {
    const __m128i steps = _mm_set1_epi16(static_cast<short>(step));
    const __m128i half_step = _mm_set1_epi16(static_cast<short>(step / 2));
    const __m128i offsets = _mm_set1_epi16(static_cast<short>(offset));
    for (std::size_t half = 0; half < 2; ++half) {
        const __m128i value = half_of(lanes.at.data(), half);
        const __m128i away = _mm_add_epi16(_mm_sub_epi16(half_of(target.at.data(), half), value), offsets);
        set_half(lanes.at.data(), half, _mm_sub_epi16(_mm_add_epi16(value, _mm_mulhi_epu16(away, steps)), half_step));
    }
}

#else

inline void mean(const Lanes& a, const Lanes& b, std::uint16_t* result) {
    for (std::size_t i = 0; i < Lanes::count; ++i) {
        result[i] = static_cast<std::uint16_t>((std::uint32_t{a.at[i]} + b.at[i] + 1) / 2);
    }
}

inline std::size_t last_not_above(const std::uint16_t* rising, std::uint16_t bound) {
    std::size_t place = 0;
    for (std::size_t i = 1; i < Lanes::count; ++i) place += rising[i] <= bound ? 1 : 0;
    return place;
}

inline void move(Lanes& lanes, const Lanes& target, std::uint16_t step, std::uint16_t offset) {
    for (std::size_t i = 0; i < Lanes::count; ++i) {
        const auto away = static_cast<std::uint16_t>(std::uint32_t{target.at[i]} - lanes.at[i] + offset);
        lanes.at[i] = static_cast<std::uint16_t>(lanes.at[i] + ((std::uint32_t{away} * step) >> 16) - step / 2);
    }
}

#endif

}  // namespace whit::detail
