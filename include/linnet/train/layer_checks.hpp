// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Checks of what every layer has to keep beside its gradients. Cached equals uncached, and later
/// tokens, padding and the number of threads change nothing. Use them on your own layers and kinds
/// of attention.
///
/// They make random parameters and inputs, and return a layer_report:
/// @code
/// using layer = mine::layer<shape>;  // an attention_shape with causal = true
/// const linnet::layer_report r = linnet::check_layer<layer>();  // all of them
/// if (!r.passed()) std::puts(r.message().c_str());
/// @endcode
/// Layers with rotary positions, a position bias or cross-attention need the fields `d_kv`, `heads`
/// or `memory` of layer_check.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <linnet/core/options.hpp>
#include <linnet/train/layer_trial.hpp>

LINNET_NAMESPACE_BEGIN

/// Result of a check of a layer: the number that differs most from what it should be.
struct layer_report {
  std::string what;      ///< what was done to the layer; without entries, why it was not checked
  std::string tensor;    ///< tensor of that number: "y", "dx", or a parameter, for its gradient
  index sequence = 0;    ///< its place, in y and dx
  index token = 0;       ///< its place in the sequence
  index column = 0;      ///< its place in the row, or in the parameter
  double expected = 0;   ///< what it should be
  double got = 0;        ///< what it is
  double allowed = 0;    ///< largest difference that passes; 0 where every bit must be equal
  double difference = 0; /**< |expected - got|; 1e300 where one is no number */
  index entries = 0;     ///< numbers compared
  index sensitive = 0;   ///< outputs that follow their inputs; a check of constants proves nothing

  /// Whether every number is what it should be.
  bool passed() const { return entries > 0 && sensitive > 0 && difference <= allowed; }
  /// One sentence for people.
  std::string message() const {
    if (entries == 0) return "not checked: " + what;
    if (sensitive == 0) return "proves nothing: no output follows its inputs";
    return what + ": " + tensor + '[' + std::to_string(sequence) + ", " + std::to_string(token) +
           ", " + std::to_string(column) + "] is " + detail::number_text(got) + " in place of " +
           detail::number_text(expected) + (passed() ? ", which passes" : "");
  }
};

namespace detail {

/// Fills in a layer_report.
struct layer_comparison {
  layer_report report{};
  double worst = -1;   ///< rank of the reported difference; at most 1 passes
  std::string what{};  ///< what is done to the layer
  double allowed = 0;  ///< largest difference of what is compared next

  /// Compares expected[count] with got[count], rows from `token` on of a sequence.
  template <class T>
  void compare(std::string_view tensor, index sequence, index token, index width, index count,
               const T* expected, const T* got) {
    for (index i = 0; i < count; ++i) {
      const double difference = difference_of(expected[i], got[i]);
      const double error = allowed > 0 ? difference / allowed : difference > 0 ? 2 + difference : 0;
      ++report.entries;
      if (!(error > worst)) continue;
      worst = error;
      report = {what,
                std::string(tensor),
                sequence,
                token + i / width,
                i % width,
                static_cast<double>(expected[i]),
                static_cast<double>(got[i]),
                allowed,
                difference,
                report.entries,
                report.sensitive};
    }
  }
  /// Compares the gradients of the parameters, and of tables that sequences share.
  template <class Layer, class T>
  void compare_gradients(layer_trial<Layer, T>& expected, layer_trial<Layer, T>& got) {
    each_tensor_of(
        [&](const parameter_path& at, const tensor_info& info, auto& a, auto& b) {
          compare("gradient of " + at.str(), 0, 0, info.size(), info.size(), a, b);
        },
        expected.alone.gradients, got.alone.gradients);
    const auto all = [&](std::string_view name, const std::vector<T>& a, const std::vector<T>& b) {
      const index size = std::ssize(a);
      compare(name, 0, 0, (std::max)(size, index{1}), size, a.data(), b.data());
    };
    all("gradient of the position bias", expected.d_bias, got.d_bias);
    all("gradient of the encoder's output", expected.d_memory, got.d_memory);
  }
  /// Counts the outputs that change with the inputs of `trial`, which has run forward.
  template <class Layer, class T>
  void count_sensitive(layer_trial<Layer, T>& trial) {
    const std::vector<T> y = trial.y;
    for (T& value : trial.x) value += T(1);
    trial.forward();
    for (index b = 0; b < trial.how.batch; ++b)
      for (index i = 0; i < trial.length_of(b) * Layer::out; ++i) {
        const auto at = static_cast<std::size_t>(b * trial.how.length * Layer::out + i);
        report.sensitive += difference_of(y[at], trial.y[at]) > 0;
      }
  }

  /// 0 for equal bits, |a - b| > 0 for other numbers, 1e300 where one of them is no number.
  template <class T>
  static double difference_of(T a, T b) {
    const double difference = std::abs(static_cast<double>(a) - static_cast<double>(b));
    if (!is_finite(difference)) return 1e300;
    if (std::memcmp(&a, &b, sizeof a) == 0) return 0;
    return (std::max)(difference, (std::numeric_limits<double>::min)());
  }
};

/// Says why nothing was compared.
inline layer_report refused(std::string_view why) {
  layer_report none;
  none.what = why;
  return none;
}

/// Why a layer cannot be checked so, or an empty text.
template <class Layer, class T>
std::string obstacle(const layer_check& how) {
  if (!fits(how)) return "layer_check needs a positive batch and length, and a length per sequence";
  layer_trial<Layer, T> trial(how, {.length = how.length});
  if (!trial.valid()) return "no memory";
  const char* const field = trial.missing();
  return field ? field : "";
}

/// The difference that rounding may make among these outputs.
template <class T>
double tolerance_of(const layer_check& how, const T* y, index count) {
  double largest = 1;
  for (index i = 0; i < count; ++i)
    largest = (std::max)(largest, 1 + std::abs(static_cast<double>(y[i])));
  return how.tolerance > 0 ? how.tolerance
                           : 64 * largest * static_cast<double>(std::numeric_limits<T>::epsilon());
}

/// Rows from `t` on of sequence `b` of x[batch, length, width].
template <class T>
T* rows_at(std::vector<T>& x, index length, index width, index b, index t) {
  return x.data() + (b * length + t) * width;
}

}  // namespace detail

/// Checks that later tokens change no bit of earlier outputs, not even tokens that are not numbers.
/// For calls of up to 16 tokens, each token is the first that changes; for longer ones, some are.
template <class Layer, class T = double>
layer_report check_layer_causality(const layer_check& how = {}) LINNET_TRY {
  detail::layer_comparison c;
  if (const std::string why = detail::obstacle<Layer, T>(how); !why.empty())
    return detail::refused(why);
  if (how.length < 2) return detail::refused("causality needs a layer_check::length of 2 or more");
  detail::layer_trial<Layer, T> before(how, {.length = how.length});
  detail::layer_trial<Layer, T> after(how, {.length = how.length});
  if (!before.valid() || !after.valid()) return detail::refused("no memory");
  before.forward();
  std::vector<T> other(before.x.size());
  detail::fill_random(other, how.seed, 6);
  const auto at = [&](std::vector<T>& x, index b, index t, index width) {
    return detail::rows_at(x, how.length, width, b, t);
  };
  const auto earlier_ones = [&](index seen) {
    after.forward();
    for (index b = 0; b < how.batch; ++b)
      c.compare("y", b, 0, Layer::out, (std::min)(seen, after.length_of(b)) * Layer::out,
                at(before.y, b, 0, Layer::out), at(after.y, b, 0, Layer::out));
  };
  for (index seen = 1; seen < how.length; ++seen) {
    if (how.length > 16 && seen > 2 && seen != how.length / 2 && seen != how.length - 1) continue;
    const std::string tokens = "tokens from " + std::to_string(seen) + " on ";
    c.what = tokens + "changed";
    after.x = before.x;
    for (index b = 0; b < how.batch; ++b)
      std::copy_n(at(other, b, seen, Layer::in), (how.length - seen) * Layer::in,
                  at(after.x, b, seen, Layer::in));
    earlier_ones(seen);
    for (index b = 0; b < how.batch; ++b)
      for (index i = seen * Layer::out; i < after.length_of(b) * Layer::out; ++i)
        c.report.sensitive += c.difference_of(at(before.y, b, 0, Layer::out)[i],
                                              at(after.y, b, 0, Layer::out)[i]) > 0;
    c.what = tokens + "are not numbers";
    for (index b = 0; b < how.batch; ++b) {
      *at(after.x, b, seen, Layer::in) = std::numeric_limits<T>::quiet_NaN();
      *(at(after.x, b, how.length - 1, Layer::in) + Layer::in - 1) =
          std::numeric_limits<T>::infinity();
    }
    earlier_ones(seen);
  }
  return c.report;
}
LINNET_WITHOUT_MEMORY(return detail::refused("no memory"))

/// Checks that padding on the right does nothing. What stands in it changes no bit of valid outputs
/// and of gradients, gets no gradient itself and leaves its own outputs finite. Each sequence gives
/// what it gives alone, nearly. Without `lengths`, sequence b lacks 2 b tokens. The
/// encoder's output has no padding here.
template <class Layer, class T = double>
layer_report check_layer_padding(const layer_check& how = {}) LINNET_TRY {
  detail::layer_comparison c;
  layer_check padded = how;
  for (index b = 0; how.lengths.empty() && b < how.batch; ++b)
    padded.lengths.push_back((std::max)(how.length - 2 * b, index{1}));
  if (const std::string why = detail::obstacle<Layer, T>(padded); !why.empty())
    return detail::refused(why);
  if (std::count(padded.lengths.begin(), padded.lengths.end(), how.length) == how.batch)
    return detail::refused("padding needs one of layer_check::lengths to be below the length");
  const call_shape e{.length = how.length, .training = true};
  detail::layer_trial<Layer, T> before(padded, e), after(padded, e);
  if (!before.valid() || !after.valid()) return detail::refused("no memory");
  const auto at = [&](std::vector<T>& x, index b, index t, index width) {
    return detail::rows_at(x, how.length, width, b, t);
  };
  const auto valid_outputs = [&] {
    for (index b = 0; b < how.batch; ++b)
      c.compare("y", b, 0, Layer::out, before.length_of(b) * Layer::out,
                at(before.y, b, 0, Layer::out), at(after.y, b, 0, Layer::out));
  };
  const auto each_padding = [&](auto&& f) {
    for (index b = 0; b < how.batch; ++b)
      f(b, before.length_of(b), how.length - before.length_of(b));
  };
  each_padding([&](index b, index valid, index more) {
    std::fill_n(at(before.dy, b, valid, Layer::out), more * Layer::out, T(0));
    T* const x = at(after.x, b, valid, Layer::in);
    for (index i = 0; i < more * Layer::in; ++i) x[i] += T(3);
  });
  after.dy = before.dy;
  for (auto* const trial : {&before, &after}) trial->forward(), trial->backward();
  c.what = "the padding changed";
  valid_outputs();
  for (index b = 0; b < how.batch; ++b)
    c.compare("dx", b, 0, Layer::in, before.length_of(b) * Layer::in,
              at(before.dx, b, 0, Layer::in), at(after.dx, b, 0, Layer::in));
  c.compare_gradients(before, after);
  const std::vector<T> zeros(before.dx.size() + before.y.size());
  each_padding([&](index b, index valid, index more) {
    c.what = "padding has no gradient";
    c.compare("dx", b, valid, Layer::in, more * Layer::in, zeros.data(),
              at(before.dx, b, valid, Layer::in));
    c.what = "outputs of padding are finite";
    c.allowed = 1e299;
    c.compare("y", b, valid, Layer::out, more * Layer::out, zeros.data(),
              at(before.y, b, valid, Layer::out));
    c.allowed = 0;
    std::fill_n(at(after.x, b, valid, Layer::in), more * Layer::in,
                std::numeric_limits<T>::quiet_NaN());
  });
  c.what = "the padding is not numbers";
  after.forward();
  valid_outputs();
  for (index b = 0; b < how.batch; ++b) {
    c.what = "the sequence alone, without padding";
    const index valid = before.length_of(b);
    layer_check single = how;
    single.batch = 1;
    single.lengths = {};
    detail::layer_trial<Layer, T> alone(single, {.length = valid, .training = true});
    if (!alone.valid()) return detail::refused("no memory");
    alone.ctx.length = valid;
    std::copy_n(at(before.x, b, 0, Layer::in), valid * Layer::in, alone.x.data());
    std::copy_n(before.memory.data() + b * how.memory * Layer::in, how.memory * Layer::in,
                alone.memory.data());
    alone.forward();
    c.allowed = detail::tolerance_of(how, alone.y.data(), valid * Layer::out);
    c.compare("y", b, 0, Layer::out, valid * Layer::out, alone.y.data(),
              at(before.y, b, 0, Layer::out));
  }
  c.count_sensitive(before);
  return c.report;
}
LINNET_WITHOUT_MEMORY(return detail::refused("no memory"))

/// Checks that 1, 2 and 3 threads give equal bits, of outputs and of gradients. They run whether
/// they pay or not. A race that changes no number in these runs is found by ThreadSanitizer.
template <class Layer, class T = double>
layer_report check_layer_threads(const layer_check& how = {}) LINNET_TRY {
  detail::layer_comparison c;
  if (const std::string why = detail::obstacle<Layer, T>(how); !why.empty())
    return detail::refused(why);
  const call_shape e{.length = how.length, .training = true};
  detail::layer_trial<Layer, T> one(how, e);
  if (!one.valid()) return detail::refused("no memory");
  one.ctx.dropout = {how.seed, 7, 3, how.dropout};
  one.forward();
  one.backward();
  for (int threads = 2; threads <= one.most_threads; ++threads) {
    c.what = std::to_string(threads) + " threads";
    detail::layer_trial<Layer, T> many(how, e);
    if (!many.valid()) return detail::refused("no memory");
    many.ctx.dropout = one.ctx.dropout;
    if (!many.forward(threads) || !many.backward(threads))
      return detail::refused("no more threads can be made");
    for (index b = 0; b < how.batch; ++b) {
      c.compare("y", b, 0, Layer::out, how.length * Layer::out,
                detail::rows_at(one.y, how.length, Layer::out, b, 0),
                detail::rows_at(many.y, how.length, Layer::out, b, 0));
      c.compare("dx", b, 0, Layer::in, how.length * Layer::in,
                detail::rows_at(one.dx, how.length, Layer::in, b, 0),
                detail::rows_at(many.dx, how.length, Layer::in, b, 0));
    }
    c.compare_gradients(one, many);
  }
  c.count_sensitive(one);
  return c.report;
}
LINNET_WITHOUT_MEMORY(return detail::refused("no memory"))

/// Checks that sequences which are fed in pieces give what they give at once, nearly. They are fed
/// by `pieces` on one thread, then token by token on two. What an earlier sequence left behind
/// does not matter. Then, with a `copy_state`, sequence 1 continues where sequence 0 is. `Whole` is
/// the layer that reads them at once, where that is of another type. Quantized caches need a
/// `tolerance`.
template <class Layer, class T = double, class Whole = Layer>
layer_report check_layer_cache(const layer_check& how = {}) LINNET_TRY {
  detail::layer_comparison c;
  layer_check call = how;
  call.lengths = {};  // all of them, in the end
  if (const std::string why = detail::obstacle<Whole, T>(call); !why.empty())
    return detail::refused(why);
  if (call.pieces.empty()) {
    std::vector<index> left(static_cast<std::size_t>(how.batch), how.length);
    for (int n = 0; n < 4; ++n) {
      std::vector<index> counts;
      for (index b = 0; b < how.batch; ++b) {
        index& rest = left[static_cast<std::size_t>(b)];
        const index take = n == 0 ? 1 + b % 2 : n == 2 ? rest - 1 : 1;
        counts.push_back(take);
        rest -= take;
      }
      call.pieces.push_back(counts);
    }
  }
  std::vector<index> sums(static_cast<std::size_t>(how.batch), 0);
  index longest = 0;
  bool whole_pieces = true;
  for (const std::vector<index>& counts : call.pieces) {
    whole_pieces = whole_pieces && std::ssize(counts) == how.batch;
    for (std::size_t b = 0; whole_pieces && b < sums.size(); ++b) {
      whole_pieces = counts[b] > 0 && counts[b] <= how.length;
      sums[b] += counts[b];
      longest = (std::max)(longest, counts[b]);
    }
  }
  if (!whole_pieces || std::count(sums.begin(), sums.end(), how.length) != how.batch)
    return detail::refused(
        "layer_check::pieces must have positive counts that give each sequence its "
        "length, which without pieces is 5 or more");

  detail::layer_trial<Whole, T> whole(call, {.length = how.length});
  detail::layer_trial<Layer, T> continued(call, {.length = longest, .capacity = how.length});
  if (!whole.valid() || !continued.valid()) return detail::refused("no memory");
  std::vector<index> past(sums.size());
  bool ran = true;
  const auto feed = [&](const std::vector<index>& counts, int threads) {
    const index wide = *std::max_element(counts.begin(), counts.end());
    std::fill(continued.x.begin(), continued.x.end(), T(9));
    for (index b = 0; b < how.batch; ++b) {
      const auto at = static_cast<std::size_t>(b);
      std::copy_n(detail::rows_at(whole.x, how.length, Layer::in, b, past[at]),
                  counts[at] * Layer::in, detail::rows_at(continued.x, wide, Layer::in, b, 0));
    }
    continued.ctx.length = wide;
    continued.ctx.lengths = counts.data();
    continued.ctx.past = past.data();
    continued.ctx.memory.cached = past[0] > 0;
    ran = continued.forward(threads) && ran;
    for (index b = 0; b < how.batch; ++b) {
      const auto at = static_cast<std::size_t>(b);
      c.compare("y", b, past[at], Layer::out, counts[at] * Layer::out,
                detail::rows_at(whole.y, how.length, Layer::out, b, past[at]),
                detail::rows_at(continued.y, wide, Layer::out, b, 0));
      past[at] += counts[at];
    }
  };
  const auto feed_until = [&](index end, index most, int threads) {
    while (past[0] < end)
      feed(std::vector<index>(sums.size(), (std::min)(most, end - past[0])), threads);
  };
  const auto begin = [&](const char* what) {
    c.what = what;
    whole.forward();
    c.allowed = detail::tolerance_of(how, whole.y.data(), std::ssize(whole.y));
    std::fill(past.begin(), past.end(), index{0});
  };
  begin("fed in pieces");
  for (const std::vector<index>& counts : call.pieces) feed(counts, 1);
  begin("fed token by token on two threads, after other sequences");
  feed_until(how.length, 1, 2);
  if (!ran) return detail::refused("no more threads can be made");
  const index half = how.length / 2;
  const state_part part{.tokens = half, .memory = how.memory};
  auto& cache = continued.alone.buffers.cache;
  if constexpr (requires { Layer::copy_state(cache, 0, 1, part); })
    if (how.batch > 1 && half > 0) {
      begin("sequence 1 continues where sequence 0 is");
      feed_until(half, longest, 1);
      Layer::copy_state(cache, 0, 1, part);
      std::copy_n(whole.x.data(), half * Layer::in,
                  detail::rows_at(whole.x, how.length, Layer::in, 1, 0));
      std::copy_n(whole.memory.data(), how.memory * Layer::in,
                  whole.memory.data() + how.memory * Layer::in);
      whole.forward();
      feed_until(how.length, longest, 1);
    }
  c.count_sensitive(whole);
  return c.report;
}
LINNET_WITHOUT_MEMORY(return detail::refused("no memory"))

/// Checks all that a layer of a decoder has to keep: causality, threads, padding and cache. Returns
/// the report of the first check that does not pass, or else of the last.
template <class Layer, class T = double>
layer_report check_layer(const layer_check& how = {}) {
  layer_report r = check_layer_causality<Layer, T>(how);
  if (r.passed()) r = check_layer_threads<Layer, T>(how);
  if (r.passed()) r = check_layer_padding<Layer, T>(how);
  if (r.passed()) r = check_layer_cache<Layer, T>(how);
  return r;
}

LINNET_NAMESPACE_END
