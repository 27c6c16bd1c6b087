// Pass for large images and small kernels: every image's kernel is made in cache, K source channels at a time, and each
// destination pixel gathers all its taps in registers. Planes have a gap of zeros after each row, so nothing is masked.
#pragma once
#include "pass.h"

namespace gather {

constexpr int64_t PLANE = 1 << 17, OUT = 3 << 15;  // floats of source and destination one task works on
constexpr int DEPTH = 144;  // length of a tile's reduction: its source rows stay in the first cache

struct Phase {  // of the destination
    std::vector<Tap> taps;
    std::vector<int32_t> offset;  // of (source channel in its block, tap) from a pixel
    const float* weight;          // (block, C / RB, source channel, tap, RB)
    int depth;                    // source channels in a block
    std::vector<int64_t> start;
};

struct Layout {
    int width, up, down;
    int64_t before, after, channel, phase;
};

static inline int row_width(const Pass& p) {
    int width = 1;
    for (const Tap& t : p.taps) {
        width = std::max(width, p.destination.columns(t.to) + std::max(0, t.dw));
        width = std::max(width, p.source.columns(t.from) + std::max(0, -t.dw));
    }
    return width;
}

static inline void tiles(const Phase& phase, int channels, const float* A, const float* plane, int K, float* out,
                         int64_t ld, int vectors, bool first) {
    const int32_t* offset = phase.offset.data();
    for (int v = 0, nv; v < vectors; v += nv) {
        nv = next_vectors(vectors - v);
        auto run = [&](auto width) {
            constexpr int n = decltype(width)::value;
            for (int c = 0; c < channels; c += RB) {
                Tile<n> tile;
                tile.zero();
                tile.pixels(A + (int64_t)c * K, plane + v * VL, offset, K);
#pragma GCC unroll 8
                for (int r = 0; r < RB; r++)
#pragma GCC unroll 3
                    for (int i = 0; i < n; i++) {
                        float* y = out + (c + r) * ld + (v + i) * VL;
                        store(y, first ? tile.at[r][i] : load(y) + tile.at[r][i]);
                    }
            }
        };
        if (nv == 3) run(std::integral_constant<int, 3>());
        else if (nv == 2) run(std::integral_constant<int, 2>());
        else run(std::integral_constant<int, 1>());
    }
}

static inline void run(const Pass& p) {
    const Images &S = p.source, &D = p.destination;
    const int C = round_up(D.channels, RB);
    int up = 0, down = 0, R = 0;
    for (const Tap& t : p.taps) up = std::max(up, -t.dh), down = std::max(down, t.dh);
    const int width = row_width(p);
    for (int f = 0; f < D.phases(); f++) R = std::max(R, D.rows(f));

    const int64_t from_source = std::max<int64_t>(4, PLANE / ((int64_t)S.channels * S.phases() * width) - up - down);
    const int64_t from_output = std::max<int64_t>(4, OUT / ((int64_t)C * width));
    const int64_t shared = (R * p.images + 2 * p.threads.count - 1) / (2 * p.threads.count);
    const int rows = (int)std::min({(int64_t)R, from_source, from_output, shared});
    const int slabs = (R + rows - 1) / rows;
    const int64_t before = round_up((int64_t)(up + 1) * width, 16);
    const int64_t after = (int64_t)(rows + down + 1) * width + NV * VL;
    const int64_t channel = odd_lines(before + after), ld = odd_lines((int64_t)rows * width + NV * VL);

    std::vector<Phase> phases(D.phases());
    for (const Tap& t : p.taps) phases[t.to].taps.push_back(t);
    int64_t largest = 0;
    float* w = scratch(4, (int64_t)S.channels * p.T * C);
    for (Phase& f : phases) {
        const int T = f.taps.size();
        if (!T) continue;
        f.depth = std::max(1, std::min(S.channels, DEPTH / T));
        for (int d = 0; d < f.depth; d++)
            for (const Tap& t : f.taps)
                f.offset.push_back((t.from * S.channels + d) * channel + (int64_t)t.dh * width + t.dw);
        largest = std::max(largest, (int64_t)f.depth * T * C);
        f.weight = w;
        for (int d0 = 0; d0 < S.channels; d0 += f.depth) {
            f.start.push_back(w - f.weight);
            for (int c0 = 0; c0 < C; c0 += RB)
                for (int d = d0; d < std::min(d0 + f.depth, S.channels); d++)
                    for (const Tap& t : f.taps) {
                        const float* from = p.weight + d * p.weight_from + t.t * p.weight_tap;
                        for (int c = c0; c < c0 + RB; c++) *w++ = c < D.channels ? from[c * p.weight_to] : 0;
                    }
        }
    }

    parallel(p.threads, p.images * slabs, [&](int64_t task) {
        const int64_t n = task / slabs;
        const int first = task % slabs * rows;
        float* plane = scratch(0, S.phases() * S.channels * channel) + before;
        float* A = scratch(1, largest);
        float* out = scratch(2, C * ld);
        for (int s = 0; s < S.phases(); s++)
            pack_channels(S, n, s, first - up, first + rows + down, first, width, plane + s * S.channels * channel,
                          channel, before, after);
        for (int f = 0; f < D.phases(); f++) {
            const Phase& phase = phases[f];
            const int T = phase.taps.size(), last = std::min(first + rows, D.rows(f));
            if (last <= first) continue;
            float* scale = scratch(3, T * RB);
            for (int t = 0; t < T; t++)
                for (int r = 0; r < RB; r++) scale[t * RB + r] = p.M[n * p.T + phase.taps[t].t];
            const int vectors = ((last - first) * width + VL - 1) / VL;
            if (!T) std::memset(out, 0, C * ld * sizeof(float));
            for (int d0 = 0, block = 0; T && d0 < S.channels; d0 += phase.depth, block++) {
                const int K = std::min(phase.depth, S.channels - d0) * T;
                const float* w = phase.weight + phase.start[block];
                for (int64_t i = 0; i < (int64_t)C * K; i += T * RB)
                    for (int j = 0; j < T * RB; j++) A[i + j] = w[i + j] * scale[j];
                tiles(phase, C, A, plane + d0 * channel, K, out, ld, vectors, d0 == 0);
            }
            unpack_channels(D, n, f, first, last, first, width, out, ld);
        }
    });
}

}  // namespace gather
