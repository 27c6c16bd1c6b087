// Pass into channels_last: vectors run over destination channels, rows over destination pixels, and every pixel reads
// its source channels one by one. A tile meets one tap after the other, or the kernel made for its image at one go.
#pragma once
#include <array>
#include <utility>

#include "window.h"

namespace channels {

constexpr int64_t SOURCE = 1 << 17;  // floats of source that a task packs, if four rows are not more already
constexpr int PIXELS = 512;          // of the destination that a task takes, if four rows are not more already

template <int nv>
constexpr int ROWS = nv == 1 ? 8 + RB / 2 : 3 * RB / nv;  // pixels of the tallest tile that stays in registers

struct Factors {  // of a tile
    const float *source, *weight, *M;  // M of the image, null where the weight has it
    const std::vector<Step>* steps;
    const int64_t *place, *home;  // of the pixels, in source and in Y
    float* Y;
    int lanes;              // channels of Y and X that there are
    const float* X;         // what to multiply with the unscaled tiles where Y has its pixels, or null
    const int32_t* inside;  // (step, pixels) 0 where X is to be left out, because 0 * infinity is not 0
    int pixels;
    V* products;  // by tap
};

template <int nv, int rows>
static void tile(const Factors& f) {
    const float* x[rows];
    for (int r = 0; r < rows; r++) x[r] = f.source + f.place[r];
    V sum[rows][nv] = {};
    auto each = [](auto visit) __attribute__((always_inline)) {
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++) visit(r, v);
    };
    static const float zeros[nv * VL] = {};
    const int32_t* inside = f.inside;
    const bool full = f.lanes >= nv * VL;
    for (const Step& step : *f.steps) {
        V at[rows][nv] = {};
        auto multiply = [&](int64_t k, const float* w) __attribute__((always_inline)) {
            V b[nv];
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++) b[v] = held(load(w + v * VL));
            each([&](int r, int v) { at[r][v] += x[r][k] * b[v]; });
        };
        for (const Run& run : step.runs) {
            const float* w = f.weight + run.row * nv * VL;
            int64_t k = run.offset;
            const int64_t end = k + run.count;
            for (; k + 2 <= end; k += 2, w += 2 * nv * VL) multiply(k, w), multiply(k + 1, w + nv * VL);
            if (k < end) multiply(k, w);
        }
        const float m = f.M ? f.M[step.tap.t] : 1;
        each([&](int r, int v) { sum[r][v] += m * at[r][v]; });
        if (!f.X) continue;
        V product[4] = {};  // that no addition waits for the one before
        const float* X[rows];
        for (int r = 0; r < rows; r++) X[r] = inside[r] ? f.X + f.home[r] : zeros;
        each([&](int r, int v) {
            const float* from = X[r] + v * VL;
            product[(r * nv + v) % 4] += at[r][v] * (full ? load(from) : load(from, f.lanes - v * VL));
        });
        f.products[step.tap.t] += product[0] + product[1] + (product[2] + product[3]);
        inside += f.pixels;
    }
    each([&](int r, int v) { store(f.Y + f.home[r] + v * VL, sum[r][v], f.lanes - v * VL); });
}

using Tile = void (*)(const Factors&);

template <int nv, size_t... r>
constexpr std::array<Tile, sizeof...(r)> tiles(std::index_sequence<r...>) {
    return {tile<nv, r + 1>...};
}

// All pixels of a phase in one image and one panel, in tiles of nearly the same height.
template <int nv>
static void cover(Factors f, const Phase& phase) {
    static constexpr auto of_height = tiles<nv>(std::make_index_sequence<ROWS<nv>>());
    const int32_t* const inside = f.inside;
    const int64_t count = (f.pixels + ROWS<nv> - 1) / ROWS<nv>;
    for (int64_t k = 0; k < count; k++) {
        const int64_t i = f.pixels * k / count, end = f.pixels * (k + 1) / count;
        f.place = &phase.place[i], f.home = &phase.home[i], f.inside = inside + i;
        of_height[end - i - 1](f);
    }
}

// How the work is cut up: slabs of one image, or small images together; where these are too few, the weight as well.
// No result depends on it, for dM is summed by slabs and panels, and these depend on the shape of one image alone.
struct Plan {
    int rows;  // of a slab
    int64_t slabs, groups, pieces;

    explicit Plan(const Pass& p) {
        const Images& S = p.source;
        const int R = p.destination.rows(0), columns = p.destination.columns(0);  // no phase has more
        const int64_t in_cache = SOURCE / ((int64_t)S.phases_h * S.width * S.channels);
        rows = std::min<int64_t>(R, std::max<int64_t>(4, std::min<int64_t>(PIXELS / columns, in_cache)));
        slabs = (R + rows - 1) / rows;
    }
    void share(const Pass& p, const Window& window, int64_t panels, bool by_taps) {
        const int64_t pixels = (int64_t)rows * p.destination.columns(0), threads = p.threads.count;
        int64_t together = 1;
        if (by_taps && slabs == 1) together = std::max<int64_t>(1, std::min(PIXELS / pixels, SOURCE / window.size));
        groups = std::min(p.images, round_up((p.images + together - 1) / together, threads));
        pieces = std::min(panels, (2 * threads + groups * slabs - 1) / (groups * slabs));
    }
};

// by_taps: the weight serves all images, and what a tap adds is scaled by its entry of M; only so there is dM, of X.
// Otherwise every image has a weight of its own.
static inline void run(const Pass& p, bool by_taps, const Images* X, float* dM) {
    const Images &S = p.source, &D = p.destination;
    Plan plan(p);
    const Window window(p, plan.rows);
    const Weight weight = pack(p);
    const int64_t panels = weight.panels();
    plan.share(p, window, panels, by_taps);
    std::vector<Phase> phases;
    for (int f = 0; f < D.phases(); f++) phases.emplace_back(p, window, weight, f, by_taps);
    std::vector<float> shares(dM ? p.images * plan.slabs * panels * p.T : 0);

    parallel(p.threads, plan.groups * plan.slabs * plan.pieces, [&](int64_t task) {
        const int64_t piece = task % plan.pieces, slab = task / plan.pieces % plan.slabs;
        const int64_t group = task / plan.pieces / plan.slabs;
        const int64_t n0 = group * p.images / plan.groups, images = (group + 1) * p.images / plan.groups - n0;
        const int panel0 = piece * panels / plan.pieces, panel1 = (piece + 1) * panels / plan.pieces;
        const int first = slab * plan.rows;
        float* const packed = scratch(0, images * window.size);
        std::vector<const float*> source;
        for (int64_t i = 0; i < images; i++) source.push_back(window.of(S, n0 + i, first, packed + i * window.size));
        const float* w = weight.data;
        if (!by_taps) w = weight.scaled(p.M + n0 * p.T, panel0, panel1, scratch(1, weight.size()));
        V* const products = (V*)scratch(2, p.T * VL);
        for (const Phase& phase : phases) {
            const int pixels = (std::min(first + plan.rows, D.rows(phase.index)) - first) * phase.columns;
            if (pixels <= 0) continue;
            int32_t* const inside = (int32_t*)scratch(3, X ? (int64_t)phase.steps.size() * pixels : 0);
            if (X) phase.inside(S, first, pixels, inside);
            for (int panel = panel0; panel < panel1; panel++)
                for (int64_t n = n0; n < n0 + images; n++) {
                    const int nv = weight.wide(panel), c = weight.first(panel) * VL;
                    Factors f{source[n - n0], w + weight.panel(panel), by_taps ? p.M + n * p.T : nullptr, &phase.steps};
                    f.Y = D.row(n, phase.index, first) + c, f.lanes = D.channels - c;
                    f.X = X ? X->row(n, phase.index, first) + c : nullptr;
                    f.inside = inside, f.pixels = pixels, f.products = products;
                    std::memset((void*)products, 0, p.T * sizeof(V));
                    if (nv == 3) cover<3>(f, phase);
                    else if (nv == 2) cover<2>(f, phase);
                    else cover<1>(f, phase);
                    if (!dM) continue;
                    float* const ours = &shares[((n * plan.slabs + slab) * panels + panel) * p.T];
                    for (const Step& step : phase.steps)
                        for (int lane = 0; lane < VL; lane++) ours[step.tap.t] += products[step.tap.t][lane];
                }
        }
    });
    const int64_t parts = plan.slabs * panels;
    for (int64_t i = 0; dM && i < p.images * p.T; i++) {
        double sum = 0;
        for (int64_t part = 0; part < parts; part++) sum += shares[(i / p.T * parts + part) * p.T + i % p.T];
        dM[i] = sum;
    }
}

}  // namespace channels
