// A pass: vectors run over destination channels, rows over destination pixels, and every pixel reads its source
// channels one by one. A tile meets one tap after the other, or the kernel made for its image at one go. Images whose
// channels lie apart are turned in the cache, before and after, some rows at a time.
#pragma once
#include <array>
#include <utility>

#include "rectangles.h"

namespace channels {

constexpr int64_t SOURCE = 1 << 17;  // floats of source that a task reads, if four rows are not more already
constexpr int PIXELS = 512;          // of the destination that a task takes, if four rows are not more already
constexpr int TOGETHER = 256;        // pixels of small images that make a task, which then meet the weight together

template <int nv>
constexpr int ROWS = nv == 1 ? 8 + RB / 2 : 3 * RB / nv;  // pixels of the tallest tile that stays in registers

struct Pixel {
    const float *source, *M;
    float* Y;
    const float* X;  // what to multiply with the unscaled tiles
    V* products;     // by tap, of its image
};

struct Factors {  // of a tile
    const float* weight;
    const Step *step, *end;
    const Run* runs;
    bool dM;     // wanted
    bool alone;  // all pixels are of one image
    Pixel pixels[ROWS<1>];
};

// by_taps: M scales what a tap adds; otherwise the weight has it.
template <bool by_taps, int nv, int rows>
static void tile(const Factors& f) {
    const Pixel* const pixels = f.pixels;
    int64_t row[rows];  // in bytes from the first pixel's source: one address moves on, not one for each row
    for (int r = 0; r < rows; r++) row[r] = (const char*)pixels[r].source - (const char*)pixels[0].source;
    const auto each = [](auto visit) __attribute__((always_inline)) {
#pragma GCC unroll 12
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 3
            for (int v = 0; v < nv; v++) visit(r, v);
    };
    for (int r = 0; by_taps && f.dM && r < rows; r++) __builtin_prefetch(pixels[r].X);
    V sum[rows][nv] = {};
    // GCC would keep them in registers where nearly all are taken, and move what every product needs to the stack.
    constexpr bool sum_in_memory = by_taps && 6 * (2 * rows * nv + nv + 1) > 5 * REGISTERS;
    for (const Step* step = f.step; step != f.end; step++) {
        V at[rows][nv] = {};
        for (const Run *run = f.runs + step->first, *last = f.runs + step->last; run != last; run++) {
            const float *w = f.weight + run->row * nv * VL, *const end = w + (int64_t)run->count * nv * VL;
            for (const float* x = pixels[0].source + run->offset; w != end; x++, w += nv * VL) {
                V b[nv];
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++) b[v] = held(load(w + v * VL));
                const auto of_row = [&](int r) { return all(*(const float*)((const char*)x + row[r])); };
                each([&](int r, int v) { at[r][v] = fma(of_row(r), b[v], at[r][v]); });
            }
        }
        if (sum_in_memory) asm("" : "+m"(sum));
        if (!by_taps) return each([&](int r, int v) { store(pixels[r].Y + v * VL, at[r][v]); });
        each([&](int r, int v) { sum[r][v] = fma(all(pixels[r].M[step->t]), at[r][v], sum[r][v]); });
        if (f.dM && f.alone) {
            V product[4] = {};  // that no sum waits for the one before
            each([&](int r, int v) {
                V& part = product[(r * nv + v) % 4];
                part = fma(at[r][v], load(pixels[r].X + v * VL), part);
            });
            pixels[0].products[step->t] += product[0] + product[1] + (product[2] + product[3]);
        } else if (f.dM) {  // one pixel after the other, so that the order is the image's own
            V* to = pixels[0].products + step->t;
            V product = *to;
#pragma GCC unroll 12
            for (int r = 0; r < rows; r++) {
                if (V* next = pixels[r].products + step->t; next != to) *to = product, to = next, product = *to;
#pragma GCC unroll 3
                for (int v = 0; v < nv; v++) product = fma(at[r][v], load(pixels[r].X + v * VL), product);
            }
            *to = product;
        }
    }
    each([&](int r, int v) { store(pixels[r].Y + v * VL, sum[r][v]); });
}

using Tile = void (*)(const Factors&);

template <bool by_taps, int nv, size_t... r>
constexpr std::array<Tile, sizeof...(r)> tiles(std::index_sequence<r...>) {
    return {tile<by_taps, nv, r + 1>...};
}

// Images as a task sees them: pixel (0, 0) of its first image, and from one image, and one pixel, to the next.
struct View {
    float* data;
    int64_t image, point;
};

// The work of a task, and what it is on at the moment.
struct Work {
    const Images &S, &D;
    int64_t images;        // its images
    int first, last;       // its rows in every phase
    View source, Y, X;     // X without data where there is none
    const float *M, *weight;
    V* products;
    int T, channel, lanes;  // the panel's first channel, and how many each of its vectors has
    bool alone;

    // A rectangle's pixels in all images, in tiles of nearly the same height.
    template <bool by_taps, int nv>
    void cover(const Rectangles& all, const Rectangle& part) const {
        static constexpr auto of_height = tiles<by_taps, nv>(std::make_index_sequence<ROWS<nv>>());
        const int top = std::max(first, part.top), bottom = std::min(last, part.bottom);
        const int64_t pixels = images * std::max(0, bottom - top) * (part.right - part.left);
        const int64_t count = (pixels + ROWS<nv> - 1) / ROWS<nv>;
        const bool partly = lanes < VL;
        float *homes[ROWS<nv>], of_Y[ROWS<nv> * VL], of_X[ROWS<nv> * VL] = {};  // where vectors are not full
        const Step* const steps = all.steps.data();
        Factors f{weight, steps + part.first, steps + part.last, all.runs.data(), X.data != nullptr, alone};
        const int64_t right = S.phases_w * source.point, below = S.phases_h * S.width * source.point;
        const int64_t home_right = D.phases_w * Y.point, home_below = D.phases_h * D.width * Y.point;
        const int64_t home = (part.phase / D.phases_w * D.width + part.phase % D.phases_w) * Y.point + channel;
        int64_t n = 0, from, to;  // places of the pixel (h, w) of image n
        int h = top, w = part.left;
        const auto begin_row = [&] {
            w = part.left;
            from = n * source.image + h * below + w * right;
            to = n * Y.image + home + h * home_below + w * home_right;
        };
        begin_row();
        for (int64_t k = 0; k < count; k++) {
            const int rows = pixels * (k + 1) / count - pixels * k / count;
            for (int r = 0; r < rows; r++) {
                Pixel& pixel = f.pixels[r];
                pixel.source = source.data + from;
                pixel.Y = homes[r] = Y.data + to;
                if (by_taps) pixel.M = M + n * T, pixel.products = products + n * T;
                if (f.dM) pixel.X = X.data + to;
                if (partly && f.dM) pixel.X = (float*)std::memcpy(of_X + r * VL, pixel.X, lanes * sizeof(float));
                if (partly) pixel.Y = of_Y + r * VL;
                from += right, to += home_right;
                if (++w < part.right) continue;
                if (++h == bottom) h = top, n++;
                begin_row();
            }
            of_height[rows - 1](f);
            for (int r = 0; partly && r < rows; r++) std::memcpy(homes[r], of_Y + r * VL, lanes * sizeof(float));
        }
    }
    template <bool by_taps>
    void cover(const Rectangles& all, int nv) const {
        for (const Rectangle& part : all.parts)
            if (nv == 1) cover<by_taps, 1>(all, part);
            else if (nv == 2) cover<by_taps, 2>(all, part);
            else cover<by_taps, 3>(all, part);
    }
};

// How the work is cut up: slabs of one image, or small images together; where these are too few, the weight as well.
// No result depends on it, for dM is summed by slabs and panels, and these depend on the shape of one image alone.
struct Plan {
    int rows;  // of a slab
    int64_t slabs, groups, pieces;
    bool alone;  // an image to a task, whatever the batch

    Plan(const Pass& p, int64_t panels, bool by_taps) {
        const Images& S = p.source;
        const int R = p.destination.rows(0), columns = p.destination.columns(0);  // no phase has more
        const int64_t row = (int64_t)S.phases_h * S.width * S.channels, threads = p.threads.count;
        rows = std::min<int64_t>(R, std::max<int64_t>(4, std::min<int64_t>(PIXELS / columns, SOURCE / row)));
        slabs = (R + rows - 1) / rows;
        int64_t together = 1;
        if (by_taps && slabs == 1)
            together = std::max<int64_t>(1, std::min<int64_t>(TOGETHER / (rows * columns), SOURCE / S.image));
        alone = together == 1;
        groups = std::min(p.images, round_up((p.images + together - 1) / together, threads));
        pieces = std::min(panels, (2 * threads + groups * slabs - 1) / (groups * slabs));
    }
};

// by_taps: the weight serves all images, and what a tap adds is scaled by its entry of M; only so there is dM, of X.
// Otherwise every image has a weight of its own.
static inline void run(const Pass& p, bool by_taps, const Images* X, float* dM) {
    const Images &S = p.source, &D = p.destination;
    const Weight weight = pack(p);
    const int64_t panels = weight.panels();
    const Plan plan(p, panels, by_taps);
    const Rectangles parts = rectangles(p, weight, by_taps);
    int up = 0, down = 0;  // rows of the source around a slab's own
    for (const Tap& t : p.taps) up = std::max(up, -t.dh), down = std::max(down, t.dh);
    std::vector<float> shares(dM ? p.images * plan.slabs * panels * p.T : 0);

    parallel(p.threads, plan.groups * plan.slabs * plan.pieces, [&](int64_t task) {
        const int64_t piece = task % plan.pieces, slab = task / plan.pieces % plan.slabs;
        const int64_t group = task / plan.pieces / plan.slabs;
        const int64_t n0 = group * p.images / plan.groups, images = (group + 1) * p.images / plan.groups - n0;
        const int panel0 = piece * panels / plan.pieces, panel1 = (piece + 1) * panels / plan.pieces;
        const int first = slab * plan.rows, last = first + plan.rows;
        // Channels [c0, c1) of the rows [from, to) of the task's images: in place, or turned.
        const auto view = [&](const Images& all, int which, int from, int to, int c0, int c1, bool read) {
            if (all.channel == 1) return View{all.row(n0, 0, 0), all.image, all.point};
            const int pixels = (to - from) * all.width, C = c1 - c0;
            const int64_t begin = (int64_t)from * all.width, size = (int64_t)pixels * C;
            float* const turned = scratch(which, images * size);
            for (int64_t i = 0; read && i < images; i++)
                copy(turned + i * size, C, all.row(n0 + i, 0, 0) + c0 * all.channel + begin, 1, all.channel, pixels, C);
            return View{turned - begin * C - c0, size, C};
        };
        const int top = std::min(S.height, std::max(0, (first - up) * S.phases_h));
        const int bottom = std::max(top, std::min(S.height, (last + down) * S.phases_h));
        const int y0 = first * D.phases_h, y1 = std::min(D.height, last * D.phases_h);
        const int c0 = weight.first(panel0) * VL, c1 = panel1 < panels ? weight.first(panel1) * VL : D.channels;
        Work work{S, D, images, first, last, view(S, 0, top, bottom, 0, S.channels, true)};
        work.Y = view(D, 3, y0, y1, c0, c1, false);
        if (X) work.X = view(*X, 4, y0, y1, c0, c1, true);
        work.M = p.M + n0 * p.T, work.T = p.T, work.alone = plan.alone;
        work.products = (V*)scratch(2, images * p.T * VL);
        for (int panel = panel0; panel < panel1; panel++) {
            const int nv = weight.wide(panel);
            work.channel = weight.first(panel) * VL, work.lanes = std::min(VL, D.channels - work.channel);
            work.weight = weight.panel(panel);
            if (!by_taps) work.weight = weight.scaled(work.M, panel, scratch(1, weight.size(nv)));
            std::memset((void*)work.products, 0, images * p.T * sizeof(V));
            if (by_taps) work.cover<true>(parts, nv);
            else work.cover<false>(parts, nv);
            for (int64_t i = 0; dM && i < images * p.T; i++) {
                float* const ours = &shares[(((n0 + i / p.T) * plan.slabs + slab) * panels + panel) * p.T + i % p.T];
                for (int lane = 0; lane < work.lanes; lane++) *ours += work.products[i][lane];
            }
        }
        for (int64_t i = 0; D.channel > 1 && i < images; i++)
            copy(D.row(n0 + i, 0, 0) + c0 * D.channel + (int64_t)y0 * D.width, D.channel,
                 work.Y.data + i * work.Y.image + (int64_t)y0 * D.width * work.Y.point + c0, 1, work.Y.point, c1 - c0,
                 (y1 - y0) * D.width);
    });
    const int64_t parts_of_dM = plan.slabs * panels;
    for (int64_t i = 0; dM && i < p.images * p.T; i++) {
        double sum = 0;
        for (int64_t part = 0; part < parts_of_dM; part++)
            sum += shares[(i / p.T * parts_of_dM + part) * p.T + i % p.T];
        dM[i] = sum;
    }
}

}  // namespace channels
