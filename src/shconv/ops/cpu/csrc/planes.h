// Images as the kernels read them: split into stride phases, each a zero-guarded plane of rows of one common width,
// so that a tap is a constant offset. Also the way back.
#pragma once
#include <algorithm>
#include <cstring>
#include <vector>

#include "vector.h"

// A stack of images with dense pixels: element (n, c, pixel) at n * image + c * channel + pixel * point.
// phases_h * phases_w interleaved sub-images: pixel (h, w) of phase (i, j) is (h * phases_h + i, w * phases_w + j).
struct Images {
    float* data;
    int channels, height, width, phases_h, phases_w;
    int64_t image, channel, point;

    int phases() const { return phases_h * phases_w; }
    int rows(int phase) const { return (height - phase / phases_w + phases_h - 1) / phases_h; }
    int columns(int phase) const { return (width - phase % phases_w + phases_w - 1) / phases_w; }
    Images from_channel(int first, int count) const {
        Images part = *this;
        part.data += first * channel;
        part.channels = count;
        return part;
    }
    float* row(int64_t n, int phase, int h) const {
        return data + n * image + ((int64_t)(h * phases_h + phase / phases_w) * width + phase % phases_w) * point;
    }
};

#if defined(__AVX512F__)
static inline __mmask16 first_lanes(int n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : (1 << n) - 1; }
static inline V load(const float* p, int lanes) { return _mm512_maskz_loadu_ps(first_lanes(lanes), p); }
static inline void store(float* p, V v, int lanes) { _mm512_mask_storeu_ps(p, first_lanes(lanes), v); }

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

static inline void put_every_second(float* to, const float* from, int n) {
    for (int i = 0; i < n; i += 16) {
        const int span = 2 * (n - i) - 1;
        const __m512 v = _mm512_maskz_loadu_ps(first_lanes(n - i), from + i);
        _mm512_mask_storeu_ps(to + 2 * i, first_lanes(span) & 0x5555, _mm512_maskz_expand_ps(0x5555, v));
        _mm512_mask_storeu_ps(to + 2 * i + 16, first_lanes(span - 16) & 0x5555,
                              _mm512_maskz_expand_ps(0x5555, _mm512_shuffle_f32x4(v, v, 0xee)));
    }
}
#else
static inline V load(const float* p, int lanes) {
    V v = {};
    std::memcpy(&v, p, std::max(0, std::min(lanes, VL)) * sizeof(float));
    return v;
}

static inline void store(float* p, V v, int lanes) {
    std::memcpy(p, &v, std::max(0, std::min(lanes, VL)) * sizeof(float));
}

static inline void transpose(float* to, int64_t to_row, const float* from, int64_t from_row, int I, int J) {
    for (int i = 0; i < I; i++)
        for (int j = 0; j < J; j++) to[i * to_row + j] = from[j * from_row + i];
}

static inline void copy_row(float* to, const float* from, int n) {
    for (int i = 0; i < n; i++) to[i] = from[i];
}

static inline void take_every_second(float* to, const float* from, int n) {
    for (int i = 0; i < n; i++) to[i] = from[2 * i];
}

static inline void put_every_second(float* to, const float* from, int n) {
    for (int i = 0; i < n; i++) to[2 * i] = from[i];
}
#endif

// to[i * to_i + j * to_j] = from[i * from_i + j * from_j]
static inline void copy(float* to, int64_t to_i, int64_t to_j, const float* from, int64_t from_i, int64_t from_j, int I,
                        int J) {
    if ((to_i == 1 && from_i <= 2) || (from_i == 1 && to_j != 1)) {
        std::swap(to_i, to_j), std::swap(from_i, from_j), std::swap(I, J);
    }
    if (to_j == 1 && from_j == 1) {
        for (int i = 0; i < I; i++) copy_row(to + i * to_i, from + i * from_i, J);
    } else if (to_j == 1 && from_j == 2) {
        for (int i = 0; i < I; i++) take_every_second(to + i * to_i, from + i * from_i, J);
    } else if (to_j == 2 && from_j == 1) {
        for (int i = 0; i < I; i++) put_every_second(to + i * to_i, from + i * from_i, J);
    } else if (to_j == 1 && from_i == 1) {
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
            for (int j = 0; j < J; j++) to[i * to_i + j * to_j] = from[i * from_i + j * from_j];
    }
}

// Rows [first, last) of a phase, pixel (h, w) of channel c at plane + c * channel + (h - origin) * width + w.
// before / after: floats of zeros that a channel wants in front of (origin, 0) and from (origin, 0) on, rows included.
static inline void pack_channels(
    const Images& images, int64_t n, int phase, int first, int last, int origin, int width, float* plane,
    int64_t channel, int64_t before, int64_t after) {
    first = std::max(first, 0), last = std::max(first, std::min(last, images.rows(phase)));
    const int columns = images.columns(phase), C = images.channels;
    const int64_t step = images.point * images.phases_w;
    const int64_t start = (int64_t)(first - origin) * width, end = (int64_t)(last - origin) * width;
    for (int c = 0; c < C; c++) {
        float* p = plane + c * channel;
        if (before + start > 0) std::memset(p - before, 0, (before + start) * sizeof(float));
        if (after > end) std::memset(p + end, 0, (after - end) * sizeof(float));
    }
    const int rows = last - first;
    const int64_t line = (int64_t)images.phases_h * images.width * images.point;
    const float* from = images.row(n, phase, first);
    float* to = plane + start;
    if (width == columns && images.phases() == 1)
        copy(to, channel, 1, from, images.channel, step, C, rows * width);
    else if (images.point == 1)
        for (int c = 0; c < C; c++)
            copy(to + c * channel, width, 1, from + c * images.channel, line, step, rows, columns);
    else
        for (int h = 0; h < rows; h++)
            copy(to + h * width, channel, 1, from + h * line, images.channel, step, C, columns);
    for (int c = 0; c < C && width > columns; c++)
        for (int h = 0; h < rows; h++)
            for (int w = columns; w < width; w++) to[c * channel + h * width + w] = 0;
}

// The way back, to contiguous images: rows [first, last) of a phase from a plane laid out as above.
static inline void unpack_channels(
    const Images& images, int64_t n, int phase, int first, int last, int origin, int width, const float* plane,
    int64_t channel) {
    last = std::min(last, images.rows(phase));
    if (last <= first) return;
    const int columns = images.columns(phase), C = images.channels, rows = last - first;
    float* to = images.row(n, phase, first);
    const float* from = plane + (int64_t)(first - origin) * width;
    if (width == columns && images.phases() == 1)
        copy(to, images.channel, 1, from, channel, 1, C, rows * width);
    else
        for (int c = 0; c < C; c++)
            copy(to + c * images.channel, images.phases_h * images.width, images.phases_w, from + c * channel, width, 1,
                 rows, columns);
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
        if (twice) copy(line, columns, 1, from, images.channel, step, C, columns);
        copy(to, depth, 1, twice ? line : from, twice ? 1 : step, twice ? columns : images.channel, columns, C);
        zero((int64_t)h * width + columns, (int64_t)(h + 1) * width);
    }
    zero((int64_t)rows * width, pixels);
}
