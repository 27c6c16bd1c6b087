// The C interface of the bfloat16 kernels. Returns 0, or 1 when memory ran out; arrays as amx.py describes them.
#pragma once
#include "amx_pass.h"
#include "amx_weight.h"
#include "arguments.h"

#if SHCONV_AMX
#include <sys/syscall.h>
#include <unistd.h>

namespace amx {

static inline Weight tiled(const Arguments& a, const bf16* weight) {
    return {(bf16*)weight, (int)a.C, (int)a.D, (int)(a.Sh * a.Sw), a.weight_last != 0};
}

// 1 where this processor multiplies bfloat16 tiles and the system lets this process.
extern "C" int shconv_has_bfloat16() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

extern "C" int shconv_bfloat16_forward(const Arguments* a, GompParallel gomp, int, const bf16* x, const bf16* weight,
                                       const float* M, bf16* Y) try {
    const Threads threads{gomp, (int)a->threads};
    convolve({images_x(*a, x), images_Y(*a, Y), a->taps(), tiled(*a, weight), false, M, a->N, threads});
    return 0;
} catch (...) {
    return 1;
}

// Gradients of x and of M (dM may be null); dX has the layout of x.
extern "C" int shconv_bfloat16_backward_input(const Arguments* a, GompParallel gomp, int, const bf16* dY,
                                              const bf16* x, const bf16* weight, const float* M, bf16* dX,
                                              float* dM) try {
    const Threads threads{gomp, (int)a->threads};
    convolve({images_Y(*a, dY), images_x(*a, dX), a->adjoint_taps(), tiled(*a, weight), true, M, a->N, threads,
              images_x(*a, x), dM});
    return 0;
} catch (...) {
    return 1;
}

// Gradients of the weight and, by_images only, of M (dM may be null); dW has the layout of the weight.
extern "C" int shconv_bfloat16_backward_weight(const Arguments* a, GompParallel gomp, int by_images, const bf16* dY,
                                               const bf16* x, const bf16* weight, const float* M, bf16* dW,
                                               float* dM) try {
    const Threads threads{gomp, (int)a->threads};
    const Gradient gradient{
        images_x(*a, x), images_Y(*a, dY), a->taps(), M, tiled(*a, weight), tiled(*a, dW), dM, a->N, threads};
    by_images ? weight_by_images(gradient) : weight_by_taps(gradient);
    return 0;
} catch (...) {
    return 1;
}
}  // namespace amx
#else
extern "C" int shconv_has_bfloat16() { return 0; }
#endif
