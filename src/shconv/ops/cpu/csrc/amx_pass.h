// Y and dX in bfloat16. An image's weights are scaled by M, 32 of their channels at a time, where images are large;
// else every tap's product is scaled as it leaves the tiles, and dM comes from the same products.
#pragma once
#include "amx_tiles.h"

#if SHCONV_AMX
namespace amx {

constexpr int64_t CHUNK = 1 << 19;  // packed numbers of the images that share one visit of the weights

// One pass over images, forward (x -> Y) or its adjoint (dY -> dX): see pass.h for taps.
struct Pass {
    Stack source, destination;
    std::vector<Tap> taps;
    Weight weight;
    bool adjoint;
    const float* M;
    int64_t images;
    Threads threads;
    Stack x{};  // where dM is wanted: the images that the destination is the gradient of
    float* dM = nullptr;
};

// What one destination phase needs: its taps and, for each, where the source begins.
struct Phase {
    std::vector<int> tap;
    std::vector<int64_t> start;
    int64_t rows, columns;
};

static inline std::vector<Phase> phases(const Pass& p, const Padded& at) {
    std::vector<Phase> phases;
    for (int f = 0; f < p.destination.phases(); f++)
        phases.push_back({{}, {}, p.destination.rows(f), p.destination.columns(f)});
    for (const Tap& t : p.taps) {
        phases[t.to].tap.push_back(t.t);
        phases[t.to].start.push_back(t.from * at.length + at.offset(t));
    }
    return phases;
}

// Where the numbers of one product lie: pixels of the source (of `depth` channels) and the tiles of the weight.
struct Operands {
    const bf16* source;
    int64_t depth;
    const bf16* weight;
    int64_t tap_size;

    template <int NA, int NB>
    inline __attribute__((always_inline)) void multiply(const Phase& phase, size_t i) const {
        const bf16 *A = source + phase.start[i] * depth, *B = weight + phase.tap[i] * tap_size;
        amx::multiply<NA, NB>(A, 2 * depth, TILE * depth, 32, B, 64, 512, NB * 512, depth / 32);
    }
};

// sums[a][b][16][16], NA x 16 pixels of NB x 16 channels, over the taps of weights that are scaled already.
template <int NA, int NB>
static void sum_scaled(const Phase& phase, const Operands& of, float* sums) {
    clear();
    for (size_t i = 0; i < phase.tap.size(); i++) of.multiply<NA, NB>(phase, i);
    store_tiles(sums);
}

// The same, each tap's product times M[t] as it leaves the tiles; and its products with x, if any, added to dM[t].
template <int NA, int NB>
static void scale_sums(const Phase& phase, const Operands& of, float* sums, const float* M, const bf16* x,
                       int64_t x_depth, V* dM) {
    alignas(64) float product[4 * 256];
    std::memset(sums, 0, sizeof(product));
    for (size_t i = 0; i < phase.tap.size(); i++) {
        const int t = phase.tap[i];
        clear();
        of.multiply<NA, NB>(phase, i);
        store_tiles(product);
        const V m = V{} + M[t];
        V inner = V{};
        for (int a = 0; a < NA; a++)
            for (int b = 0; b < NB; b++)
                for (int r = 0; r < TILE; r++) {
                    const int at = (2 * a + b) * 256 + r * 16;
                    const V v = load(product + at);
                    store(sums + at, load(sums + at) + m * v);
                    if (x) inner += v * widen(x + (a * TILE + r) * x_depth + b * 16);
                }
        if (x) dM[t] += inner;
    }
}

// A pass as it is cut up: panels of 16 or 32 destination channels, chunks of images, blocks of up to 32 pixels.
struct Convolution {
    const Pass& p;
    const Padded at;
    const std::vector<Phase> phases;
    const int T, tiles, across;  // taps; tiles and channels of a panel
    const int64_t depth, width, panels, tap_size, panel_size, source_size, image_size;
    const bool staged;  // destination channels lie apart: written all at once
    const bool scaled;  // measured: scaling an image's weights is cheaper than scaling its sums
    bf16* const weights;

    explicit Convolution(const Pass& p)
        : p(p), at(p.source, p.destination, p.taps), phases(amx::phases(p, at)), T(p.taps.size()),
          tiles(p.destination.channels > TILE ? 2 : 1), across(TILE * tiles), depth(round_up(p.source.channels, 32)),
          width(round_up(p.destination.channels, across)), panels(width / across),
          tap_size(depth / 32 * tiles * 512), panel_size(T * tap_size),
          source_size(p.source.phases() * at.length * depth), image_size(phases.size() * at.length * width),
          staged(p.destination.channel != 1), scaled(!p.dM && 5 * phases[0].rows * phases[0].columns > 2 * depth),
          weights(numbers(0, panels * panel_size)) {}

    void run() const {
        parallel(p.threads, panels,
                 [&](int64_t i) { p.weight.pack(p.adjoint, i * tiles, tiles, depth, weights + i * panel_size); });
        const int64_t fit = std::max<int64_t>(1, CHUNK / (source_size + (staged + !!p.dM) * image_size));
        const int64_t chunk = std::min(fit, (p.images + p.threads.count - 1) / p.threads.count);
        parallel(p.threads, (p.images + chunk - 1) / chunk,
                 [&](int64_t i) { images(i * chunk, std::min(chunk, p.images - i * chunk)); });
    }

    void images(int64_t first, int64_t count) const {
        bf16 *const sources = numbers(1, count * source_size), *const filtered = numbers(4, scaled ? panel_size : 0);
        bf16 *const xs = numbers(2, p.dM ? count * image_size : 0);
        bf16 *const outs = numbers(3, staged ? count * image_size : 0);
        V* const dM = (V*)scratch(0, count * T * VL);
        std::memset((void*)dM, 0, count * T * sizeof(V));
        for (int64_t i = 0; i < count; i++) {
            points(p.source, first + i, at, depth, sources + i * source_size);
            if (p.dM) points(p.x, first + i, at, width, xs + i * image_size);
        }
        const Tiles configured;
        for (int64_t panel = 0; panel < panels; panel++)
            for (int64_t i = 0; i < count; i++) {
                const float* M = p.M + (first + i) * T;
                const bf16* weight = weights + panel * panel_size;
                for (int t = 0; scaled && t < T; t++)
                    scale(weight + t * tap_size, 0, filtered + t * tap_size, tap_size, 1, M[t]);
                for (size_t f = 0; f < phases.size(); f++) {
                    const int64_t from = i * image_size + (f * at.length + at.guard) * width + panel * across;
                    const Operands of{sources + i * source_size, depth, scaled ? filtered : weight, tap_size};
                    blocks(first + i, f, panel * across, of, M, p.dM ? xs + from : nullptr, dM + i * T, outs + from);
                }
            }
        for (int64_t i = 0; i < count; i++) {
            if (staged) unpack(p.destination, first + i, at, width, outs + i * image_size);
            for (int t = 0; p.dM && t < T; t++) p.dM[(first + i) * T + t] = total(dM[i * T + t]);
        }
    }

    // All pixels of a phase of image n, of the panel's channels from c on.
    void blocks(int64_t n, int f, int64_t c, Operands of, const float* M, const bf16* x, V* dM, bf16* out) const {
        const Phase& phase = phases[f];
        alignas(64) float sums[4 * 256];
        int64_t h = 0, w = 0;
        for (int64_t left = phase.rows * at.width; left > 0; left -= 32) {
            const int kind = 2 * (left > TILE) + (tiles == 2);
            if (scaled) {
                const auto sum = {sum_scaled<1, 1>, sum_scaled<1, 2>, sum_scaled<2, 1>, sum_scaled<2, 2>};
                sum.begin()[kind](phase, of, sums);
            } else {
                const auto sum = {scale_sums<1, 1>, scale_sums<1, 2>, scale_sums<2, 1>, scale_sums<2, 2>};
                sum.begin()[kind](phase, of, sums, M, x, width, dM);
            }
            for (int64_t r = 0; r < std::min<int64_t>(32, left); r++, w++) {
                if (w == at.width) w = 0, h++;
                if (w >= phase.columns) continue;
                bf16* const to = staged ? out + r * width : p.destination.at(n, f, h, w) + c;
                for (int b = 0; b < tiles; b++)
                    narrow(to + TILE * b, load(sums + (r / TILE * 2 + b) * 256 + r % TILE * 16),
                           staged ? TILE : p.destination.channels - c - TILE * b);
            }
            of.source += 32 * depth, out += 32 * width;
            if (x) x += 32 * width;
        }
    }
};

static inline void convolve(const Pass& p) { Convolution(p).run(); }

}  // namespace amx
#endif
