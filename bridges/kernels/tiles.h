// Attention of bf16 by the matrix tiles that some processors have, see tiles.cpp.
#pragma once
#include "half.h"

// Both return false, and do nothing, where there are no tiles; arguments as in attention.cpp.
bool forward_by_tiles(const bf16 *q, const bf16 *k, const bf16 *v, const float *sink, bf16 *out, float *lse,
                      int64_t batch, int64_t heads, int64_t n, int64_t d, float scale);
bool backward_by_tiles(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *out, const bf16 *grad, const float *lse,
                       const float *sink, bf16 *dq, bf16 *dk, bf16 *dv, float *dsink, int64_t batch, int64_t heads,
                       int64_t n, int64_t d, float scale);
