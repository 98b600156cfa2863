// Eight or sixteen numbers of 16 bits at once: with SSE2, which every x86-64 has, or in plain loops, to the same end.
//
// GCC 12 leaves the plain loops scalar, and decoding then takes twice as long.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>

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

/// The first of sixteen numbers at most 2^14, aligned like `Lanes`, that is above `bound`; the last of them is.
inline std::size_t first_above(const std::uint16_t* rising, std::uint32_t bound) {
    const __m128i all = _mm_set1_epi16(static_cast<short>(bound));
    const __m128i above = _mm_packs_epi16(_mm_cmpgt_epi16(half_of(rising, 0), all),
                                          _mm_cmpgt_epi16(half_of(rising, 1), all));
    return static_cast<unsigned>(__builtin_ctz(static_cast<unsigned>(_mm_movemask_epi8(above))));
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

/// Eight signed numbers; what goes beyond 16 bits is lost.
struct Eight {
    __m128i at;

    static Eight all(int value) { return {_mm_set1_epi16(static_cast<short>(value))}; }
    static Eight load(const std::int16_t* from) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))}; }
    void store(std::int16_t* to) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), at); }

    /// `(from - low) >> by`, cut to 16 bits.
    static Eight narrow(const std::int32_t* from, std::int32_t low, int by) {
        const auto* wide = reinterpret_cast<const __m128i*>(from);
        const auto half = [&](int i) {
            return _mm_sra_epi32(_mm_sub_epi32(_mm_loadu_si128(wide + i), _mm_set1_epi32(low)), _mm_cvtsi32_si128(by));
        };
        return {_mm_packs_epi32(half(0), half(1))};
    }

    /// `(each << by) + low`.
    void widen(std::int32_t* to, std::int32_t low, int by) const {
        auto* wide = reinterpret_cast<__m128i*>(to);
        const auto put = [&](int i, __m128i twice) {
            const __m128i value = _mm_sll_epi32(_mm_srai_epi32(twice, 16), _mm_cvtsi32_si128(by));
            _mm_storeu_si128(wide + i, _mm_add_epi32(value, _mm_set1_epi32(low)));
        };
        put(0, _mm_unpacklo_epi16(at, at));
        put(1, _mm_unpackhi_epi16(at, at));
    }

    friend Eight operator+(Eight a, Eight b) { return {_mm_add_epi16(a.at, b.at)}; }
    friend Eight operator-(Eight a, Eight b) { return {_mm_sub_epi16(a.at, b.at)}; }
    friend Eight operator*(Eight a, Eight b) { return {_mm_mullo_epi16(a.at, b.at)}; }
    friend Eight operator&(Eight a, Eight b) { return {_mm_and_si128(a.at, b.at)}; }
    friend Eight operator^(Eight a, Eight b) { return {_mm_xor_si128(a.at, b.at)}; }
    friend Eight operator<<(Eight a, int by) { return {_mm_slli_epi16(a.at, by)}; }
    friend Eight operator>>(Eight a, int by) { return {_mm_srai_epi16(a.at, by)}; }
    friend Eight least(Eight a, Eight b) { return {_mm_min_epi16(a.at, b.at)}; }
    friend Eight most(Eight a, Eight b) { return {_mm_max_epi16(a.at, b.at)}; }
    /// Whether any is as large.
    friend bool reaches(Eight a, int bound) {
        return _mm_movemask_epi8(_mm_cmpgt_epi16(a.at, _mm_set1_epi16(static_cast<short>(bound - 1)))) != 0;
    }
    /// The sum of all, in all places.
    friend Eight sum(Eight a) {
        a = a + Eight{_mm_shuffle_epi32(a.at, 0x4e)};
        a = a + Eight{_mm_shuffle_epi32(a.at, 0xb1)};
        return a + Eight{_mm_shufflehi_epi16(_mm_shufflelo_epi16(a.at, 0xb1), 0xb1)};
    }
};

/// Rows become columns.
inline void transpose(std::array<Eight, 8>& rows) {
    // Three times the halves are shuffled into each other, like cards.
    for (int time = 0; time < 3; ++time) {
        const std::array<Eight, 8> before = rows;
        for (std::size_t i = 0; i < 4; ++i) {
            rows[2 * i].at = _mm_unpacklo_epi16(before[i].at, before[i + 4].at);
            rows[2 * i + 1].at = _mm_unpackhi_epi16(before[i].at, before[i + 4].at);
        }
    }
}

#else

inline void mean(const Lanes& a, const Lanes& b, std::uint16_t* result) {
    for (std::size_t i = 0; i < Lanes::count; ++i) {
        result[i] = static_cast<std::uint16_t>((std::uint32_t{a.at[i]} + b.at[i] + 1) / 2);
    }
}

inline std::size_t first_above(const std::uint16_t* rising, std::uint32_t bound) {
    std::size_t place = 0;
    for (std::size_t i = 0; i + 1 < Lanes::count; ++i) place += rising[i] <= bound ? 1 : 0;
    return place;
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

struct Eight {
    std::array<std::int16_t, 8> at;

    static Eight all(int value) { return of([&](std::size_t) { return value; }); }
    static Eight load(const std::int16_t* from) { return of([&](std::size_t i) { return from[i]; }); }
    void store(std::int16_t* to) const { std::copy(at.begin(), at.end(), to); }

    static Eight narrow(const std::int32_t* from, std::int32_t low, int by) {
        return of([&](std::size_t i) { return std::min(std::max((from[i] - low) >> by, -32768), 32767); });
    }

    void widen(std::int32_t* to, std::int32_t low, int by) const {
        for (std::size_t i = 0; i < at.size(); ++i) to[i] = low + at[i] * (1 << by);
    }

    friend Eight operator+(Eight a, Eight b) { return of([&](std::size_t i) { return a.at[i] + b.at[i]; }); }
    friend Eight operator-(Eight a, Eight b) { return of([&](std::size_t i) { return a.at[i] - b.at[i]; }); }
    friend Eight operator*(Eight a, Eight b) { return of([&](std::size_t i) { return a.at[i] * b.at[i]; }); }
    friend Eight operator&(Eight a, Eight b) { return of([&](std::size_t i) { return a.at[i] & b.at[i]; }); }
    friend Eight operator^(Eight a, Eight b) { return of([&](std::size_t i) { return a.at[i] ^ b.at[i]; }); }
    friend Eight operator<<(Eight a, int by) { return of([&](std::size_t i) { return a.at[i] * (1 << by); }); }
    friend Eight operator>>(Eight a, int by) { return of([&](std::size_t i) { return a.at[i] >> by; }); }
    friend Eight least(Eight a, Eight b) { return of([&](std::size_t i) { return std::min(a.at[i], b.at[i]); }); }
    friend Eight most(Eight a, Eight b) { return of([&](std::size_t i) { return std::max(a.at[i], b.at[i]); }); }
    friend bool reaches(Eight a, int bound) { return *std::max_element(a.at.begin(), a.at.end()) >= bound; }
    friend Eight sum(Eight a) { return all(std::accumulate(a.at.begin(), a.at.end(), 0)); }

private:
    template <typename Value>
    static Eight of(const Value& value) {
        Eight result{};
        for (std::size_t i = 0; i < 8; ++i) result.at[i] = static_cast<std::int16_t>(value(i));
        return result;
    }
};

inline void transpose(std::array<Eight, 8>& rows) {
    const std::array<Eight, 8> before = rows;
    for (std::size_t i = 0; i < 8; ++i) {
        for (std::size_t j = 0; j < 8; ++j) rows[i].at[j] = before[j].at[i];
    }
}

#endif

inline Eight magnitude(Eight numbers) { return most(numbers, Eight::all(0) - numbers); }

}  // namespace whit::detail
