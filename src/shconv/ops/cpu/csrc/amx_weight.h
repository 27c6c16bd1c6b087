// dW in bfloat16, and dM beside it: sums over pixels, so that these are what the tiles multiply along.
#pragma once
#include "amx_tiles.h"

#if SHCONV_AMX
namespace amx {

constexpr int64_t SHARED = 1 << 23;  // packed numbers of the images whose gradients of the weight are summed in tiles
constexpr int GROUP = 512;           // pixels of images whose scaled gradients are at hand at a time

// The gradients of the weight and, where each image's part is at hand, of M, from images x and dY.
struct Gradient {
    Stack x, dY;
    std::vector<Tap> taps;
    const float* M;
    Weight weight, dW;  // read for dM; written
    float* dM;          // or null
    int64_t images;
    Threads threads;
};

// x with a channel's pixels together, dY in pairs of pixels, both padded as `at` says: their products over the pixels,
// in blocks of up to two tiles of x channels by two of dY channels.
struct Pixels {
    const Gradient& p;
    Padded at;
    int T;
    int64_t D, C, length, steps, x_size, dY_size, down, right;  // D, C in whole tiles; blocks down and across

    explicit Pixels(const Gradient& p) : p(p), at(p.x, p.dY, p.taps) {
        T = p.taps.size(), D = round_up(p.x.channels, TILE), C = round_up(p.dY.channels, TILE);
        down = (D / TILE + 1) / 2, right = (C / TILE + 1) / 2;
        steps = (p.dY.height * at.width + 31) / 32;
        length = (round_up(at.length, 32) / 32 | 1) * 32;  // spreads channels over all cache sets
        x_size = p.x.phases() * D * length, dY_size = steps * 32 * C;
    }
    int64_t sums() const { return down * right * T * 1024; }
    int64_t place(int64_t i, int64_t j, int t) const { return ((i * right + j) * T + t) * 1024; }  // [i][j][t][tiles]
    void pack(int64_t n, bf16* x, bf16* dY) const {
        planes(p.x, n, at, D, length, x);
        pairs(p.dY, n, at, C, steps * 32, dY);
    }
    // Tiles += block (i, j) of one image under tap t; dY holds `width` channels, of which block j begins at `from`.
    void multiply(const Tap& t, int64_t i, int64_t j, const bf16* x, const bf16* dY, int64_t width,
                  int64_t from) const {
        const bf16 *A = x + (t.from * D + i * 32) * length + at.offset(t), *B = dY + 2 * from;
        const bool a = 2 * i + 1 < D / TILE, b = 2 * j + 1 < C / TILE;
        (a ? b ? amx::multiply<2, 2> : amx::multiply<2, 1> : b ? amx::multiply<1, 2> : amx::multiply<1, 1>)(
            A, 2 * length, TILE * length, 32, B, 4 * width, 32, 32 * width, steps);
    }
    // dW from `slices` sums that lie sums() apart.
    void write(const float* sums, int64_t slices) const {
        parallel(p.threads, down * right, [&](int64_t block) {
            float* const total = scratch(0, T * 1024);
            const float* from = sums + block * T * 1024;
            for (int k = 0; k < T * 1024; k += VL) {
                V v = load(from + k);
                for (int64_t s = 1; s < slices; s++) v += load(from + s * this->sums() + k);
                store(total + k, v);
            }
            p.dW.put(total, block / right * 32, block % right * 32);
        });
    }
};

// Many pixels an image: each one's product is scaled as it leaves the tiles; a thread keeps sums of its own.
static inline void weight_by_images(const Gradient& p) {
    const Pixels all(p);
    const int T = all.T;
    const int64_t slices = std::min<int64_t>(p.images, p.threads.count), size = all.sums();
    float *const sums = scratch(7, (slices + 1) * size), *const weight = sums + slices * size;
    if (p.dM) parallel(p.threads, all.down * all.right, [&](int64_t block) {
        p.weight.unrounded(block / all.right * 32, block % all.right * 32, weight + block * T * 1024);
    });
    parallel(p.threads, slices, [&](int64_t s) {
        bf16 *const x = numbers(1, all.x_size), *const dY = numbers(2, all.dY_size);
        V* const dM = (V*)scratch(0, T * VL);
        float* const sum = sums + s * size;
        std::memset(sum, 0, size * sizeof(float));
        alignas(64) float product[1024] = {};
        for (int64_t n = s * p.images / slices; n < (s + 1) * p.images / slices; n++) {
            all.pack(n, x, dY);
            std::memset((void*)dM, 0, T * sizeof(V));
            const Tiles tiles;
            for (int64_t i = 0; i < all.down; i++)
                for (int64_t j = 0; j < all.right; j++)
                    for (const Tap& t : p.taps) {
                        clear();
                        all.multiply(t, i, j, x, dY, all.C, j * 32);
                        store_tiles(product);
                        const V m = V{} + p.M[n * T + t.t];
                        const int64_t place = all.place(i, j, t.t);
                        for (int k = 0; k < 1024; k += VL) {
                            const V v = load(product + k);
                            store(sum + place + k, load(sum + place + k) + m * v);
                            if (p.dM) dM[t.t] += v * load(weight + place + k);
                        }
                    }
            for (int t = 0; p.dM && t < T; t++) p.dM[n * T + t] = total(dM[t]);
        }
    });
    all.write(sums, slices);
}

// Few pixels an image: dY is scaled for a tap, a few images at a time, and the tiles sum over images.
static inline void weight_by_taps(const Gradient& p) {
    const Pixels all(p);
    const int64_t half = (all.right + 1) / 2, parts = (all.right + half - 1) / half;
    const int64_t chunk = std::min(p.images, std::max<int64_t>(1, SHARED / (all.x_size + all.dY_size)));
    const int64_t group = std::min(chunk, std::max<int64_t>(1, GROUP / (all.steps * 32)));
    float* const sums = scratch(7, all.sums());
    bf16 *const xs = numbers(1, chunk * all.x_size), *const dYs = numbers(2, chunk * all.dY_size);
    for (int64_t first = 0; first < p.images; first += chunk) {
        const int64_t count = std::min(chunk, p.images - first);
        parallel(p.threads, count, [&](int64_t i) { all.pack(first + i, xs + i * all.x_size, dYs + i * all.dY_size); });
        parallel(p.threads, all.T * parts, [&](int64_t task) {
            const Tap& t = p.taps[task / parts];
            const int64_t j0 = task % parts * half, j1 = std::min(j0 + half, all.right);
            const int64_t width = std::min(all.C, j1 * 32) - j0 * 32, size = all.steps * 32 * width;
            bf16* const scaled = numbers(3, group * size);
            const Tiles tiles;
            for (int64_t n0 = 0; n0 < count; n0 += group) {
                const int64_t n1 = std::min(n0 + group, count);
                for (int64_t n = n0; n < n1; n++)
                    scale(dYs + n * all.dY_size + j0 * 64, 2 * all.C, scaled + (n - n0) * size, 2 * width,
                          all.steps * 16, p.M[(first + n) * all.T + t.t]);
                for (int64_t j = j0; j < j1; j++)
                    for (int64_t i = 0; i < all.down; i++) {
                        float* sum = sums + all.place(i, j, t.t);
                        first || n0 ? load_tiles(sum) : clear();
                        for (int64_t n = n0; n < n1; n++)
                            all.multiply(t, i, j, xs + n * all.x_size, scaled + (n - n0) * size, width, (j - j0) * 32);
                        store_tiles(sum);
                    }
            }
        });
    }
    all.write(sums, 1);
}

}  // namespace amx
#endif
