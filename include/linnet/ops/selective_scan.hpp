// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The selective scan of Mamba (S6), forward and backward, in blocks of tokens with a state between
/// them (Gu and Dao 2023, algorithm 2).

#include <linnet/ops/matmul.hpp>

LINNET_NAMESPACE_BEGIN

namespace ops {

/// Tokens between two states that are kept for the backward pass.
inline constexpr index scan_tokens = 32;
/// Channels that run side by side.
inline constexpr index scan_channels = 16;
/// Channels that add their gradients of B and C up before groups are added in order.
inline constexpr index scan_group = 64;

/// Blocks of tokens that `length` tokens make.
constexpr index scan_blocks(index length) { return (length + scan_tokens - 1) / scan_tokens; }
/// Groups of channels.
constexpr index scan_groups(index channels) { return (channels + scan_group - 1) / scan_group; }
/// Scratch values that one thread needs.
constexpr index scan_scratch(index length, index states, bool training) {
  const index wide = scan_channels * states;
  const index tokens = (std::min)(length, scan_tokens);
  const index backward = (2 * tokens + 3) * wide + (tokens + 3) * scan_channels;
  return 3 * wide + scan_channels + (training ? backward : 0);
}
/// Values that the backward pass adds up in a fixed order.
constexpr index scan_partial(index batch, index length, index channels, index states) {
  return batch * (scan_groups(channels) * length * 2 * states + channels * (states + 1));
}

/// Arguments of a selective scan. Per channel, with A = -exp(a_log): h_t = exp(delta_t A) h_(t-1) +
/// delta_t x_t B_t, y_t = h_t . C_t + D x_t, out_t = y_t silu(z_t).
template <class T>
struct scan_call {
  index batch, length, channels, states;
  const T *x, *delta;  ///< [batch, length, channels]; delta > 0
  const T *b, *c;      ///< [batch, length, states], rows `bc_stride` apart
  index bc_stride;
  const T* z;  ///< [batch, length, channels], rows `z_stride` apart
  index z_stride;
  const T* a_log;           ///< [channels, states]
  const T* d;               ///< [channels]
  T* out;                   ///< [batch, length, channels]; zero at padding
  T* state = nullptr;       ///< [batch, channels, states] from call to call, with `past`
  T* boundaries = nullptr;  ///< [batch, blocks, channels, states] h before each block of tokens,
                            ///< for the backward pass
  const index* lengths = nullptr;  ///< valid tokens of each sequence, or null for all
  const index* past = nullptr;     ///< tokens of each sequence before this call, or null
  T* scratch = nullptr;            ///< per thread, scan_scratch() values
  index scratch_size = 0;

  /// Valid tokens of sequence `i`.
  index valid(index i) const { return lengths ? lengths[i] : length; }
};

/// Gradients of a selective scan. Those of a_log and d are added to, the others overwritten, in the
/// layouts of what they belong to.
template <class T>
struct scan_gradient {
  const T* d_out;
  T *dx, *d_delta, *db, *dc, *dz, *d_a_log, *dd;
  T* partial;  ///< scan_partial() values
};

namespace detail {

/// Some channels of one sequence.
template <class Kernels, class T>
struct scan_unit {
  const scan_call<T>& call;
  index s, first, count, states, wide;
  T *next, *a, *own, *decay, *y;

  scan_unit(const scan_call<T>& k, index sequence, index channel, index channels, int rank)
      : call(k),
        s(sequence),
        first(channel),
        count(channels),
        states(k.states),
        wide(channels * k.states),
        next(k.scratch + rank * k.scratch_size) {
    a = take(wide);
    own = take(wide);
    decay = take(wide);
    y = take(count);
    std::copy_n(call.a_log + first * states, wide, a);
    (void)Kernels::template exp_sum<T>(wide, T(0), a);
    for (index i = 0; i < wide; ++i) a[i] = -a[i];
  }
  T* take(index values) {
    T* const here = next;
    next += values;
    return here;
  }
  index row(index t) const { return s * call.length + t; }
  const T* x(index t) const { return call.x + row(t) * call.channels + first; }
  const T* delta(index t) const { return call.delta + row(t) * call.channels + first; }
  const T* b(index t) const { return call.b + row(t) * call.bc_stride; }
  const T* c(index t) const { return call.c + row(t) * call.bc_stride; }
  const T* z(index t) const { return call.z + row(t) * call.z_stride + first; }
  T* boundary(index t) const {
    const index block = s * scan_blocks(call.length) + t / scan_tokens;
    return call.boundaries + (block * call.channels + first) * states;
  }

  /// e[wide] = exp(delta A), to = e h + delta x B, values = to . C + D x, for token t.
  void step(index t, const T* h, T* e, T* to, T* values) const {
    Kernels::template scan_step<T>(count, states, delta(t), x(t), a, b(t), c(t), h, e, to, values);
    for (index i = 0; i < count; ++i) values[i] += call.d[first + i] * x(t)[i];
  }

  void forward() const {
    T* const h = call.past ? call.state + (s * call.channels + first) * states : own;
    if (!call.past || call.past[s] == 0) std::fill_n(h, wide, T(0));
    for (index t = 0; t < call.valid(s); ++t) {
      if (call.boundaries && t % scan_tokens == 0) std::copy_n(h, wide, boundary(t));
      step(t, h, decay, h, y);
      Kernels::template gated<activation_kind::silu, T>(count, z(t), y,
                                                        call.out + row(t) * call.channels + first);
    }
    for (index t = call.valid(s); t < call.length; ++t)
      std::fill_n(call.out + row(t) * call.channels + first, count, T(0));
  }

  /// Adds to d_bc[length, 2 states], d_a_log[wide] and dd[count]; overwrites the rest.
  void backward(const scan_gradient<T>& grad, T* d_bc, T* d_a_log, T* dd) {
    const index tokens = (std::min)(call.length, scan_tokens), valid = call.valid(s);
    T* const h = take((tokens + 1) * wide);  // before each token of the block, and after the last
    T* const e = take(tokens * wide);
    T* const ys = take(tokens * count);
    T* const carried = take(wide);  // exp(delta A) times the gradient of h, of the token after
    T* const da = take(wide);
    T *const dy = take(count), *const d_input = take(count), *const d_decay = take(count);
    std::fill_n(da, wide, T(0));
    std::fill_n(carried, wide, T(0));
    for (index t = valid; t < call.length; ++t) {
      std::fill_n(grad.dx + row(t) * call.channels + first, count, T(0));
      std::fill_n(grad.d_delta + row(t) * call.channels + first, count, T(0));
      std::fill_n(grad.dz + row(t) * call.z_stride + first, count, T(0));
    }
    for (index block = scan_blocks(valid); block-- > 0;) {
      const index t0 = block * scan_tokens, rows = (std::min)(tokens, valid - t0);
      std::copy_n(boundary(t0), wide, h);
      for (index i = 0; i < rows; ++i)
        step(t0 + i, h + i * wide, e + i * wide, h + (i + 1) * wide, ys + i * count);
      for (index i = rows; i-- > 0;) {
        const index t = t0 + i, at = row(t) * call.channels + first;
        const T *const xt = x(t), *const dt = delta(t);
        Kernels::template gated_backward<activation_kind::silu, T>(
            count, z(t), ys + i * count, grad.d_out + at, grad.dz + row(t) * call.z_stride + first,
            dy);
        Kernels::template scan_step_backward<T>(
            count, states, dt, xt, a, b(t), c(t), h + i * wide, e + i * wide, h + (i + 1) * wide,
            dy, carried, da, d_bc + 2 * t * states, d_bc + (2 * t + 1) * states, d_input, d_decay);
        for (index j = 0; j < count; ++j) {
          grad.dx[at + j] = dt[j] * d_input[j] + call.d[first + j] * dy[j];
          grad.d_delta[at + j] = xt[j] * d_input[j] + d_decay[j];
          dd[j] += dy[j] * xt[j];
        }
      }
    }
    for (index j = 0; j < wide; ++j) d_a_log[j] += da[j] * a[j];
  }
};

}  // namespace detail

/// The scan, split over sequences and channels.
template <class T>
void selective_scan(const execution& on, const scan_call<T>& call) {
  const index units = (call.channels + scan_channels - 1) / scan_channels;
  on.threads.each(call.batch * units, [&](index unit) {
    const index first = unit % units * scan_channels;
    simd::dispatch(on.level, [&](auto kernels) {
      detail::scan_unit<decltype(kernels), T>(call, unit / units, first,
                                              (std::min)(scan_channels, call.channels - first),
                                              on.threads.rank())
          .forward();
    });
  });
}

/// The derivative of selective_scan() from a call with `boundaries`. The states inside a block are
/// computed again; sums over channels and sequences run in a fixed order.
template <class T>
void selective_scan_backward(const execution& on, const scan_call<T>& call,
                             const scan_gradient<T>& grad) {
  const index states = call.states, groups = scan_groups(call.channels);
  const index block = call.length * 2 * states;
  T* const d_bc = grad.partial;                                 // [batch, groups, length, 2 states]
  T* const d_a_log = d_bc + call.batch * groups * block;        // [batch, channels, states]
  T* const dd = d_a_log + call.batch * call.channels * states;  // [batch, channels]
  on.threads.each(call.batch * groups, [&](index unit) {
    const index s = unit / groups, begin = unit % groups * scan_group;
    const index end = (std::min)(begin + scan_group, call.channels);
    const index at = s * call.channels + begin;
    std::fill_n(d_bc + unit * block, block, T(0));
    std::fill_n(d_a_log + at * states, (end - begin) * states, T(0));
    std::fill_n(dd + at, end - begin, T(0));
    simd::dispatch(on.level, [&](auto kernels) {
      for (index first = begin; first < end; first += scan_channels)
        detail::scan_unit<decltype(kernels), T>(
            call, s, first, (std::min)(scan_channels, end - first), on.threads.rank())
            .backward(grad, d_bc + unit * block, d_a_log + (s * call.channels + first) * states,
                      dd + s * call.channels + first);
    });
  });
  on.threads.each(call.batch * call.length, [&](index row) {
    const index s = row / call.length, t = row % call.length;
    for (index n = 0; n < states; ++n) {
      T db = 0, dc = 0;
      for (index group = 0; group < groups; ++group) {
        const T* const from = d_bc + (s * groups + group) * block + 2 * t * states;
        db += from[n];
        dc += from[states + n];
      }
      grad.db[row * call.bc_stride + n] = db;
      grad.dc[row * call.bc_stride + n] = dc;
    }
  });
  on.threads.each(call.channels, [&](index channel) {
    for (index s = 0; s < call.batch; ++s) {
      grad.dd[channel] += dd[s * call.channels + channel];
      for (index n = 0; n < states; ++n)
        grad.d_a_log[channel * states + n] += d_a_log[(s * call.channels + channel) * states + n];
    }
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
