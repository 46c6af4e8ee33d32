// SPDX-License-Identifier: MIT
#pragma once
// What is timed of a whole model: encoding, prefill, decoding and a training step. Each work is
// opened once and then run again and again; it says what one run has to compute and to read.

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

#include <linnet/compress/quantize.hpp>
#include <linnet/generate/embedder.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>

#include "machine.hpp"

namespace works {

namespace ln = linnet;

/// The sizes of a work.
struct sizes {
  ln::index batch = 1;
  ln::index source = 128;  ///< source of an encoder-decoder, prompt of a decoder
  ln::index target = 64;   ///< tokens that are decoded or learned
  int threads = 1;
};

/// What one run has to do at least.
struct cost {
  double tokens = 0;  ///< read (encode, prefill, train) or written (decode)
  double flops = 0;   ///< of the products
  double bytes = 0;   ///< of weights that are read, each once per pass over the model
};

/// Ends the program with the reason, where a result has no value.
template <class T>
T take(ln::result<T>&& r) {
  if (r) return std::move(r).value();
  std::fprintf(stderr, "%s\n", r.error().message().c_str());
  std::exit(2);
}

template <class M>
inline constexpr bool encodes = M::encodes;

/// Random weights, the same for each seed.
template <class M>
ln::weights<M> random_weights(std::uint64_t seed = 1) {
  ln::weights<M> w;
  ln::initialize(w, ln::seed{seed});
  return w;
}

/// Weights in the form that sessions of `Deployed` read.
template <class Deployed, class M>
ln::packed<Deployed> deploy(const ln::weights<M>& w) {
  if constexpr (std::is_same_v<Deployed, M>)
    return ln::pack(w);
  else
    return ln::pack(ln::quantize<typename Deployed::storage>(w));
}

/// What a trainer computes in for a model that runs as `Deployed`: bf16 where that does, else f32.
template <class Deployed>
using training_compute =
    std::conditional_t<std::is_same_v<typename Deployed::storage::compute, ln::compute::bf16>,
                       ln::compute::bf16, ln::compute::f32>;

/// `count` tokens of a fixed, mixed sequence.
template <class M>
std::vector<ln::token> some_tokens(ln::index count) {
  std::vector<ln::token> tokens(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<ln::token>(2 + i * 7919 % static_cast<std::size_t>(M::vocabulary - 2));
  return tokens;
}

/// Sums over the matrices that one pass reads: elements, and bytes as stored.
struct matrices {
  double elements = 0, bytes = 0;
};
/// Those for which read(path, info) holds.
template <class M, class Read>
matrices matrices_of(Read&& read) {
  matrices sum;
  typename ln::packed<M>::tree_type tree{};
  M::visit(
      [&](const ln::parameter_path& at, const ln::tensor_info& info, const auto& leaf) {
        if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>) {
          using S = typename std::remove_cvref_t<decltype(leaf)>::storage;
          if (!read(at, info)) return;
          sum.elements += static_cast<double>(info.size());
          using matrix = std::remove_cvref_t<decltype(leaf)>;
          sum.bytes += static_cast<double>(sizeof(typename S::word)) *
                       static_cast<double>(matrix::size(info.rows, info.columns));
          if constexpr (S::scaled)
            sum.bytes +=
                static_cast<double>(sizeof(typename matrix::scale) * (S::centred ? 2 : 1)) *
                static_cast<double>(matrix::scales_size(info.rows, info.columns));
        }
      },
      ln::parameter_path{}, tree);
  return sum;
}
/// Those of the encoder, or of one decoding step with its head; a step finds the encoder's keys
/// and values in the cache.
template <class M>
matrices matrices_read(bool encoder) {
  return matrices_of<M>([&](const ln::parameter_path& at, const ln::tensor_info& info) {
    const std::string name = at.str();
    const auto has = [&](std::string_view part) { return name.find(part) != name.npos; };
    const bool table = info.kind == ln::role::table;
    return encoder ? name.starts_with("encoder")
                   : !name.starts_with("encoder") && !(table && !M::tied) &&
                         !(has("cross") && (has(".k.") || has(".v.")));
  });
}

/// A session of model `M`, the base of the works that run one.
template <class M>
class running {
 public:
  running(const ln::packed<M>& weights, const sizes& s, ln::limits l)
      : sizes_(s), session_(take(ln::session<M>::open(weights, l))) {}

 protected:
  sizes sizes_;
  ln::session<M> session_;

  /// [batch, length] tokens of the same lengths.
  void encode(const std::vector<ln::token>& tokens) {
    const std::vector<ln::index> lengths(static_cast<std::size_t>(sizes_.batch), sizes_.source);
    if (!session_.encode(tokens, sizes_.batch, lengths)) std::abort();
  }
};

/// The encoder over [batch, source] tokens.
template <class M>
class encode : running<M> {
 public:
  encode(const ln::packed<M>& weights, const sizes& s)
      : running<M>(weights, s,
                   {.batch = s.batch, .source = s.source, .target = 1, .threads = s.threads}),
        tokens_(some_tokens<M>(s.batch * s.source)) {}

  void prepare() {}
  void operator()() { running<M>::encode(tokens_); }
  static cost of(const sizes& s) {
    ln::call_shape e;
    e.batch = s.batch;
    e.length = s.source;
    return {static_cast<double>(s.batch * s.source), static_cast<double>(M::encoder::flops(e)),
            matrices_read<M>(true).bytes};
  }

 private:
  std::vector<ln::token> tokens_;
};

/// An encoder without a decoder over [batch, source] tokens: the mean of each one's hidden states.
template <class M>
class embed {
 public:
  embed(const ln::packed<M>& weights, const sizes& s)
      : sizes_(s),
        embedder_(take(ln::embedder<M>::open(
            weights, {.batch = s.batch, .source = s.source, .threads = s.threads}))),
        tokens_(some_tokens<M>(s.batch * s.source)) {}

  void prepare() {}
  void operator()() {
    vectors_ =
        embedder_.embed({.tokens = tokens_.data(), .batch = sizes_.batch, .length = sizes_.source});
    if (vectors_.empty()) std::abort();
  }
  /// Vectors [batch, width] of the last run.
  std::span<const float> vectors() const { return vectors_; }
  static cost of(const sizes& s) {
    return {static_cast<double>(s.batch * s.source),
            static_cast<double>(M::flops(s.batch, s.source)),
            matrices_of<M>([](const ln::parameter_path& at, const ln::tensor_info& info) {
              return info.kind != ln::role::table && at.str().find("pooler") == std::string::npos;
            }).bytes};
  }

 private:
  sizes sizes_;
  ln::embedder<M> embedder_;
  std::vector<ln::token> tokens_;
  std::span<const float> vectors_;
};

/// A decoder over a prompt of [batch, source] tokens; logits of the last one.
template <class M>
class prefill : running<M> {
 public:
  prefill(const ln::packed<M>& weights, const sizes& s)
      : running<M>(weights, s, {.batch = s.batch, .target = s.source, .threads = s.threads}),
        tokens_(some_tokens<M>(s.batch * s.source)) {}

  void prepare() { this->session_.reset(); }
  void operator()() {
    if (this->session_.feed(tokens_, this->sizes_.batch, {}).empty()) std::abort();
  }
  static cost of(const sizes& s) {
    const double unread = 2.0 * static_cast<double>(s.batch * (s.source - 1) * M::d) *
                          static_cast<double>(M::vocabulary);
    return {static_cast<double>(s.batch * s.source),
            static_cast<double>(M::flops(s.batch, s.source)) - unread,
            matrices_read<M>(false).bytes};
  }

 private:
  std::vector<ln::token> tokens_;
};

/// Greedy decoding of [batch, target] tokens: of an encoder-decoder after a source, of a decoder
/// after a prompt. A run of it comes after prepare(), which is not part of the work.
template <class M>
class decode : running<M> {
 public:
  decode(const ln::packed<M>& weights, const sizes& s) : decode(weights, s, start_of(s)) {}
  /// After [batch, source] given tokens.
  decode(const ln::packed<M>& weights, const sizes& s, std::vector<ln::token> start)
      : running<M>(weights, s, limits_for(s)),
        start_(std::move(start)),
        next_(static_cast<std::size_t>(s.batch)),
        written_(static_cast<std::size_t>(s.batch * s.target)),
        order_(static_cast<std::size_t>(M::vocabulary)) {}

  /// What comes before decoding: the encoder, or all of the prompt but its last token. A prompt
  /// that is there already is kept.
  void prepare() {
    if constexpr (encodes<M>) {
      this->encode(start_);
      next_.assign(next_.size(), M::start);
    } else {
      const std::size_t length = start_.size() / next_.size();
      std::vector<ln::token> prompt;
      for (std::size_t b = 0; b < next_.size(); ++b) {
        const auto first = start_.begin() + static_cast<std::ptrdiff_t>(b * length);
        const auto last = first + static_cast<std::ptrdiff_t>(length - 1);
        prompt.insert(prompt.end(), first, last);
        next_[b] = *last;
      }
      bool there = prepared_;
      for (ln::index b = 0; there && b < this->sizes_.batch; ++b)
        there = this->session_.truncate(static_cast<ln::index>(length) - 1, b);
      if (there) return;
      this->session_.reset();
      if (!prompt.empty() && this->session_.feed(prompt, this->sizes_.batch, {}).empty())
        std::abort();
      prepared_ = true;
    }
  }
  void operator()() {
    const std::size_t batch = next_.size();
    for (std::size_t t = 0; t < written_.size() / batch; ++t) {
      const std::span<float> logits = this->session_.feed(next_, this->sizes_.batch, {});
      if (logits.empty()) std::abort();
      for (std::size_t b = 0; b < batch; ++b)
        written_[t * batch + b] = next_[b] =
            ln::greedy{}(logits.subspan(b * order_.size(), order_.size()), order_);
    }
  }
  /// The tokens of the last run, [target, batch].
  const std::vector<ln::token>& written() const { return written_; }
  static cost of(const sizes& s) {
    const matrices read = matrices_read<M>(false);
    return {static_cast<double>(s.batch * s.target),
            2 * read.elements * static_cast<double>(s.batch * s.target),
            read.bytes * static_cast<double>(s.target)};
  }

 private:
  std::vector<ln::token> start_, next_, written_, order_;
  bool prepared_ = false;

  static std::vector<ln::token> start_of(const sizes& s) {
    return some_tokens<M>(s.batch * s.source);
  }
  static ln::limits limits_for(const sizes& s) {
    if constexpr (encodes<M>)
      return {.batch = s.batch, .source = s.source, .target = s.target, .threads = s.threads};
    else
      return {.batch = s.batch, .target = s.source - 1 + s.target, .threads = s.threads};
  }
};

/// A training step with AdamW: [batch, source] and [batch, target] tokens of an encoder-decoder,
/// [batch, source] of a decoder. Weights in f32, products in `Compute`.
template <class M, class Compute = ln::compute::f32>
class train {
  using trainer = ln::trainer<M, ln::adamw, float, Compute>;

 public:
  explicit train(ln::weights<M>& weights, const sizes& s)
      : sizes_(s),
        trainer_(take(trainer::open(weights, limits_for(s)))),
        source_(some_tokens<M>(s.batch * s.source)),
        labels_(some_tokens<M>(s.batch * (encodes<M> ? s.target : s.source))) {}

  void prepare() {}
  void operator()() {
    if constexpr (encodes<M>)
      loss_ = trainer_.step(
          {source_.data(), nullptr, labels_.data(), sizes_.batch, sizes_.source, sizes_.target});
    else
      loss_ = trainer_.step({source_.data(), labels_.data(), sizes_.batch, sizes_.source});
    if (!(loss_ > 0)) std::abort();
  }
  /// Loss of the last step, nats per token.
  double loss() const { return loss_; }
  /// Forward and backward: three times the products of a forward call.
  static cost of(const sizes& s) {
    double flops = 0;
    if constexpr (encodes<M>)
      flops = static_cast<double>(M::flops(s.batch, s.source, s.target));
    else
      flops = static_cast<double>(M::flops(s.batch, s.source));
    return {static_cast<double>(s.batch * (s.source + (encodes<M> ? s.target : 0))), 3 * flops, 0};
  }

 private:
  sizes sizes_;
  trainer trainer_;
  std::vector<ln::token> source_, labels_;
  double loss_ = 0;

  static ln::limits limits_for(const sizes& s) {
    if constexpr (encodes<M>)
      return {.batch = s.batch, .source = s.source, .target = s.target, .threads = s.threads};
    else
      return {.batch = s.batch, .target = s.source, .threads = s.threads};
  }
};

/// Milliseconds of runs: on the clock, and of all processors together.
struct times {
  std::vector<double> ms, cpu_ms;
};
/// Runs a work again and again: at least `runs` times and for `seconds`. Calls before() and after()
/// around each run.
template <class Work, class Before, class After>
times measure(Work& work, std::size_t runs, double seconds, Before&& before, After&& after) {
  times t;
  for (const double end = machine::now() + seconds; t.ms.size() < runs || machine::now() < end;) {
    work.prepare();
    before();
    const double cpu = machine::cpu_now(), start = machine::now();
    work();
    t.ms.push_back(1e3 * (machine::now() - start));
    t.cpu_ms.push_back(1e3 * (machine::cpu_now() - cpu));
    after();
  }
  return t;
}
template <class Work>
times measure(Work& work, std::size_t runs, double seconds) {
  return measure(
      work, runs, seconds, [] {}, [] {});
}

}  // namespace works
