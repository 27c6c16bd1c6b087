// The C interface: the filtered convolution Y_n = conv(X_n, W * M_n) and its gradients, float32, one group.
// Returns 0, or 1 when memory ran out; arrays as compiled.py describes them.
#include "amx.h"
#include "arguments.h"
#include "channels.h"
#include "layer.h"
#include "statistics.h"
#include "weight.h"

namespace {

enum Route { IMAGES = 0, TAPS = 1 };

// In the weight, from one channel of x to the next and from one tap to the next.
int64_t next_channel(const Arguments& a) { return a.weight_last ? 1 : a.Sh * a.Sw; }

int64_t next_tap(const Arguments& a) { return a.weight_last ? a.D : 1; }

}  // namespace

extern "C" int shconv_forward(const Arguments* a, GompParallel gomp, int route, const float* x, const float* weight,
                              const float* M, float* Y) try {
    const int T = (int)(a->Sh * a->Sw);
    const Threads threads{gomp, (int)a->threads};
    const Pass pass{images_x(*a, x), images_Y(*a, Y), a->taps(), weight, a->D * T, next_channel(*a), next_tap(*a),
                    M, a->N, T, threads};
    channels::run(pass, route == TAPS, nullptr, nullptr);
    return 0;
} catch (...) {
    return 1;
}

// Gradients of x and, route TAPS only, of M (dM may be null); dX has the layout of x.
extern "C" int shconv_backward_input(const Arguments* a, GompParallel gomp, int route, const float* dY, const float* x,
                                     const float* weight, const float* M, float* dX, float* dM) try {
    const int T = (int)(a->Sh * a->Sw);
    const Images X = images_x(*a, x);
    const Threads threads{gomp, (int)a->threads};
    const Pass pass{images_Y(*a, dY), images_x(*a, dX), a->adjoint_taps(), weight, next_channel(*a), a->D * T,
                    next_tap(*a), M, a->N, T, threads};
    channels::run(pass, route == TAPS, dM ? &X : nullptr, dM);
    return 0;
} catch (...) {
    return 1;
}

// Gradient of the weight, in its layout, and, route IMAGES only, of M; each may be null.
extern "C" int shconv_backward_weight(const Arguments* a, GompParallel gomp, int route, const float* dY, const float* x,
                                      const float* weight, const float* M, float* dW, float* dM) try {
    const Threads threads{gomp, (int)a->threads};
    const weight::Problem problem{images_x(*a, x), images_Y(*a, dY), a->taps(), weight, M, dW, dM, next_channel(*a),
                                  next_tap(*a), a->N, threads};
    route == TAPS ? weight::taps(problem) : weight::images(problem);
    return 0;
} catch (...) {
    return 1;
}

// Y, M, seen and hidden of x: a whole layer. bias may be null; so may M, seen and hidden, all or none.
extern "C" int shconv_layer_forward(const Arguments* a, GompParallel gomp, int route, const layer::Numbers* numbers,
                                    const float* x, const float* weight, const float* bias, const float* W1,
                                    const float* b1, const float* W2, const float* b2, float* Y, float* M,
                                    float* seen, float* hidden) {
    try {
        const Threads threads{gomp, (int)a->threads};
        std::vector<float> own;
        if (!M) {
            own.resize(a->N * (a->Sh * a->Sw + 2 * a->D + numbers->K));
            M = own.data(), seen = M + a->N * a->Sh * a->Sw, hidden = seen + a->N * 2 * a->D;
        }
        layer::maps(*a, threads, {*numbers, W1, b1, W2, b2}, x, M, seen, hidden);
        if (shconv_forward(a, gomp, route, x, weight, M, Y)) return 1;
        if (bias) layer::add_bias(*a, threads, bias, Y);
        return 0;
    } catch (...) {
        return 1;
    }
}

// Its gradients, each null where it is not wanted; those of theta all or none. `beside` says which of the two passes
// gives dM: 0 that to dX, 1 that to dW.
extern "C" int shconv_layer_backward(const Arguments* a, GompParallel gomp, int route, int weight_route, int beside,
                                     const layer::Numbers* numbers, const float* dY, const float* x,
                                     const float* weight, const float* W1, const float* W2, const float* M,
                                     const float* seen, const float* hidden, float* dX, float* dW, float* db,
                                     float* dW1, float* db1, float* dW2, float* db2) {
    try {
        const layer::Theta theta{*numbers, W1, nullptr, W2, nullptr};
        const Threads threads{gomp, (int)a->threads};
        const bool needs_map = dX || dW1;
        std::vector<float> gradients(a->N * (2 * a->Sh * a->Sw + theta.K));
        float* const dM = gradients.data();
        float* const dlogits = dM + a->N * a->Sh * a->Sw;
        float* const dz = dlogits + a->N * a->Sh * a->Sw;
        if (dX && shconv_backward_input(a, gomp, route, dY, x, weight, M, dX, beside ? nullptr : dM)) return 1;
        float* const with_weight = needs_map && beside ? dM : nullptr;
        if ((dW || with_weight) &&
            shconv_backward_weight(a, gomp, weight_route, dY, x, weight, M, dW, with_weight))
            return 1;
        if (db) layer::bias_gradient(*a, dY, db);
        if (!needs_map) return 0;
        layer::maps_backward(*a, threads, theta, x, M, seen, hidden, dM, dlogits, dz, dX);
        float* const found[] = {dW1, db1, dW2, db2};
        if (dW1) layer::theta_gradient(*a, threads, theta, seen, hidden, dlogits, dz, found);
        return 0;
    } catch (...) {
        return 1;
    }
}
