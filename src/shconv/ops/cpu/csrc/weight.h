// Gradient of the weight, and of M beside it: pixels of dY against pixels of x, whose channels lie together.
// images(): one image's kernel gradient at a time gives dM as well. taps(): many images at once, x scaled.
#pragma once
#include "pass.h"

namespace weight {

constexpr int BLOCK = 128;             // pixels multiplied at one time by taps()
constexpr int64_t CHUNK = 1 << 22;     // floats of x and dY that taps() keeps packed
constexpr int64_t SUMS = 1 << 23;      // floats of partial sums in images(), or one dW a thread

struct Problem {
    Images x, dY;
    std::vector<Tap> taps;  // source x, destination dY
    const float *weight, *M;
    float *dW, *dM;  // as the weight, and (N, T); dM only from images(), either may be null there
    int64_t next_channel, next_tap;  // from one channel of x to the next in the weight, from one tap
    int64_t images;
    Threads threads;
};

// x with the channels of a pixel together, and the vectors of VL channels under a tap that a tile takes NV at a time.
struct Points {
    int depth, width, T, groups, count;
    int64_t guard, pixels, phase, image;
    std::vector<int64_t> start;  // of every vector under output pixel (0, 0), from an image's start
    std::vector<int> tap, channel;

    Points(const Problem& p, bool tap_by_tap) {
        const Images &S = p.x, &D = p.dY;
        T = p.taps.size(), depth = round_up(S.channels, VL), width = 1, guard = 0;
        int R = 0;
        for (int f = 0; f < S.phases(); f++) R = std::max(R, S.rows(f));
        for (const Tap& t : p.taps)
            width = std::max({width, D.width + std::max(0, t.dw), S.columns(t.from) + std::max(0, -t.dw)});
        for (const Tap& t : p.taps) guard = std::max<int64_t>(guard, std::abs(t.dh * width + t.dw));
        pixels = (int64_t)std::max(R, D.height) * width + guard;
        phase = (guard + pixels) * depth, image = phase * S.phases();
        const int slices = depth / VL;
        count = slices * T, groups = (count + NV - 1) / NV;
        for (int u = 0; u < groups * NV; u++) {
            const int i = std::min(u, count - 1);
            const int t = tap_by_tap ? i / slices : i % T, d = tap_by_tap ? i % slices : i / T;
            tap.push_back(t), channel.push_back(d * VL);
            start.push_back(p.taps[t].from * phase + (guard + p.taps[t].dh * width + p.taps[t].dw) * depth + d * VL);
        }
    }
    void pack(const Problem& p, int64_t n, float* to) const {
        float* line = scratch(2, (int64_t)p.x.channels * p.x.columns(0));
        for (int f = 0; f < p.x.phases(); f++)
            pack_points(p.x, n, f, width, to + f * phase + guard * depth, depth, guard, pixels, line);
    }
    // visit(group, place in a tile, place in the weight, count) for the channels of every vector of a block of RB rows
    template <class Visit>
    void each(const Problem& p, int64_t block, Visit visit) const {
        const int C = p.dY.channels, D = p.x.channels;
        for (int r = 0; r < RB && block * RB + r < C; r++)
            for (int u = 0; u < count; u++)
                visit(u / NV, (r * NV + u % NV) * VL,
                      (block * RB + r) * D * T + channel[u] * p.next_channel + p.taps[tap[u]].t * p.next_tap,
                      std::min(VL, D - channel[u]));
    }
};

// An image's dY as (C / RB, pixel, RB), zero beyond the channels.
static inline void pack_blocks(const Images& dY, int64_t n, float* to) {
    const int area = dY.height * dY.width;
    for (int c = 0; c < dY.channels; c += RB) {
        float* block = to + (int64_t)c * area;
        const int rows = std::min(RB, dY.channels - c);
        if (rows < RB) std::memset(block, 0, RB * area * sizeof(float));
        copy(block, RB, dY.row(n, 0, 0) + c * dY.channel, dY.point, dY.channel, area, rows);
    }
}

static inline void images(const Problem& p) {
    const Points points(p, false);
    const Images& dY = p.dY;
    const int64_t blocks = (dY.channels + RB - 1) / RB, tile = RB * NV * VL, size = blocks * points.groups * tile;
    const int64_t area = dY.height * dY.width, threads = p.threads.count;
    const int64_t slices = p.dW ? std::min(p.images, std::max(threads, std::min(4 * threads, SUMS / size))) : p.images;
    float *const weight = scratch(5, p.dM ? size : 0), *const sums = scratch(6, p.dW ? slices * size : 0);
    if (p.dM)
        parallel(p.threads, blocks, [&](int64_t b) {
            std::memset(weight + b * points.groups * tile, 0, points.groups * tile * sizeof(float));
            points.each(p, b, [&](int64_t g, int at, int64_t plain, int count) {
                float* to = weight + (b * points.groups + g) * tile + at;
                for (int i = 0; i < count; i++) to[i] = p.weight[plain + i * p.next_channel];
            });
        });
    parallel(p.threads, slices, [&](int64_t slice) {
        float* x = scratch(0, points.image);
        float* blocked = dY.point > 1 ? scratch(3, blocks * RB * area) : nullptr;  // rows of pixels serve as they are
        const int64_t step = blocked ? RB : 1;
        V* products = (V*)scratch(1, points.groups * NV * VL);
        float* sum = p.dW ? sums + slice * size : nullptr;
        if (sum) std::memset(sum, 0, size * sizeof(float));
        for (int64_t n = slice * p.images / slices; n < (slice + 1) * p.images / slices; n++) {
            points.pack(p, n, x);
            if (blocked) pack_blocks(dY, n, blocked);
            std::memset((void*)products, 0, points.groups * NV * VL * sizeof(float));
            for (int64_t b = 0; b < blocks; b++) {
                const float *a[RB], *vectors[NV];
                for (int r = 0; r < RB; r++)
                    a[r] = blocked ? blocked + b * RB * area + r
                                   : dY.row(n, 0, 0) + std::min<int64_t>(b * RB + r, dY.channels - 1) * dY.channel;
                for (int g = 0; g < points.groups; g++) {
                    for (int v = 0; v < NV; v++) vectors[v] = x + points.start[g * NV + v];
                    Tile<NV> dH;
                    dH.zero();
                    for (int h = 0; h < dY.height; h++)
                        dH.outer(a, h * dY.width * step, step, vectors, (int64_t)h * points.width * points.depth,
                                 points.depth, dY.width);
                    const int64_t at = (b * points.groups + g) * tile;
#pragma GCC unroll 3
                    for (int v = 0; v < NV; v++) {
                        const float m = p.M[n * points.T + p.taps[points.tap[g * NV + v]].t];
                        V product = products[g * NV + v];
#pragma GCC unroll 8
                        for (int r = 0; r < RB; r++) {
                            const int64_t i = at + (r * NV + v) * VL;
                            if (p.dM) product += dH.at[r][v] * load(weight + i);
                            if (sum) store(sum + i, load(sum + i) + m * dH.at[r][v]);
                        }
                        products[g * NV + v] = product;
                    }
                }
            }
            if (!p.dM) continue;
            float* dM = p.dM + n * points.T;
            std::memset(dM, 0, points.T * sizeof(float));
            for (int u = 0; u < points.count; u++)
                for (int i = 0; i < VL; i++) dM[p.taps[points.tap[u]].t] += products[u][i];
        }
    });
    if (p.dW)
        parallel(p.threads, blocks, [&](int64_t b) {
            points.each(p, b, [&](int64_t g, int at, int64_t plain, int count) {
                const float* from = sums + (b * points.groups + g) * tile + at;
                V total = V{};
                for (int64_t s = 0; s < slices; s++) total += load(from + s * size);
                for (int i = 0; i < count; i++) p.dW[plain + i * p.next_channel] = total[i];
            });
        });
}

static inline void taps(const Problem& p) {
    const Points points(p, true);
    const Images& dY = p.dY;
    const int64_t blocks = (dY.channels + RB - 1) / RB, tile = RB * NV * VL;
    const int area = dY.height * dY.width, rows = std::max(1, std::min(dY.height, BLOCK / dY.width));
    const int together = rows < dY.height ? 1 : std::max(1, BLOCK / area);
    const int64_t rows_each = blocks * RB * area;  // of dY as (C / RB, pixel, RB)
    const int64_t chunk = std::max<int64_t>(1, std::min(p.images, CHUNK / (points.image + rows_each)));
    float* const sums = scratch(7, blocks * points.groups * tile);
    float *packed = scratch(5, chunk * points.image), *packed_dY = scratch(6, chunk * rows_each);
    for (int64_t first = 0; first < p.images; first += chunk) {
        const int64_t last = std::min(first + chunk, p.images);
        parallel(p.threads, last - first, [&](int64_t i) {
            points.pack(p, first + i, packed + i * points.image);
            pack_blocks(dY, first + i, packed_dY + i * rows_each);
        });
        parallel(p.threads, points.groups, [&](int64_t g) {
            float* scaled = scratch(0, (int64_t)std::max(BLOCK, std::max(rows * dY.width, together * area)) * NV * VL);
            for (int64_t n0 = first; n0 < last; n0 += together)
                for (int h0 = 0; h0 < dY.height; h0 += rows) {
                    const int64_t n1 = std::min(n0 + together, last);
                    const int h1 = std::min(h0 + rows, dY.height), count = (h1 - h0) * dY.width;
                    const bool begun = n0 > 0 || h0 > 0;
                    float* to = scaled;
                    for (int64_t n = n0; n < n1; n++) {
                        const float *from[NV], *x = packed + (n - first) * points.image;
                        float m[NV];
                        for (int v = 0; v < NV; v++) {
                            from[v] = x + points.start[g * NV + v];
                            m[v] = p.M[n * points.T + p.taps[points.tap[g * NV + v]].t];
                        }
                        for (int h = h0; h < h1; h++) {
                            const int64_t row = (int64_t)h * points.width * points.depth;
                            for (int w = 0; w < dY.width; w++, to += NV * VL)
                                for (int v = 0; v < NV; v++)
                                    store(to + v * VL, m[v] * load(from[v] + row + w * points.depth));
                        }
                    }
                    for (int64_t b = 0; b < blocks; b++) {
                        float* sum = sums + (g * blocks + b) * tile;
                        Tile<NV> dW;
#pragma GCC unroll 8
                        for (int r = 0; r < RB; r++)
#pragma GCC unroll 3
                            for (int v = 0; v < NV; v++) dW.at[r][v] = begun ? load(sum + (r * NV + v) * VL) : V{};
                        for (int64_t n = n0; n < n1; n++)
                            dW.pixels(packed_dY + (n - first) * rows_each + (b * area + h0 * dY.width) * RB,
                                      scaled + (n - n0) * count * NV * VL, count);
#pragma GCC unroll 8
                        for (int r = 0; r < RB; r++)
#pragma GCC unroll 3
                            for (int v = 0; v < NV; v++) store(sum + (r * NV + v) * VL, dW.at[r][v]);
                    }
                }
        });
    }
    parallel(p.threads, blocks, [&](int64_t b) {
        points.each(p, b, [&](int64_t g, int at, int64_t plain, int count) {
            const float* from = sums + (g * blocks + b) * tile + at;
            for (int i = 0; i < count; i++) p.dW[plain + i * p.next_channel] = from[i];
        });
    });
}

}  // namespace weight
