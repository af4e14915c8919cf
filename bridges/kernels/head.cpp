// Cross-entropy and KL of rows of logits, and their gradient, a row at a time: the vocabulary stays in the caches.
#include <algorithm>
#include <cmath>

#include "half.h"

namespace {

// The log-sum-exp of a row; NaN where PyTorch's is.
float log_sum_exp(const float *x, int64_t width) {
    const int64_t whole = width / 16 * 16;
    float top = x[0];
    v16 tops = v16{} + x[0];
    for (int64_t c = 0; c < whole; c += 16) {
        const v16 y = get(x + c);
        tops = where(y > tops, y, tops);
    }
    for (int lane = 0; lane < 16; lane++) top = std::max(top, tops[lane]);
    for (int64_t c = whole; c < width; c++) top = std::max(top, x[c]);
    v16 sums = {};
    for (int64_t c = 0; c < whole; c += 16) sums += exp16(get(x + c) - top);
    float sum = total(sums);
    for (int64_t c = whole; c < width; c++) sum += std::exp(x[c] - top);
    return top + std::log(sum);
}

// One row: its cross-entropy and KL, and into `out` the gradient, softmax · (ce + kl) - p · kl - ce at the label.
void row(const float *x, float *out, const float *target, int64_t label, float ce_weight, float kl_weight, float &ce,
         float &kl, int64_t width) {
    const float lse = log_sum_exp(x, width);
    ce = label < 0 ? 0.0f : lse - x[label];
    if (label < 0) ce_weight = 0.0f;
    const float both = ce_weight + kl_weight;
    const int64_t whole = width / 16 * 16;
    v16 sums = {};
    for (int64_t c = 0; c < whole; c += 16) {
        const v16 t = get(target + c), logp = get(x + c) - lse, p = exp16(t);
        // A token that the reference rules out counts nothing, whatever its logarithm.
        sums += where(p == 0.0f, v16{}, p * (t - logp));
        put(out + c, both * exp16(logp) - kl_weight * p);
    }
    kl = total(sums);
    for (int64_t c = whole; c < width; c++) {
        const float t = target[c], logp = x[c] - lse, p = std::exp(t);
        if (p != 0.0f) kl += p * (t - logp);
        out[c] = both * std::exp(logp) - kl_weight * p;
    }
    if (label >= 0) out[label] -= ce_weight;
}

}  // namespace

// logits [streams, n, width] to their gradient; target [n, width], labels [n] (negative: none), a weight for each stream;
// ce and kl [streams, n] out.
extern "C" void head_loss_f32(const float *logits, float *grad, const float *target, const int64_t *labels,
                              const float *ce_weight, const float *kl_weight, float *ce, float *kl, int64_t streams,
                              int64_t n, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < streams * n; r++) {
        const int64_t s = r / n, i = r % n;
        row(logits + r * width, grad + r * width, target + i * width, labels[i], ce_weight[s], kl_weight[s], ce[r],
            kl[r], width);
    }
}
