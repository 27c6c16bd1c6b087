// The C interface of the bfloat16 kernels. Returns 0, or 1 when memory ran out; arrays as amx.py describes them.
#pragma once
#include "amx_pass.h"
#include "amx_weight.h"

#if SHCONV_AMX
#include <sys/syscall.h>
#include <unistd.h>

namespace amx {

struct Arguments {  // in the order amx.py passes them
    int64_t N, D, H, W, C, Ho, Wo, Sh, Sw, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w;
    int64_t x_last, y_last, w_last;  // 1: channels_last, 0: contiguous
    int64_t threads;

    Stack x(const bf16* data) const { return stack(data, D, H, W, stride_h, stride_w, x_last); }
    Stack Y(const bf16* data) const { return stack(data, C, Ho, Wo, 1, 1, y_last); }
    Weight weight(const bf16* data) const { return {(bf16*)data, (int)C, (int)D, (int)(Sh * Sw), w_last != 0}; }
    std::vector<Tap> taps() const { return amx::taps(Sh, Sw, stride_h, stride_w, pad_h, pad_w, dil_h, dil_w); }
};

}  // namespace amx

// 1 where this processor multiplies bfloat16 tiles and the system lets this process.
extern "C" int shconv_has_bfloat16() {
    constexpr int REQUEST = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
}

extern "C" int shconv_bfloat16_forward(const amx::Arguments* a, GompParallel gomp, int, const amx::bf16* x,
                                       const amx::bf16* weight, const float* M, amx::bf16* Y) try {
    amx::convolve({a->x(x), a->Y(Y), a->taps(), a->weight(weight), false, M, a->N, {gomp, (int)a->threads}});
    return 0;
} catch (...) {
    return 1;
}

// Gradients of x and of M (dM may be null); dX has the layout of x.
extern "C" int shconv_bfloat16_backward_input(const amx::Arguments* a, GompParallel gomp, int, const amx::bf16* dY,
                                              const amx::bf16* x, const amx::bf16* weight, const float* M,
                                              amx::bf16* dX, float* dM) try {
    const std::vector<Tap> adjoint = amx::adjoint(a->taps());
    const Threads threads{gomp, (int)a->threads};
    amx::convolve({a->Y(dY), a->x(dX), adjoint, a->weight(weight), true, M, a->N, threads, a->x(x), dM});
    return 0;
} catch (...) {
    return 1;
}

// Gradients of the weight and, by_images only, of M (dM may be null); dW has the layout of the weight.
extern "C" int shconv_bfloat16_backward_weight(const amx::Arguments* a, GompParallel gomp, int by_images,
                                               const amx::bf16* dY, const amx::bf16* x, const amx::bf16* weight,
                                               const float* M, amx::bf16* dW, float* dM) try {
    const Threads threads{gomp, (int)a->threads};
    const amx::Gradient gradient{
        a->x(x), a->Y(dY), a->taps(), M, a->weight(weight), a->weight(dW), dM, a->N, threads};
    by_images ? amx::weight_by_images(gradient) : amx::weight_by_taps(gradient);
    return 0;
} catch (...) {
    return 1;
}
#else
extern "C" int shconv_has_bfloat16() { return 0; }
#endif
