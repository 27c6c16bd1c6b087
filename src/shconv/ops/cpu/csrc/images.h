// Images as the kernels read them, split into stride phases, and how they are copied to have the channels of a pixel
// together, and back.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "vector.h"

// A stack of images with dense pixels: element (n, c, pixel) at n * image + c * channel + pixel * point.
// phases_h * phases_w interleaved sub-images: pixel (h, w) of phase (i, j) is (h * phases_h + i, w * phases_w + j).
template <class T>
struct ImagesOf {
    T* data;
    int channels, height, width, phases_h, phases_w;
    int64_t image, channel, point;

    int phases() const { return phases_h * phases_w; }
    int rows(int phase) const { return (height - phase / phases_w + phases_h - 1) / phases_h; }
    int columns(int phase) const { return (width - phase % phases_w + phases_w - 1) / phases_w; }
    T* row(int64_t n, int phase, int h) const {
        return data + n * image + ((int64_t)(h * phases_h + phase / phases_w) * width + phase % phases_w) * point;
    }
    T* at(int64_t n, int phase, int h, int w) const { return row(n, phase, h) + (int64_t)w * phases_w * point; }
};
using Images = ImagesOf<float>;

template <class T>
static inline ImagesOf<T> images(const T* data, int64_t C, int64_t H, int64_t W, int64_t phases_h, int64_t phases_w,
                                 bool last) {
    last |= H * W == 1;  // then both layouts are the same
    const int64_t channel = last ? 1 : H * W, point = last ? C : 1;
    return {(T*)data, (int)C, (int)H, (int)W, (int)phases_h, (int)phases_w, C * H * W, channel, point};
}

#if defined(__AVX512F__)
static inline __mmask16 first_lanes(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1; }

// to[i * to_row + j] = from[j * from_row + i] for i < I, j < J, both up to 16.
static inline __attribute__((always_inline)) void transpose_tile(float* to, int64_t to_row, const float* from,
                                                                int64_t from_row, int I, int J) {
    __m512 a[16], b[16];
    const __mmask16 in = first_lanes(I), out = first_lanes(J);
    for (int j = 0; j < 16; j++) a[j] = j < J ? _mm512_maskz_loadu_ps(in, from + j * from_row) : _mm512_setzero_ps();
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            const __m512d p = _mm512_castps_pd(b[i + j]), q = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, q));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
        }
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++) {
            b[8 * j + i] = _mm512_shuffle_f32x4(a[8 * j + i], a[8 * j + 4 + i], 0x88);
            b[8 * j + 4 + i] = _mm512_shuffle_f32x4(a[8 * j + i], a[8 * j + 4 + i], 0xdd);
        }
    for (int i = 0; i < 8; i++) {
        if (i < I) _mm512_mask_storeu_ps(to + i * to_row, out, _mm512_shuffle_f32x4(b[i], b[8 + i], 0x88));
        if (8 + i < I) _mm512_mask_storeu_ps(to + (8 + i) * to_row, out, _mm512_shuffle_f32x4(b[i], b[8 + i], 0xdd));
    }
}

static inline void transpose(float* to, int64_t to_row, const float* from, int64_t from_row, int I, int J) {
    if (I == 16 && J == 16) transpose_tile(to, to_row, from, from_row, 16, 16);  // known sizes need no masks
    else transpose_tile(to, to_row, from, from_row, I, J);
}

static inline void copy_row(float* to, const float* from, int n) {
    int whole = n & -16;
    for (int i = 0; i < whole; i += 16) store(to + i, load(from + i));
    for (int i = whole; i < n; i += 16) {
        const __mmask16 lanes = first_lanes(n - i);
        _mm512_mask_storeu_ps(to + i, lanes, _mm512_maskz_loadu_ps(lanes, from + i));
    }
}

static inline void take_every_second(float* to, const float* from, int n) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    for (int i = 0; i < n; i += 16) {
        const int span = 2 * (n - i) - 1;
        const __m512 low = _mm512_maskz_loadu_ps(first_lanes(span), from + 2 * i);
        const __m512 high = _mm512_maskz_loadu_ps(first_lanes(span - 16), from + 2 * i + 16);
        _mm512_mask_storeu_ps(to + i, first_lanes(n - i), _mm512_permutex2var_ps(low, even, high));
    }
}
#else
#if defined(__AVX__)
static inline __attribute__((always_inline)) void transpose_8(float* to, int64_t to_row, const float* from,
                                                             int64_t from_row) {
    __m256 a[8], b[8];
    // Rows j and j + 4 side by side in halves, then 4 x 4 tiles within the halves.
    for (int j = 0; j < 4; j++)
        for (int half = 0; half < 2; half++)
            a[4 * half + j] = _mm256_insertf128_ps(
                _mm256_castps128_ps256(_mm_loadu_ps(from + j * from_row + 4 * half)),
                _mm_loadu_ps(from + (j + 4) * from_row + 4 * half), 1);
    for (int half = 0; half < 8; half += 4) {
        for (int j = 0; j < 4; j += 2) {
            b[half + j] = _mm256_unpacklo_ps(a[half + j], a[half + j + 1]);
            b[half + j + 1] = _mm256_unpackhi_ps(a[half + j], a[half + j + 1]);
        }
        for (int i = 0; i < 4; i += 2) {
            const __m256 p = b[half + i / 2], q = b[half + i / 2 + 2];
            _mm256_storeu_ps(to + (half + i) * to_row, _mm256_shuffle_ps(p, q, 0x44));
            _mm256_storeu_ps(to + (half + i + 1) * to_row, _mm256_shuffle_ps(p, q, 0xee));
        }
    }
}
#endif

// to[i * to_row + j] = from[j * from_row + i] for i < I, j < J.
static inline void transpose(float* to, int64_t to_row, const float* from, int64_t from_row, int I, int J) {
    int i0 = 0, j0 = 0;
#if defined(__AVX__)
    for (; j0 + 8 <= J; j0 += 8)
        for (i0 = 0; i0 + 8 <= I; i0 += 8)
            transpose_8(to + i0 * to_row + j0, to_row, from + j0 * from_row + i0, from_row);
#endif
    for (int i = 0; i < I; i++)
        for (int j = i < i0 ? j0 : 0; j < J; j++) to[i * to_row + j] = from[j * from_row + i];
}

static inline void copy_row(float* to, const float* from, int n) {
    for (int i = 0; i < n; i++) to[i] = from[i];
}

static inline void take_every_second(float* to, const float* from, int n) {
    for (int i = 0; i < n; i++) to[i] = from[2 * i];
}
#endif

// to[i * to_i + j] = from[i * from_i + j * from_j]
static inline void copy(float* to, int64_t to_i, const float* from, int64_t from_i, int64_t from_j, int I, int J) {
    if (to_i == 1 && J == 1) std::swap(from_i, from_j), std::swap(I, J);  // a row
    if (from_j == 1) {
        for (int i = 0; i < I; i++) copy_row(to + i * to_i, from + i * from_i, J);
    } else if (from_j == 2) {
        for (int i = 0; i < I; i++) take_every_second(to + i * to_i, from + i * from_i, J);
    } else if (from_i == 1) {
        auto tile = [&](int i, int j) {
            transpose(to + i * to_i + j, to_i, from + i + j * from_j, from_j, std::min(16, I - i), std::min(16, J - j));
        };
        if (I > J)  // all channels of some pixels, not some channels of all pixels
            for (int i = 0; i < I; i += 16)
                for (int j = 0; j < J; j += 16) tile(i, j);
        else
            for (int j = 0; j < J; j += 16)
                for (int i = 0; i < I; i += 16) tile(i, j);
    } else {
        for (int i = 0; i < I; i++)
            for (int j = 0; j < J; j++) to[i * to_i + j] = from[i * from_i + j * from_j];
    }
}

// A whole phase with the channels of a pixel together: pixel (h, w) at plane + (h * width + w) * depth, guard pixels of
// zeros in front, `pixels` from (0, 0) on; depth >= channels, the rest zero. line: room for a row of all channels.
static inline void pack_points(const Images& images, int64_t n, int phase, int width, float* plane, int64_t depth,
                               int64_t guard, int64_t pixels, float* line) {
    const int columns = images.columns(phase), rows = images.rows(phase), C = images.channels;
    const int64_t step = images.point * images.phases_w;
    const bool twice = images.point == 1 && step > 1;  // first to dense rows, then across
    auto zero = [&](int64_t from, int64_t to) {
        std::memset(plane + from * depth, 0, (to - from) * depth * sizeof(float));
    };
    zero(-guard, 0);
    if (C < depth) zero(0, rows * width);
    for (int h = 0; h < rows; h++) {
        float* to = plane + (int64_t)h * width * depth;
        const float* from = images.row(n, phase, h);
        if (twice) copy(line, columns, from, images.channel, step, C, columns);
        copy(to, depth, twice ? line : from, twice ? 1 : step, twice ? columns : images.channel, columns, C);
        zero((int64_t)h * width + columns, (int64_t)(h + 1) * width);
    }
    zero((int64_t)rows * width, pixels);
}
