// The weight in bfloat16 as tiles, and dW from them.
#pragma once
#include "amx_pack.h"

#if SHCONV_AMX
namespace amx {

// The weight (C, D, T), or channels_last (C, T, D).
struct Weight {
    bf16* data;
    int C, D, T;
    bool last;

    // to[t][c][d] of nc x nd channels from (c0, d0) on, zeros beyond the weight
    void take(int64_t c0, int nc, int64_t d0, int nd, bf16* to) const {
        const int cs = std::clamp<int64_t>(C - c0, 0, nc), ds = std::clamp<int64_t>(D - d0, 0, nd);
        if (cs < nc || ds < nd) std::memset(to, 0, T * nc * nd * 2);
        for (int c = 0; c < cs; c++) {
            const bf16* from = data + (c0 + c) * D * T + (last ? d0 : d0 * T);
            bf16* row = to + c * nd;
            for (int t = 0; last && t < T; t++) std::memcpy(row + t * nc * nd, from + (int64_t)t * D, ds * 2);
            for (int d = 0; !last && d < ds; d++)
                for (int t = 0; t < T; t++) row[t * nc * nd + d] = from[d * T + t];
        }
    }
    // Tiles of B, (T, depth / 32, tiles, 16, 16, 2): summed channels down in pairs, `tiles` times 16 others across from
    // the first on. The sum is over D, or in the adjoint over C.
    void pack(bool adjoint, int64_t first, int tiles, int64_t depth, bf16* to) const {
        std::vector<bf16> block(T * 512);
        for (int b = 0; b < tiles; b++)
            for (int64_t k = 0; k < depth / 32; k++) {
                const int64_t across = (first + b) * TILE;
                if (adjoint) take(k * 32, 32, across, 16, block.data());
                else take(across, 16, k * 32, 32, block.data());
                for (int t = 0; t < T; t++) {
                    bf16* tile = to + ((t * (depth / 32) + k) * tiles + b) * 512;
                    const bf16* from = block.data() + t * 512;
                    if (adjoint)
                        for (int i = 0; i < 16; i++) interleave(tile + 32 * i, from + 32 * i, from + 32 * i + 16);
                    else transpose((float*)tile, 16, (const float*)from, 16, 16, 16);  // pairs move together
                }
            }
    }
    // to[t] in four tiles (d down, c across) from (d0, c0) on, zeros beyond the weight
    void unrounded(int64_t d0, int64_t c0, float* to) const {
        std::memset(to, 0, T * 1024 * sizeof(float));
        const int cs = std::min<int64_t>(32, C - c0), ds = std::min<int64_t>(32, D - d0);
        for (int c = 0; c < cs; c++)
            for (int d = 0; d < ds; d++) {
                const bf16* from = data + (c0 + c) * D * T + (last ? d0 + d : (d0 + d) * T);
                for (int t = 0; t < T; t++) {
                    const uint32_t bits = (uint32_t)from[last ? (int64_t)t * D : t] << 16;
                    std::memcpy(to + t * 1024 + (d / 16 * 2 + c / 16) * 256 + d % 16 * 16 + c % 16, &bits, 4);
                }
            }
    }
    // From blocks[t] of four tiles (d down, c across), the first at (d0, c0).
    void put(const float* blocks, int64_t d0, int64_t c0) const {
        std::vector<bf16> rounded(T * 1024);
        for (int i = 0; i < T * 1024; i += VL) narrow(rounded.data() + i, load(blocks + i));
        const int cs = std::min<int64_t>(32, C - c0), ds = std::min<int64_t>(32, D - d0);
        for (int c = 0; c < cs; c++)
            for (int d = 0; d < ds; d++) {
                const bf16* from = rounded.data() + (d / 16 * 2 + c / 16) * 256 + d % 16 * 16 + c % 16;
                bf16* to = data + (c0 + c) * D * T + (last ? d0 + d : (d0 + d) * T);
                for (int t = 0; t < T; t++) to[last ? (int64_t)t * D : t] = from[t * 1024];
            }
    }
};

}  // namespace amx
#endif
