// One token of a Mamba-2 mixer between its projections: convolution, time steps, state and output
// in one pass, group by group. Thirty small operators of PyTorch cost ten times its arithmetic.
#pragma once

#include <cmath>
#include <initializer_list>
#include <tuple>

#include "exponential.h"
#include "tensors.h"
#include "vector.h"

namespace sparsetorch {

struct Mamba2Sizes {
  int64_t batch, heads, groups, width, state, taps;  // width: of a head

  int64_t heads_of_group() const { return heads / groups; }
  int64_t inner() const { return heads * width; }
  int64_t channels() const { return inner() + 2 * groups * state; }
};

// All arrays are contiguous, but for rows of inputs and steps, which may lie apart.
template <typename T>
struct Mamba2Step {
  Mamba2Sizes size;
  const T *inputs, *steps;           // (batch, channels), (batch, heads)
  int64_t input_stride, step_stride;  // from one row to the next
  const T *weight, *bias;            // (channels, taps), (channels,)
  const T *earlier;                  // (batch, taps - 1, channels)
  const T *log_decay, *skip, *step_bias;  // (heads,)
  T low, high;                       // of the time steps
  const T* before;                   // (batch, heads, width, state)
  T *conv, *out, *later, *state;     // (batch, channels), (batch, inner), as earlier, as before
};

// x times its sigmoid, in place.
template <typename T>
inline void silu(T* x, int64_t n) {
  constexpr int N = kWidth<T>;
  int64_t i = 0;
  for (; i + N <= n; i += N) {
    const Vec<T, N> v = load<T, N>(x + i);
    store<T, N>(x + i, v / (1 + exponential<T, N>(-v)));
  }
  for (; i < n; ++i) x[i] /= 1 + std::exp(-x[i]);
}

// Channels [first, last) of a row: convolved, activated, and kept for the tokens that come.
template <typename T>
inline void convolve(const Mamba2Step<T>& p, int64_t row, int64_t first, int64_t last) {
  const int64_t taps = p.size.taps, channels = p.size.channels();
  const T* const earlier = p.earlier + row * (taps - 1) * channels;
  const T* const input = p.inputs + row * p.input_stride;
  T* const later = p.later + row * (taps - 1) * channels;
  T* const conv = p.conv + row * channels;
  for (int64_t c = first; c < last; ++c) {
    const T* const weight = p.weight + c * taps;
    T total = p.bias ? p.bias[c] : T(0);
    for (int64_t k = 0; k + 1 < taps; ++k) {
      const T value = earlier[k * channels + c];
      total += weight[k] * value;
      if (k > 0) later[(k - 1) * channels + c] = value;
    }
    conv[c] = total + weight[taps - 1] * input[c];
    if (taps > 1) later[(taps - 2) * channels + c] = input[c];
  }
  silu(conv + first, last - first);
}

// state = decay * state + input * b, in one pass with the dot product of the new state and c.
template <typename T>
inline T advance(const T* before, T* state, int64_t n, T decay, T input, const T* b, const T* c) {
  constexpr int N = kWidth<T>;
  Vec<T, N> lanes{};
  int64_t i = 0;
  for (; i + N <= n; i += N) {
    const Vec<T, N> now = decay * load<T, N>(before + i) + input * load<T, N>(b + i);
    store<T, N>(state + i, now);
    lanes += now * load<T, N>(c + i);
  }
  T total = sum<T, N>(lanes);
  for (; i < n; ++i) {
    state[i] = decay * before[i] + input * b[i];
    total += state[i] * c[i];
  }
  return total;
}

// As torch's softplus, whose threshold is 20.
template <typename T>
inline T softplus(T x) {
  return x > T(20) ? x : std::log1p(std::exp(x));
}

// One group of one row, which needs no other's.
template <typename T>
inline void mamba2_step_group(const Mamba2Step<T>& p, int64_t row, int64_t group) {
  const Mamba2Sizes& s = p.size;
  const int64_t first = group * s.heads_of_group(), last = first + s.heads_of_group();
  const int64_t b_first = s.inner() + group * s.state, c_first = b_first + s.groups * s.state;
  convolve(p, row, first * s.width, last * s.width);
  convolve(p, row, b_first, b_first + s.state);
  convolve(p, row, c_first, c_first + s.state);
  const T* const conv = p.conv + row * s.channels();
  for (int64_t h = first; h < last; ++h) {
    T dt = softplus(p.steps[row * p.step_stride + h] + p.step_bias[h]);
    dt = dt < p.low ? p.low : dt > p.high ? p.high : dt;  // NaN stays
    const T decay = std::exp(-dt * std::exp(p.log_decay[h]));
    for (int64_t i = h * s.width; i < (h + 1) * s.width; ++i) {
      const int64_t place = (row * s.inner() + i) * s.state;
      const T y = advance(p.before + place, p.state + place, s.state, decay, dt * conv[i],
                          conv + b_first, conv + c_first);
      p.out[row * s.inner() + i] = y + p.skip[h] * conv[i];
    }
  }
}

// A tensor of `like`'s dtype and of these sizes; contiguous, or its rows are where they may lie apart.
inline Tensor argument(const Tensor& t, const Tensor& like, std::initializer_list<int64_t> sizes,
                       bool apart = false) {
  bool fits = t.is_cpu() && t.scalar_type() == like.scalar_type() &&
              t.dim() == static_cast<int64_t>(sizes.size());
  int64_t d = 0;
  for (const int64_t size : sizes) fits = fits && t.size(d++) == size;
  STD_TORCH_CHECK(fits, "an argument of the step has another shape, dtype or device");
  return apart && (t.size(1) < 2 || t.stride(1) == 1) ? t : as_contiguous(t);
}

// The output (batch, inner), the last inputs as `earlier`, the state as `before`.
inline std::tuple<Tensor, Tensor, Tensor> mamba2_step(
    const Tensor& inputs, const Tensor& steps, const Tensor& weight, const MaybeTensor& bias,
    const Tensor& earlier, const Tensor& log_decay, const Tensor& skip, const Tensor& step_bias,
    double low, double high, const Tensor& before, int64_t groups) {
  STD_TORCH_CHECK(before.dim() == 4 && weight.dim() == 2 && weight.size(1) > 0 && groups > 0 &&
                      before.size(1) % groups == 0,
                  "state, weight or groups do not fit");
  const Mamba2Sizes size{before.size(0), before.size(1), groups,
                         before.size(2), before.size(3), weight.size(1)};
  const int64_t channels = size.channels();
  const Tensor x = argument(inputs, before, {size.batch, channels}, true);
  const Tensor dt = argument(steps, before, {size.batch, size.heads}, true);
  const Tensor w = argument(weight, before, {channels, size.taps});
  const Tensor past = argument(earlier, before, {size.batch, size.taps - 1, channels});
  const Tensor a = argument(log_decay, before, {size.heads});
  const Tensor d = argument(skip, before, {size.heads});
  const Tensor step_b = argument(step_bias, before, {size.heads});
  const Tensor old = argument(before, before,
                              {size.batch, size.heads, size.width, size.state});
  MaybeTensor b;
  if (bias) b = argument(*bias, before, {channels});
  const Tensor conv = torch::stable::new_empty(before, {size.batch, channels});
  Tensor out = torch::stable::new_empty(before, {size.batch, size.inner()});
  Tensor later = torch::stable::new_empty(before, {size.batch, size.taps - 1, channels});
  Tensor state = make_output(before, {size.batch, size.heads, size.width, size.state});
  dispatch_real(before, [&]<typename T>(T) {
    const Mamba2Step<T> p{size, x.const_data_ptr<T>(), dt.const_data_ptr<T>(), x.stride(0),
                          dt.stride(0), w.const_data_ptr<T>(),
                          b ? b->const_data_ptr<T>() : nullptr, past.const_data_ptr<T>(),
                          a.const_data_ptr<T>(), d.const_data_ptr<T>(),
                          step_b.const_data_ptr<T>(), T(low), T(high), old.const_data_ptr<T>(),
                          conv.mutable_data_ptr<T>(), out.mutable_data_ptr<T>(),
                          later.mutable_data_ptr<T>(), state.mutable_data_ptr<T>()};
    // To wake a thread costs as much as some ten thousand numbers of a state.
    const int64_t numbers = size.heads_of_group() * size.width * size.state + 1;
    const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 15) / numbers);
    torch::stable::parallel_for(0, size.batch * groups, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) mamba2_step_group(p, i / groups, i % groups);
    });
  });
  return {out, later, state};
}

}  // namespace sparsetorch
