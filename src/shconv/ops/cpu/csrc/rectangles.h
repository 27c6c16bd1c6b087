// What a pass works on: the weight in panels, and the destination in rectangles whose pixels read the image through the
// same taps: what lies beside the image is never read, and costs nothing.
// A source pixel's channels lie together; so a tap is a constant offset, and neighbouring taps are one longer run.
#pragma once
#include "pass.h"

namespace channels {

// The weight as (panel of one to three vectors of destination channels, tap, source channel, nv * VL).
struct Weight {
    float* data;
    int channels, depth, T;
    bool backwards;  // the taps are in the order in which they read the source

    // Two vectors wide, but the last of an odd number three; a vector that is not full is a panel of its own.
    int whole() const { return channels / VL < 2 ? channels / VL : channels / VL / 2; }
    int panels() const { return whole() + (channels % VL > 0); }
    int first(int panel) const { return panel < whole() ? 2 * panel : channels / VL; }
    int wide(int panel) const { return panel + 1 < whole() ? 2 : panel < whole() ? channels / VL - 2 * panel : 1; }
    int64_t row(int t) const { return (int64_t)(backwards ? T - 1 - t : t) * depth; }
    int64_t size(int vectors) const { return (int64_t)vectors * VL * T * depth; }
    const float* panel(int panel) const { return data + size(first(panel)); }

    const float* scaled(const float* M, int which, float* to) const {
        const int64_t count = (int64_t)depth * wide(which) * VL;
        for (int t = 0; t < T; t++) {
            const int64_t at = row(t) * wide(which) * VL;
            const float m = M[t], *const from = panel(which) + at;
            for (int64_t i = 0; i < count; i++) to[at + i] = from[i] * m;
        }
        return to;
    }
};

static inline Weight pack(const Pass& p) {
    const int C = p.destination.channels, D = p.source.channels, T = p.T;
    const Tap &one = p.taps.front(), &other = p.taps.back();
    Weight weight{nullptr, C, D, T, one.dh > other.dh || (one.dh == other.dh && one.dw > other.dw)};
    weight.data = scratch(5, weight.size((C + VL - 1) / VL));
    parallel(p.threads, weight.panels(), [&](int64_t panel) {
        const int nv = weight.wide(panel), width = nv * VL;
        float* const w = weight.data + weight.size(weight.first(panel));
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
                copy(to + weight.row(t) * width, width, from + t * p.weight_tap, p.weight_from, p.weight_to, D,
                     lanes);
        }
    });
    return weight;
}

struct Run {  // source channels that lie together, of one tap or of neighbours
    int64_t offset, row;  // from a pixel's place, and of the weight
    int count;
};

struct Step {  // what is summed in registers: one tap, or all of them
    int first, last;  // of the runs
    int t;            // the tap
};

struct Rectangle {  // of a phase of the destination: what its pixels add up
    int phase, top, bottom, left, right;
    int first, last;  // of the steps
};

struct Rectangles {  // three lists, for small layers take as long as it takes to find memory for many
    std::vector<Rectangle> parts;
    std::vector<Step> steps;
    std::vector<Run> runs;
};

static inline bool inside(int at, int size) { return (unsigned)at < (unsigned)size; }

static inline Rectangles rectangles(const Pass& p, const Weight& weight, bool by_taps) {
    const Images &S = p.source, &D = p.destination;
    // Where destination pixel (0, 0) reads through a tap.
    const auto y = [&](const Tap& t) { return t.dh * S.phases_h + t.from / S.phases_w; };
    const auto x = [&](const Tap& t) { return t.dw * S.phases_w + t.from % S.phases_w; };
    Rectangles found;
    std::vector<Tap> taps;
    std::vector<int> rows, columns;
    taps.reserve(p.T), rows.reserve(2 * p.T + 2), columns.reserve(2 * p.T + 2);
    for (int phase = 0; phase < D.phases(); phase++) {
        taps.clear();
        for (const Tap& t : p.taps)
            if (t.to == phase) taps.push_back(t);
        if (weight.backwards) std::reverse(taps.begin(), taps.end());
        // The first row (or column) of each stretch that reads through the same taps, and the end of all.
        const auto cut = [&](std::vector<int>& at, int count, int step, int size, auto place) {
            at.clear();
            for (int i = 0; i < count; i++)
                if (i == 0 || std::any_of(taps.begin(), taps.end(), [&](const Tap& t) {
                        return inside(i * step + place(t), size) != inside((i - 1) * step + place(t), size);
                    }))
                    at.push_back(i);
            at.push_back(count);
        };
        cut(rows, D.rows(phase), S.phases_h, S.height, y);
        cut(columns, D.columns(phase), S.phases_w, S.width, x);
        const size_t parts = (rows.size() - 1) * (columns.size() - 1), most = found.runs.size() + parts * taps.size();
        found.parts.reserve(found.parts.size() + parts), found.steps.reserve(most), found.runs.reserve(most);
        for (size_t i = 0; i + 1 < rows.size(); i++)
            for (size_t j = 0; j + 1 < columns.size(); j++) {
                const int first = found.steps.size();
                const int top = rows[i] * S.phases_h, left = columns[j] * S.phases_w;
                for (const Tap& t : taps) {
                    if (!inside(top + y(t), S.height) || !inside(left + x(t), S.width)) continue;
                    const Run run{((int64_t)y(t) * S.width + x(t)) * S.channels, weight.row(t.t), S.channels};
                    const int next = found.runs.size();
                    if (by_taps || (int)found.steps.size() == first) {
                        found.steps.push_back({next, next, t.t});
                    } else if (Run& last = found.runs.back();
                               last.offset + last.count == run.offset && last.row + last.count == run.row) {
                        last.count += run.count;
                        continue;
                    }
                    found.runs.push_back(run);
                    found.steps.back().last = next + 1;
                }
                found.parts.push_back({phase, rows[i], rows[i + 1], columns[j], columns[j + 1], first,
                                       (int)found.steps.size()});
            }
    }
    return found;
}

}  // namespace channels
