// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The weights that a trainer computes in: its master weights themselves, or roundings of them.

#include <algorithm>
#include <cmath>
#include <string>

#include <linnet/compress/quantize.hpp>
#include <linnet/train/adamw.hpp>

LINNET_NAMESPACE_BEGIN

/// How a trainer with compute::fake_quantized finds the step sizes: the scales of codes.
namespace steps {
/// Base of the kinds.
struct policy {
  static constexpr bool trains_steps = false, trains_weights = true;
};
/// From the largest magnitude of what shares a scale, anew in each step, as quantize() finds them.
struct from_range : policy {};
/// Trained with the weights (LSQ, Esser et al. 2019, arXiv:1902.08153). A step begins as 2 mean|w|
/// / sqrt(Q), for codes from -Q to Q. Its gradient is multiplied by 1 / sqrt(N Q), for N weights
/// that share it. Weights beyond Q steps are cut and get no gradient.
struct learned : policy {
  static constexpr const char* name = "learned";
  static constexpr bool trains_steps = true;
};
/// Trained alone: codes, norms and biases stay (PEQA, Kim et al. 2023, arXiv:2305.14152). A task is
/// a set of scales. The trainer's master weights do not move; trainer::quantized() does.
struct alone : policy {
  static constexpr const char* name = "alone";
  static constexpr bool trains_steps = true, trains_weights = false;
};
}  // namespace steps

namespace compute {

/// Quantization-aware training (Jacob et al. 2018), for trainers: each step computes in the weights
/// of quantize<S, A>(w), as f32 numbers. With `A` = compute::int8 inputs of products are rounded as
/// the quantized model rounds them. A model with kv::int8, bf16 or f16 also rounds keys and
/// values of softmax attention. Gradients pass straight through all rounding to the f32 master
/// weights. `Steps` says how scales are found.
template <class S, class A = f32, class Steps = steps::from_range>
struct fake_quantized : policy {
  /// The description of learned steps in checkpoints, which hold them.
  static std::string kept() requires(Steps::trains_steps) {
    return std::string("steps ") + Steps::name + " of " + storage::name_of<S>() +
           (S::group > 0 ? " group " + std::to_string(S::group) : "");
  }
};

}  // namespace compute

namespace detail {

/// The form that a trainer of scalar `T` computes in: the weights as they are.
template <class M, class T, class Compute>
struct master_form {
  static_assert(std::is_same_v<Compute, compute::f32>,
                "linnet::trainer: computes in compute::f32, or in float weights with "
                "compute::bf16 or compute::fake_quantized<storage>");
  using storage = storage_of<M, T>;
  static constexpr bool own_rows = false;  ///< whether backward reads other rows than the weights'
  static constexpr bool learns_steps = false, trains_weights = true;
  static constexpr index bytes() { return 0; }
  static constexpr bool valid() { return true; }
  template <class W, class P>
  static void pack(const ops::execution& on, const W& w, P& to) {
    if constexpr (requires { to.pack_held(on, w); })
      to.pack_held(on, w);
    else
      pack_into(on, w, to);
  }
};

/// In bf16: backward reads pairs of rows.
template <class M>
struct master_form<M, float, compute::bf16> {
  using storage = typename profiled_alike<
      typename M::storage,
      linnet::storage::with_compute<linnet::storage::bf16, compute::bf16>>::type;
  using word = ops::packed_word;
  static constexpr bool own_rows = true, learns_steps = false, trains_weights = true;
  static constexpr index row_words(const tensor_info& info) {
    return (info.rows + 1) / 2 * info.columns;
  }
  static constexpr index bytes() { return 0; }
  static constexpr bool valid() { return true; }
  static void pack(const ops::execution& on, const weights<M>& w, packed<M, float, storage>& to) {
    pack_into(on, w, to);
  }
};

/// Stands for an optimizer where the weights do not train.
struct no_optimizer {
  template <class M, class T>
  struct state {
    static constexpr index bytes() { return 0; }
    static constexpr bool valid() { return true; }
  };
};
/// Gradients and moments of the steps of one matrix in storage `S`.
template <class S>
struct step_moments {
  float *gradient = nullptr, *first = nullptr, *second = nullptr;  ///< [rows, row_scales]
};
/// Nothing, for tensors without steps.
struct no_steps {};
template <class S>
struct step_form {
  using matrix = step_moments<storage::single<S>>;
  using vector = no_steps;
};
template <class S>
constexpr void place(arena& memory, const tensor_info& info, step_moments<S>& leaf) {
  for (float** one : {&leaf.gradient, &leaf.first, &leaf.second})
    if (S::scaled) *one = memory.take<float>(info.rows * row_scales<S>(info.columns));
}
constexpr void place(arena&, const tensor_info&, no_steps&) {}

/// The derivative of a loss by the step that `n` weights share, from its gradient `g` by their
/// numbers. Weights that are cut lose theirs (Esser et al. 2019, eq. 3 and 5, with the factor of
/// section 2.2).
template <class S>
double learned_step_gradient(const code_grid<S>& grid, index n, const float* w, float* g) {
  double sum = 0;
  for (index j = 0; j < n; ++j) {
    const double x = static_cast<double>(w[j]) / static_cast<double>(grid.scale);
    const double code = S::decode(grid.nearest(static_cast<double>(w[j])));
    const bool cut = std::abs(x) > S::largest;
    sum += static_cast<double>(g[j]) * (cut ? code : code - x);
    if (cut) g[j] = 0;
  }
  return sum / std::sqrt(static_cast<double>(n) * S::largest);
}

/// Whether steps of this kind can be trained of storage `S`, or of each of a mixed one.
template <class Steps, class S>
constexpr bool steps_fit() {
  const auto fits = []<class Q>(std::type_identity<Q>) {
    if constexpr (Steps::trains_steps && Q::scaled) {
      const bool integers = !Q::centred && (Q::largest > 1 || Q::shared_bits == 2);
      return !Q::per_tensor && !Q::fixed_scales && !Q::ggml &&
             ((integers && !is_corrected<Q>) || !Steps::trains_weights);
    }
    return true;
  };
  bool all = true;
  if constexpr (requires { S::mixes; })
    S::each([&](auto one) { all = all && fits(one); });
  else
    all = fits(std::type_identity<S>{});
  return all;
}

/// True, or a refusal that leaves the class that asks usable.
template <class Steps, class S>
consteval bool check_steps() {
  constexpr bool fits = steps_fit<Steps, S>();
  static_assert(
      fits,
      "linnet::steps: steps are trained of storages with one scale in f32 for each row "
      "or group, such as storage::int4<32>; steps::learned needs symmetric integers without a "
      "correction");
  return true;
}

/// Fake-quantized: codes and scales of the quantized model, and the numbers they stand for.
template <class M, class S, class A, class Steps>
class master_form<M, float, compute::fake_quantized<S, A, Steps>> {
  using deployed = linnet::quantized<M, S, A>;
  using moments = tensor_block<M, step_form<typename deployed::storage>>;
  static_assert(check_steps<Steps, typename deployed::storage>());

 public:
  using storage = typename faked_storage<typename deployed::storage>::type;
  using word = float;
  static constexpr bool own_rows = true, learns_steps = Steps::trains_steps,
                        trains_weights = Steps::trains_weights;
  static constexpr index row_words(const tensor_info& info) { return info.size(); }
  static constexpr index bytes() {
    return round_up(weights<deployed>::bytes(), alignment) + (learns_steps ? moments::bytes() : 0);
  }
  bool valid() const {
    if constexpr (learns_steps)
      if (!moments_.valid()) return false;
    return codes_.valid();
  }
  const weights<deployed>& quantized() const { return codes_; }
  /// Takes over the codes and scales of `q`.
  void start_from(const weights<deployed>& q) {
    std::ranges::copy(q.block(), codes_.block().begin());
  }
  /// Calls f(name, bytes) for each block of memory that continuing needs.
  template <class F>
  void visit(F&& f) {
    if constexpr (learns_steps) {
      f("quantized", codes_.block());
      f("steps", moments_.block());
    }
  }

  /// Finds the scales, and the codes, that training begins with.
  void start(const ops::execution& on, const weights<M>& w) {
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, auto& codes, const auto& from) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
            ops::copy(on, info.size(), static_cast<const float*>(from), codes);
          } else if constexpr (trains_weights) {
            using Q = storage_type<decltype(codes)>;
            if constexpr (Q::scaled)
              each_group(on, info, codes, [&](index r, index g, index first, index n) {
                const float* const x = from.data + r * info.columns + first;
                double sum = 0;
                for (index j = 0; j < n; ++j) sum += std::abs(static_cast<double>(x[j]));
                const double step = 2 * sum / static_cast<double>(n) / std::sqrt(Q::largest);
                codes.set_grid(r, g, info.columns, {step > least_step ? float(step) : 1.0f, 0});
              });
          } else {
            each_strip(on, info, codes, [&](index first, index count, const auto& part) {
              encode_matrix(count, info.columns, from.data + first * info.columns, part);
            });
          }
        },
        codes_, w);
  }
  /// Rounds `w` to nearest and packs what the codes stand for.
  void pack(const ops::execution& on, const weights<M>& w, packed<M, float, storage>& to) {
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, auto& panels, auto& codes,
            const auto& from) {
          if constexpr (std::is_pointer_v<std::remove_cvref_t<decltype(from)>>) {
            if (trains_weights) ops::copy(on, info.size(), static_cast<const float*>(from), codes);
            ops::copy(on, info.size(), static_cast<const float*>(codes),
                      const_cast<float*>(panels));
          } else {
            using fake = storage_type<decltype(panels)>;
            using Q = typename fake::grid;
            auto* const numbers = const_cast<float*>(panels.rows);
            const index columns = info.columns;
            each_strip(on, info, codes, [&](index first, index count, const auto& part) {
              const float* const x = from.data + first * columns;
              if constexpr (is_corrected<Q> && !learns_steps) {
                encode_matrix(count, columns, x, part, numbers + first * columns);
              } else if constexpr (!learns_steps || (trains_weights && !Q::scaled)) {
                encode_matrix(count, columns, x, part);
              } else if constexpr (trains_weights) {
                for (index r = 0; r < count; ++r)
                  for (index j = 0; j < columns; ++j)
                    part.set_code(r, j, columns,
                                  part.grid(r, group_of<Q>(j), columns)
                                      .nearest(static_cast<double>(x[r * columns + j])));
              }
              for (index r = 0; r < count; ++r)
                for (index j = 0; j < columns; ++j)
                  numbers[(first + r) * columns + j] = static_cast<float>(part.at(r, j, columns));
            });
            ops::pack(on, info.rows, columns, matrix_ref<fake>{numbers}, panels);
          }
        },
        to, codes_, w);
  }
  /// Gradients of the steps, from those of the numbers, which lose what is cut. Returns the sum of
  /// their squares, in a fixed order.
  double find_gradients(const ops::execution& on, const weights<M>& w, gradients<M>& g) {
    double squares = 0;
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, const auto& codes, const auto& from,
            auto& gradient, auto& to) {
          if constexpr (trains<decltype(codes)>()) {
            using Q = storage_type<decltype(codes)>;
            each_group(on, info, codes, [&](index r, index group, index first, index n) {
              const index at = r * info.columns + first;
              auto grid = codes.grid(r, group, info.columns);
              double sum = 0;
              if constexpr (trains_weights) {
                sum = learned_step_gradient(grid, n, from.data + at, gradient + at);
              } else {
                grid.scale = 1;
                for (index j = 0; j < n; ++j)
                  sum += static_cast<double>(gradient[at + j]) *
                         grid.at(codes.code(r, first + j, info.columns));
              }
              to.gradient[r * row_scales<Q>(info.columns) + group] = static_cast<float>(sum);
            });
            for (index i = 0; i < steps_of<Q>(info); ++i)
              squares += static_cast<double>(to.gradient[i]) * static_cast<double>(to.gradient[i]);
            on.threads.wait();
          }
        },
        codes_, w, g, moments_);
    return squares;
  }
  /// Moves the steps by AdamW without decay, at the rate of `how`; no step falls to 0.
  template <class Optimizer>
  void update(const ops::execution& on, index t, double gradient_scale, const Optimizer& how) {
    adamw by;
    if constexpr (std::is_same_v<Optimizer, adamw>)
      by = how;
    else
      by.rate = how.rate;
    each_tensor_of(
        [&](const parameter_path&, const tensor_info& info, auto& codes, auto& of) {
          if constexpr (trains<decltype(codes)>()) {
            using Q = storage_type<decltype(codes)>;
            by.move(on, t, gradient_scale, false, steps_of<Q>(info),
                    {of.gradient, of.first, of.second}, codes.scales);
            ops::detail::in_slices<float>(on, steps_of<Q>(info), [&](index at, index count) {
              for (index i = at; i < at + count; ++i)
                codes.scales[i] = (std::max)(codes.scales[i], float(least_step));
            });
          }
        },
        codes_, moments_);
  }

 private:
  template <class Leaf>
  using storage_type = typename std::remove_cvref_t<Leaf>::storage;
  /// Whether a tensor has steps.
  template <class Leaf>
  static constexpr bool trains() {
    if constexpr (requires { typename storage_type<Leaf>; }) return storage_type<Leaf>::scaled;
    return false;
  }

  static constexpr double least_step = 1e-12;

  template <class Q>
  static constexpr index steps_of(const tensor_info& info) {
    return info.rows * row_scales<Q>(info.columns);
  }
  /// Calls f(first row, rows, their codes) for strips of rows, each one thread's; for all of them
  /// where rows share a scale or a correction.
  template <class Q, class F>
  static void each_strip(const ops::execution& on, const tensor_info& info,
                         const matrix_ref<Q>& codes, F&& f) {
    const index strip = rows_share<Q> ? info.rows : 32;
    on.threads.each((info.rows + strip - 1) / strip, [&](index s) {
      if (rows_share<Q>) return f(index{0}, info.rows, codes);
      const index first = s * strip, scales = first * row_scales<Q>(info.columns);
      f(first, (std::min)(strip, info.rows - first),
        matrix_ref<Q>{codes.data + first * row_values<Q>(info.columns),
                      Q::scaled ? codes.scales + scales : nullptr,
                      Q::centred ? codes.zeros + scales : nullptr});
    });
  }
  /// Calls f(row, group, first input, inputs) for what shares a step; a row is one thread's.
  template <class Q, class F>
  static void each_group(const ops::execution& on, const tensor_info& info, const matrix_ref<Q>&,
                         F&& f) {
    const index size = Q::group ? Q::group : info.columns;
    on.threads.each(info.rows, [&](index r) {
      for (index first = 0; first < info.columns; first += size)
        f(r, first / size, first, (std::min)(size, info.columns - first));
    });
  }

  weights<deployed> codes_;
  [[no_unique_address]] std::conditional_t<learns_steps, moments, no_steps> moments_;
};

}  // namespace detail

namespace form {
template <class S>
struct stored<linnet::detail::step_form<S>> {
  using storage = S;
  template <class Other>
  using with = linnet::detail::step_form<Other>;
};
}  // namespace form

LINNET_NAMESPACE_END
