// The matrix tiles (AMX) of the processor: products of 16 x 32 by 32 x 16 bfloat16 numbers, summed in float32.
#pragma once
#include "amx_weight_tiles.h"

#if SHCONV_AMX
namespace amx {

// Keeps the compiler from moving stores past tile loads, which it does not see to be reads.
static inline void written() { __asm__ volatile("" ::: "memory"); }

// A thread's tiles, all of 16 rows of 64 bytes, for as long as this lives.
struct Tiles {
    Tiles() {
        alignas(64) uint8_t config[64] = {1};
        for (int i = 0; i < 8; i++) config[16 + 2 * i] = 64, config[48 + i] = TILE;
        written();
        _tile_loadconfig(config);
    }
    ~Tiles() { _tile_release(); }
};

// Tiles 0 to 3 += A (NA x 16 rows) * B (NB x 16 columns) over `steps` steps of 32; strides in bytes, steps in numbers.
template <int NA, int NB>
static inline __attribute__((always_inline)) void multiply(const bf16* A, int64_t a_row, int64_t a_tile, int64_t a_step,
                                                           const bf16* B, int64_t b_row, int64_t b_tile, int64_t b_step,
                                                           int64_t steps) {
    written();
    for (int64_t k = 0; k < steps; k++, A += a_step, B += b_step) {
        _tile_loadd(4, A, a_row);
        if (NA > 1) _tile_loadd(5, A + a_tile, a_row);
        _tile_loadd(6, B, b_row);
        if (NB > 1) _tile_loadd(7, B + b_tile, b_row);
        _tile_dpbf16ps(0, 4, 6);
        if (NB > 1) _tile_dpbf16ps(1, 4, 7);
        if (NA > 1) _tile_dpbf16ps(2, 5, 6);
        if (NA > 1 && NB > 1) _tile_dpbf16ps(3, 5, 7);
    }
}

// Tiles 0 to 3 set to zero, or from and to four blocks of 256 floats.
static inline void clear() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
static inline void load_tiles(const float* from) {
    written();
    _tile_loadd(0, from, 64);
    _tile_loadd(1, from + 256, 64);
    _tile_loadd(2, from + 512, 64);
    _tile_loadd(3, from + 768, 64);
}
static inline void store_tiles(float* to) {
    _tile_stored(0, to, 64);
    _tile_stored(1, to + 256, 64);
    _tile_stored(2, to + 512, 64);
    _tile_stored(3, to + 768, 64);
    written();
}

static inline float total(const V& v) {
    float sum = 0;
    for (int i = 0; i < VL; i++) sum += v[i];
    return sum;
}

}  // namespace amx
#endif
