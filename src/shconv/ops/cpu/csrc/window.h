// What a pass into channels_last works on: windows of the source, the weight in panels, the destination's phases.
// A source pixel's channels lie together; so a tap is a constant offset, and neighbouring taps are one longer run.
#pragma once
#include "pass.h"

namespace channels {

// How the rows [first, first + rows) of every destination phase see the source: its rows y0 + first * phases_h and on,
// its columns x0 and on, zeros where the image has none.
struct Window {
    int rows, y0 = INT32_MAX, x0 = 0, height, width;
    int64_t size;

    Window(const Pass& p, int rows) : rows(rows) {
        const Images& S = p.source;
        int y1 = INT32_MIN, x1 = S.width;
        for (const Tap& t : p.taps) {
            y0 = std::min(y0, y(S, t)), y1 = std::max(y1, y(S, t) + 1), x0 = std::min(x0, x(S, t));
            x1 = std::max(x1, (p.destination.columns(t.to) - 1) * S.phases_w + x(S, t) + 1);
        }
        height = (rows - 1) * S.phases_h + y1 - y0, width = x1 - x0, size = (int64_t)height * width * S.channels;
    }
    // Where destination pixel (0, 0) reads through a tap.
    static int y(const Images& S, const Tap& t) { return t.dh * S.phases_h + t.from / S.phases_w; }
    static int x(const Images& S, const Tap& t) { return t.dw * S.phases_w + t.from % S.phases_w; }

    // An image's window, channels of a pixel together: in place if it can be, else packed.
    const float* of(const Images& S, int64_t n, int first, float* to) const {
        const int top = first * S.phases_h + y0, C = S.channels;
        const float* image = S.row(n, 0, 0);
        const int64_t line = (int64_t)width * C, left = (int64_t)-x0 * C, inside = (int64_t)S.width * C;
        if (S.channel == 1 && top >= 0 && top + height <= S.height && width == S.width) return image + top * line;
        for (int h = top; h < top + height; h++, to += line) {
            if (h < 0 || h >= S.height) {
                std::memset(to, 0, line * sizeof(float));
                continue;
            }
            const float* from = image + (int64_t)h * S.width * S.point;
            std::memset(to, 0, left * sizeof(float));
            if (S.channel == 1) std::memcpy(to + left, from, inside * sizeof(float));
            else copy(to + left, C, 1, from, S.point, S.channel, S.width, C);
            std::memset(to + left + inside, 0, (line - left - inside) * sizeof(float));
        }
        return to - size;
    }
};

// The weight as (panel of up to three vectors of destination channels, tap, source channel, nv * VL).
struct Weight {
    float* data;
    int vectors, depth, T;
    bool backwards;  // the taps are in the order in which they read the source

    int panels() const { return std::max(1, vectors / 2); }
    int first(int panel) const { return 2 * panel; }  // all are two vectors wide, but the last of an odd number three
    int wide(int panel) const { return panel + 1 < panels() ? 2 : vectors - first(panel); }
    int64_t row(int t) const { return (int64_t)(backwards ? T - 1 - t : t) * depth; }
    int64_t panel(int panel) const { return (int64_t)first(panel) * VL * T * depth; }
    int64_t size() const { return (int64_t)vectors * VL * T * depth; }

    const float* scaled(const float* M, int panel0, int panel1, float* to) const {
        for (int p = panel0; p < panel1; p++)
            for (int t = 0; t < T; t++) {
                const int64_t begin = panel(p) + row(t) * wide(p) * VL, count = (int64_t)depth * wide(p) * VL;
                for (int64_t i = begin; i < begin + count; i++) to[i] = data[i] * M[t];
            }
        return to;
    }
};

static inline Weight pack(const Pass& p) {
    const int C = p.destination.channels, D = p.source.channels, T = p.T;
    const Tap &one = p.taps.front(), &other = p.taps.back();
    Weight weight{nullptr, (C + VL - 1) / VL, D, T, one.dh > other.dh || (one.dh == other.dh && one.dw > other.dw)};
    weight.data = scratch(5, weight.size());
    parallel(p.threads, weight.panels(), [&](int64_t panel) {
        const int nv = weight.wide(panel), width = nv * VL;
        float* const w = weight.data + weight.panel(panel);
        if ((weight.first(panel) + nv) * VL > C) std::memset(w, 0, (int64_t)T * D * width * sizeof(float));
        for (int v = 0; v < nv; v++) {
            const int c = (weight.first(panel) + v) * VL, lanes = std::min(VL, C - c);
            const float* const from = p.weight + c * p.weight_to;
            float* const to = w + v * VL;
            const bool taps_together = T > 1 && p.weight_tap == 1;
            for (int d = 0; d < D && taps_together; d++)
                for (int t = 0; t < T; t += 16)
                    transpose(to + (weight.row(t) + d) * width, (weight.row(1) - weight.row(0)) * width,
                              from + d * p.weight_from + t, p.weight_to, std::min(16, T - t), lanes);
            for (int t = 0; t < T && !taps_together; t++)
                copy(to + weight.row(t) * width, width, 1, from + t * p.weight_tap, p.weight_from, p.weight_to, D,
                     lanes);
        }
    });
    return weight;
}

struct Run {  // source channels that lie together, of one tap or of neighbours
    int64_t offset, row;  // in a window from a pixel's place, and of the weight
    int count;
};

struct Step {  // what is summed in registers: one tap, or all of them
    std::vector<Run> runs;
    Tap tap;
};

// A phase of the destination: what its pixels add up, and where they lie, from the first of its rows on.
struct Phase {
    int index, columns;
    std::vector<Step> steps;
    std::vector<int32_t> y, x;         // in the source, of a tap without a shift
    std::vector<int64_t> place, home;  // in a window of the source, in the destination

    Phase(const Pass& p, const Window& window, const Weight& weight, int index, bool by_taps)
        : index(index), columns(p.destination.columns(index)) {
        const Images &S = p.source, &D = p.destination;
        for (int i = 0; i < window.rows * columns; i++) {
            y.push_back(i / columns * S.phases_h), x.push_back(i % columns * S.phases_w);
            place.push_back(((int64_t)y[i] * window.width + x[i]) * S.channels);
            home.push_back(((int64_t)(i / columns * D.phases_h) * D.width + i % columns * D.phases_w) * D.point);
        }
        std::vector<Tap> taps;
        for (const Tap& t : p.taps)
            if (t.to == index) taps.push_back(t);
        if (weight.backwards) std::reverse(taps.begin(), taps.end());
        for (const Tap& t : taps) {
            const int64_t dy = Window::y(S, t) - window.y0, dx = Window::x(S, t) - window.x0;
            const Run run{(dy * window.width + dx) * S.channels, weight.row(t.t), S.channels};
            if (by_taps || steps.empty()) steps.push_back({{run}, t});
            else if (Run& last = steps[0].runs.back(); follows(last, run)) last.count += run.count;
            else steps[0].runs.push_back(run);
        }
    }
    static bool follows(const Run& a, const Run& b) {
        return a.offset + a.count == b.offset && a.row + a.count == b.row;
    }
    // For every tap and some of the pixels: -1 where they read the image, 0 where they read zeros beside it.
    void inside(const Images& S, int first, int pixels, int32_t* to) const {
        for (const Step& step : steps) {
            const int dy = first * S.phases_h + Window::y(S, step.tap), dx = Window::x(S, step.tap);
            for (int i = 0; i < pixels; i++, to++) {
                const unsigned h = y[i] + dy, w = x[i] + dx;
                *to = -((h < (unsigned)S.height) & (w < (unsigned)S.width));
            }
        }
    }
};

}  // namespace channels
