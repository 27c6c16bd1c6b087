// How bfloat16 images and weights are laid out for the matrix tiles, and the way back.
// Pixels are the rows of A (channels together), its columns (a channel's pixels together), or, in pairs, rows of B.
#pragma once
#include "pass.h"

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define SHCONV_AMX 1

namespace amx {

using bf16 = uint16_t;
constexpr int TILE = 16;  // rows of a tile, and its columns of float32; 32 bfloat16 go in a row

static inline __m512i shift_up(__m256i v) { return _mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16); }
static inline V widen(const bf16* from) { return (V)shift_up(_mm256_loadu_si256((const __m256i*)from)); }
static inline void narrow(bf16* to, V v, int64_t count = 16) {
    const __m256i rounded = (__m256i)_mm512_cvtneps_pbh((__m512)v);
    if (count >= 16) _mm256_storeu_si256((__m256i*)to, rounded);
    else if (count > 0) _mm256_mask_storeu_epi16(to, (__mmask16)((1 << count) - 1), rounded);
}

// 16 numbers of each, in turns.
static inline void interleave(bf16* to, const bf16* even, const bf16* odd) {
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)even));
    _mm512_storeu_si512(to, _mm512_or_si512(low, shift_up(_mm256_loadu_si256((const __m256i*)odd))));
}

// A thread's scratch of that number, for n bfloat16 numbers and a tile beyond.
static inline bf16* numbers(int number, int64_t n) { return (bf16*)scratch(number + 1, n / 2 + 512); }

using Stack = ImagesOf<bf16>;

// Every phase of an image as rows of one width, zeros around them, so that a tap is a constant offset.
struct Padded {
    int64_t width = 1, guard = 0, length;

    Padded(const Stack& source, const Stack& destination, const std::vector<Tap>& taps) {
        int64_t rows = 0;
        for (int f = 0; f < source.phases(); f++) rows = std::max<int64_t>(rows, source.rows(f));
        for (int f = 0; f < destination.phases(); f++) rows = std::max<int64_t>(rows, destination.rows(f));
        for (const Tap& t : taps)
            width = std::max<int64_t>({width, destination.columns(t.to) + std::max(0, t.dw),
                                       source.columns(t.from) + std::max(0, -t.dw)});
        for (const Tap& t : taps) guard = std::max<int64_t>(guard, std::abs(t.dh * width + t.dw));
        length = guard + round_up(rows * width, 32) + guard;
    }
    Padded(int64_t width, int64_t length) : width(width), length(length) {}
    int64_t offset(const Tap& t) const { return guard + t.dh * width + t.dw; }
};

// to[i * to_row + j] = from[j * from_row + i] for i < I, j < J, both up to 16.
static inline void transpose_block(bf16* to, int64_t to_row, const bf16* from, int64_t from_row, int I, int J) {
    alignas(64) float in[256], out[256];
    const __mmask16 lanes = (1 << I) - 1, kept = (1 << J) - 1;
    for (int j = 0; j < J; j++)
        _mm512_store_si512(in + 16 * j, _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, from + j * from_row)));
    transpose(out, 16, in, 16, 16, 16);
    for (int i = 0; i < I; i++)
        _mm256_mask_storeu_epi16(to + i * to_row, kept, _mm512_cvtepi32_epi16(_mm512_load_si512(out + 16 * i)));
}

static inline void transpose_all(bf16* to, int64_t to_row, const bf16* from, int64_t from_row, int64_t I, int64_t J) {
    for (int64_t j = 0; j < J; j += 16)
        for (int64_t i = 0; i < I; i += 16)
            transpose_block(to + i * to_row + j, to_row, from + j * from_row + i, from_row,
                            std::min<int64_t>(16, I - i), std::min<int64_t>(16, J - j));
}

// A phase of an image with its zeros, in its own layout: (length, depth) of channels_last, (channels, row) of others.
static inline void pad_points(const Stack& s, int64_t n, int f, const Padded& at, int64_t depth, bf16* to) {
    const int64_t bytes = 2 * s.channels, rows = s.rows(f), columns = s.columns(f);
    std::memset(to, 0, at.length * depth * 2);
    for (int64_t h = 0; h < rows; h++) {
        bf16* row = to + (at.guard + h * at.width) * depth;
        const int64_t step = s.phases_w * s.point;
        const bf16* from = s.row(n, f, h);
        if (s.phases_w == 1 && s.channels == depth) std::memcpy(row, from, columns * bytes);
        else
            for (int64_t w = 0; w < columns; w++) std::memcpy(row + w * depth, from + w * step, bytes);
    }
}

static inline void pad_planes(const Stack& s, int64_t n, int f, const Padded& at, int64_t length, bf16* to) {
    const int64_t rows = s.rows(f), columns = s.columns(f);
    std::memset(to, 0, s.channels * length * 2);
    for (int64_t d = 0; d < s.channels; d++)
        for (int64_t h = 0; h < rows; h++) {
            bf16* row = to + d * length + at.guard + h * at.width;
            const bf16* from = s.row(n, f, h) + d * s.channel;
            if (s.phases_w == 1) std::memcpy(row, from, columns * 2);
            else
                for (int64_t w = 0; w < columns; w++) row[w] = from[w * s.phases_w];
        }
}

// An image with the channels of a pixel together, `depth` of them: (phases, length, depth).
static inline void points(const Stack& s, int64_t n, const Padded& at, int64_t depth, bf16* to) {
    for (int f = 0; f < s.phases(); f++, to += at.length * depth) {
        if (s.channel == 1) {
            pad_points(s, n, f, at, depth, to);
            continue;
        }
        bf16* const padded = numbers(5, s.channels * at.length);
        pad_planes(s, n, f, at, at.length, padded);
        if (depth > s.channels) std::memset(to, 0, at.length * depth * 2);
        transpose_all(to, depth, padded, at.length, at.length, s.channels);
    }
}

// An image with the pixels of a channel together: (phases, channels, length).
static inline void planes(const Stack& s, int64_t n, const Padded& at, int64_t channels, int64_t length, bf16* to) {
    for (int f = 0; f < s.phases(); f++, to += channels * length) {
        if (channels > s.channels) std::memset(to + s.channels * length, 0, (channels - s.channels) * length * 2);
        if (s.channel != 1) {
            pad_planes(s, n, f, at, length, to);
            continue;
        }
        const int64_t depth = s.channels;
        bf16* const padded = numbers(5, depth * at.length);
        pad_points(s, n, f, at, depth, padded);
        for (int64_t d = 0; d < s.channels; d++) std::memset(to + d * length + at.length, 0, (length - at.length) * 2);
        transpose_all(to, length, padded, depth, s.channels, at.length);
    }
}

// An image in pairs of pixels: (pixel / 2, channels, 2), its rows as wide as those of `at`, zeros between them.
static inline void pairs(const Stack& s, int64_t n, const Padded& at, int64_t channels, int64_t pixels, bf16* to) {
    const Padded plain(at.width, pixels);
    bf16* const padded = numbers(4, channels * pixels);
    points(s, n, plain, channels, padded);
    for (int64_t p = 0; p < pixels; p += 2)
        for (int64_t c = 0; c < channels; c += 16)
            interleave(to + p * channels + 2 * c, padded + p * channels + c, padded + (p + 1) * channels + c);
}

// to = M * from, `rows` rows of as many numbers as one of `to` holds.
static inline void scale(const bf16* from, int64_t from_row, bf16* to, int64_t to_row, int64_t rows, float M) {
    const V m = V{} + M;
    for (int64_t r = 0; r < rows; r++, from += from_row, to += to_row)
        for (int64_t i = 0; i < to_row; i += 16) narrow(to + i, m * widen(from + i));
}

// The way back from (phases, length, depth) to an image whose channels lie apart.
static inline void unpack(const Stack& s, int64_t n, const Padded& at, int64_t depth, const bf16* from) {
    for (int f = 0; f < s.phases(); f++, from += at.length * depth) {
        const int64_t rows = s.rows(f), columns = s.columns(f);
        bf16* const plane = numbers(5, s.channels * at.length);
        transpose_all(plane, at.length, from, depth, s.channels, at.length);
        for (int64_t c = 0; c < s.channels; c++)
            for (int64_t h = 0; h < rows; h++) {
                const bf16* row = plane + c * at.length + at.guard + h * at.width;
                bf16* to = s.row(n, f, h) + c * s.channel;
                if (s.phases_w == 1) std::memcpy(to, row, columns * 2);
                else
                    for (int64_t w = 0; w < columns; w++) to[w * s.phases_w] = row[w];
            }
    }
}

}  // namespace amx
#else
#define SHCONV_AMX 0
#endif
