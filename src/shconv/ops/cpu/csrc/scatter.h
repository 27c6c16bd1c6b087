// Pass for large kernels and small images: the pixels of several images side by side meet each tap's weights unscaled,
// and a tile is scaled, masked and added where it belongs. With x at hand the same tiles give dM.
#pragma once
#include "pass.h"

namespace scatter {

constexpr int PIXELS = 256;     // of a group, at least one image
constexpr int STRETCH = 384;    // pixels of a larger image taken at one time, so that they stay in cache for all taps
constexpr int CHUNK = 64;       // destination channels whose share of dM is summed together
constexpr bool PANELS = VL == 8;  // the source rows of a tile are packed one after the other: where rows are short

static inline void run(const Pass& p, const Images* X, float* dM) {
    const Images &S = p.source, &D = p.destination;
    const int C = round_up(D.channels, RB), taps = p.taps.size();
    int R = 0, width = 0, reach = 0;
    for (int f = 0; f < S.phases(); f++) R = std::max(R, S.rows(f)), width = std::max(width, S.columns(f));
    for (int f = 0; f < D.phases(); f++) R = std::max(R, D.rows(f)), width = std::max(width, D.columns(f));
    std::vector<int> offset(taps);
    for (int t = 0; t < taps; t++) {  // from a source pixel to its destination
        offset[t] = -p.taps[t].dh * width - p.taps[t].dw;
        reach = std::max(reach, std::abs(offset[t]));
    }
    const int area = R * width;
    const int64_t share = (p.images + p.threads.count - 1) / p.threads.count;
    const int64_t together = std::max<int64_t>(1, std::min<int64_t>(PIXELS / area, share));
    const int64_t groups = (p.images + together - 1) / together, chunks = (C + CHUNK - 1) / CHUNK;
    const int64_t pieces = std::min(chunks, (2 * p.threads.count + groups - 1) / groups);
    const int64_t pixels = round_up(together * area, VL), guard = round_up(reach, 16);
    const int64_t ld = odd_lines(guard + pixels + reach + NV * VL);

    std::vector<int32_t> inside(taps * pixels), rows[NV];
    for (int t = 0; t < taps; t++)
        for (int64_t i = 0; i < together * area; i++) {
            const int h = i % area / width - p.taps[t].dh, w = i % width - p.taps[t].dw;
            inside[t * pixels + i] = h >= 0 && h < R && w >= 0 && w < width ? -1 : 0;
        }
    for (int n = 1; n <= NV; n++)
        for (int d = 0; d < S.channels; d++) rows[n - 1].push_back(PANELS ? d * n * VL : d * ld);
    float* const weight = scratch(5, (int64_t)C * taps * S.channels);  // (C / RB, tap, source channel, RB)
    parallel(p.threads, C / RB, [&](int64_t block) {
        float* const w = weight + block * RB * taps * S.channels;
        const int rows = std::min<int64_t>(RB, D.channels - block * RB);
        if (rows < RB) std::memset(w, 0, RB * taps * S.channels * sizeof(float));
        for (int d0 = 0; d0 < S.channels; d0 += 16)  // what 16 source channels need stays in the first cache
            for (int t = 0; t < taps; t++) {
                const int64_t at = block * RB * p.weight_to + d0 * p.weight_from + p.taps[t].t * p.weight_tap;
                const int count = std::min(16, S.channels - d0);
                copy(w + (t * S.channels + d0) * RB, RB, 1, p.weight + at, p.weight_from, p.weight_to, count, rows);
            }
    });
    std::vector<float> shares(dM ? chunks * p.images * p.T : 0);

    parallel(p.threads, groups * pieces, [&](int64_t task) {
        const int64_t n0 = task / pieces * together, n1 = std::min(n0 + together, p.images);
        const int64_t chunk0 = task % pieces * chunks / pieces, chunk1 = (task % pieces + 1) * chunks / pieces;
        const int c0 = chunk0 * CHUNK, c1 = std::min<int64_t>(chunk1 * CHUNK, C);
        const int channels = std::min(c1, D.channels) - c0;
        const int64_t part = (c1 - c0) * ld;  // of a destination phase
        const int vectors = ((n1 - n0) * area + VL - 1) / VL;
        float* source = scratch(0, S.phases() * S.channels * ld) + guard;
        float* out = scratch(1, D.phases() * part) + guard;
        float* x = X ? scratch(2, D.phases() * part) + guard : nullptr;
        float* scale = scratch(3, taps * pixels);
        float* products = scratch(4, taps * pixels);

        const int stretch = area > PIXELS ? STRETCH / VL : vectors;

        for (int f = 0; f < S.phases(); f++)
            for (int64_t n = n0, at = 0; n < n1; n++, at += area)
                pack_channels(S, n, f, 0, R, 0, width, source + f * S.channels * ld + at, ld, 0,
                              n + 1 < n1 ? area : (int64_t)vectors * VL - at);
        std::memset(out - guard, 0, D.phases() * part * sizeof(float));
        if (X) {
            std::memset(x - guard, 0, D.phases() * part * sizeof(float));
            const Images ours = X->from_channel(c0, channels);
            for (int f = 0; f < ours.phases(); f++)
                for (int64_t n = n0; n < n1; n++)
                    pack_channels(ours, n, f, 0, R, 0, width, x + f * part + (n - n0) * area, ld, 0, area);
        }
        for (int t = 0; t < taps; t++)
            for (int64_t i = 0; i < vectors * VL; i++)
                scale[t * pixels + i] = n0 + i / area < n1 ? p.M[(n0 + i / area) * p.T + p.taps[t].t] : 0;

        float* const panels = PANELS ? scratch(6, S.phases() * S.channels * vectors * VL) : nullptr;
        for (int f = 0; f < S.phases() && PANELS; f++)
            for (int v0 = 0; v0 < vectors; v0 += stretch)
                for (int v = v0, end = std::min(v0 + stretch, vectors), nv; v < end; v += nv) {
                    nv = next_vectors(end - v);
                    float* to = panels + ((int64_t)f * vectors + v) * S.channels * VL;
                    const float* from = source + (int64_t)f * S.channels * ld + v * VL;
                    for (int d = 0; d < S.channels; d++)
                        for (int i = 0; i < nv; i++) store(to + (d * nv + i) * VL, load(from + d * ld + i * VL));
                }

        auto tile = [&](auto n_vectors, int c, int t, int v) {
            constexpr int n = decltype(n_vectors)::value;
            const Tap& tap = p.taps[t];
            Tile<n> tile;
            tile.zero();
            tile.pixels(weight + ((int64_t)c * taps + (int64_t)t * RB) * S.channels,
                        PANELS ? panels + ((int64_t)tap.from * vectors + v) * S.channels * VL
                               : source + (int64_t)tap.from * S.channels * ld + v * VL,
                        rows[PANELS ? n - 1 : 0].data(), S.channels);
            const int64_t at = tap.to * part + (c - c0) * ld + offset[t] + v * VL, table = t * pixels + v * VL;
#pragma GCC unroll 3
            for (int i = 0; i < n; i++) {
                const Mask mask = load(inside.data() + table + i * VL);
                const V m = load(scale + table + i * VL);
                V product = X ? load(products + table + i * VL) : V{};
#pragma GCC unroll 8
                for (int r = 0; r < RB; r++) {
                    float* y = out + at + r * ld + i * VL;
                    const V G = keep(tile.at[r][i], mask);
                    store(y, load(y) + m * G);
                    if (X) product += keep(load(x + (y - out)), mask) * G;
                }
                if (X) store(products + table + i * VL, product);
            }
        };
        for (int64_t chunk = chunk0; chunk < chunk1; chunk++) {
            const int from = chunk * CHUNK, to = std::min<int64_t>(from + CHUNK, c1);
            if (X) std::memset(products, 0, taps * pixels * sizeof(float));
            for (int v0 = 0; v0 < vectors; v0 += stretch)
                for (int c = from; c < to; c += RB)
                    for (int t = 0; t < taps; t++)  // outside v, so that the order of a pixel's sum is the image's own
                        for (int v = v0, end = std::min(v0 + stretch, vectors), nv; v < end; v += nv) {
                            nv = next_vectors(end - v);
                            if (nv == 3) tile(std::integral_constant<int, 3>(), c, t, v);
                            else if (nv == 2) tile(std::integral_constant<int, 2>(), c, t, v);
                            else tile(std::integral_constant<int, 1>(), c, t, v);
                        }
            if (!X) continue;
            for (int t = 0; t < taps; t++)
                for (int64_t n = n0; n < n1; n++) {
                    double sum = 0;
                    for (int i = 0; i < area; i++) sum += products[t * pixels + (n - n0) * area + i];
                    shares[(chunk * p.images + n) * p.T + p.taps[t].t] = sum;
                }
        }
        const Images ours = D.from_channel(c0, channels);
        for (int f = 0; f < D.phases(); f++)
            for (int64_t n = n0; n < n1; n++)
                unpack_channels(ours, n, f, 0, R, 0, width, out + f * part + (n - n0) * area, ld);
    });
    if (dM)
        for (int64_t i = 0; i < p.images * p.T; i++) {
            dM[i] = 0;
            for (int64_t chunk = 0; chunk < chunks; chunk++) dM[i] += shares[chunk * p.images * p.T + i];
        }
}

}  // namespace scatter
