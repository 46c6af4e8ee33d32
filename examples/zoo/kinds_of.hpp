// SPDX-License-Identifier: MIT
#pragma once
// The one implementation of `lone_layer` and of a small training run, for any kind of attention.

#include <linnet/eval/evaluator.hpp>
#include <linnet/model/decoder.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/model/layer_runner.hpp>
#include <linnet/model/rwkv.hpp>
#include <linnet/train/trainer.hpp>

#include "kinds.hpp"
#include "support.hpp"

namespace zoo {

/// The shape of a kind's layer: that of a decoder that has sessions, with rotary positions where it
/// takes them, or of a T5 encoder, with relative ones.
template <class Kind, ln::rope_pairing Rope>
constexpr ln::attention_shape shape_of_kind() {
  ln::attention_shape a{.d_model = kind_width,
                        .heads = kind_heads,
                        .kv_heads = kind_heads,
                        .d_kv = kind_width / kind_heads,
                        .causal = Kind::causal && Kind::supports_cache};
  if (a.causal) {
    a.rope = Rope;
    a.first = Kind::first_differs;
  } else {
    a.scaled = false;
    a.relative = true;
  }
  return a;
}

template <class Kind, ln::attention_shape A>
class lone_layer_of final : public lone_layer {
  using layer = typename Kind::template layer<A>;
  static constexpr ln::index d = A.d_model;

  static ln::call_shape extents_of(const layer_plan& p) {
    ln::call_shape e;
    e.length = p.length;
    e.threads = p.threads;
    e.training = p.training;
    return e;
  }
  /// Positions of the rotary table.
  static ln::index positions(const layer_plan& p) {
    return std::max(p.length, ln::index{Kind::min_positions});
  }

 public:
  static double flops(ln::index length) {
    ln::call_shape e;
    e.length = length;
    // Counts are of all pairs; full attention does not touch the later half.
    const bool half = A.causal && Kind::name() == "full";
    return static_cast<double>(layer::flops(e) -
                               (half ? 2 * length * (length - 1) * kind_width : 0));
  }
  static ln::index bytes(const layer_plan& p) {
    return ln::layer_buffers<layer, float>::bytes(extents_of(p));
  }

  explicit lone_layer_of(const layer_plan& p) : plan_(p), layer_(extents_of(p)) {
    if (!layer_.valid()) throw failure("not enough memory for a layer of " + Kind::name());
    ln::initialize(layer_.weights, ln::seed{1});
    layer_.pack();
    ln::random_stream random(ln::seed{2});
    for (auto* x : {&x_, &y_, &dy_, &dx_}) x->resize(static_cast<std::size_t>(p.length * d));
    for (float& x : x_) x = static_cast<float>(random.normal());
    for (float& dy : dy_) dy = static_cast<float>(random.normal());
    if constexpr (A.rope != ln::rope_pairing::none) {
      rope_.resize(static_cast<std::size_t>(positions(p) * A.d_kv));
      ln::ops::rope_table(positions(p), A.d_kv, 1e4, rope_.data());
    }
    if constexpr (A.relative) {
      bias_.resize(static_cast<std::size_t>(A.heads * (2 * p.length - 1)));
      d_bias_.resize(bias_.size());
    }
  }

  void forward() override {
    run([this](auto& ctx) { layer_.forward(x_.data(), y_.data(), ctx); });
  }
  void backward() override {
    run([this](auto& ctx) { layer_.backward(x_.data(), dy_.data(), dx_.data(), ctx); });
  }

 private:
  template <class F>
  void run(F&& f) {
    ln::parallel(plan_.threads, {}, [&](const ln::team& threads) {
      ln::context<float> ctx;
      ctx.on.threads = threads;
      ctx.on.level = ln::simd::best();
      ctx.length = plan_.length;
      if constexpr (A.rope != ln::rope_pairing::none) ctx.rope.table = rope_.data();
      if constexpr (A.relative) {
        ctx.bias = {bias_.data(), d_bias_.data(), plan_.length - 1};
      }
      f(ctx);
    });
  }

  layer_plan plan_;
  ln::layer_runner<layer> layer_;
  std::vector<float> x_, y_, dy_, dx_, rope_, bias_, d_bias_;
};

inline constexpr ln::decoder_shape kind_decoder_shape{.d_model = kind_width,
                                                      .d_ff = 2 * kind_width,
                                                      .heads = kind_heads,
                                                      .kv_heads = kind_heads,
                                                      .layers = kind_layers,
                                                      .vocabulary = 256,
                                                      .context = kind_context};

/// The byte-level decoder of a kind: as models of its kind are built.
template <class Kind, ln::rope_pairing Rope>
struct decoder_of_kind {
  using type = ln::decoder<kind_decoder_shape, Kind>;
};
template <class Kind>
struct decoder_of_kind<Kind, ln::rope_pairing::none> {
  using type = ln::decoder<kind_decoder_shape, Kind, ln::position::none>;
};
template <>
struct decoder_of_kind<ln::mixer::rwkv4, ln::rope_pairing::none> {
  using type = ln::rwkv4<kind_decoder_shape>;
};
template <>
struct decoder_of_kind<ln::mixer::rwkv7, ln::rope_pairing::none> {
  using type = ln::rwkv7<kind_decoder_shape>;
};

/// Trains model `M`; every kind sees the same batches.
template <class M>
learning_result learn_bytes(const kind_course& c) {
  constexpr ln::index length = kind_context, rows = kind_batch;
  constexpr std::size_t size = static_cast<std::size_t>(rows * length);
  std::vector<ln::token> tokens(size), labels(size);
  const auto read = [&](ln::index row, std::string_view text, ln::index start) {
    for (ln::index t = 0; t < length; ++t) {
      const auto at = static_cast<std::size_t>(start + t),
                 to = static_cast<std::size_t>(row * length + t);
      tokens[to] = static_cast<unsigned char>(text[at]);
      labels[to] = static_cast<unsigned char>(text[at + 1]);
    }
  };
  ln::weights<M> w;
  if (!w.valid()) throw failure("not enough memory for the weights");
  ln::initialize(w, ln::seed{c.seed});
  const ln::adamw optimizer{.rate = ln::schedule::cosine(5e-3, 1 + c.steps / 20, c.steps),
                            .beta2 = 0.99};
  auto trainer = take(
      ln::trainer<M>::open(w, {.batch = rows, .target = length, .threads = c.threads}, optimizer));
  ln::random_stream random(ln::seed{c.seed + 1});
  const auto places = static_cast<std::uint32_t>(std::ssize(c.training) - length);
  const double start = now();
  for (long step = 0; step < c.steps; ++step) {
    for (ln::index row = 0; row < rows; ++row) read(row, c.training, random.below(places));
    if (!ln::is_finite(trainer.step({tokens.data(), labels.data(), rows, length})))
      throw divergence(M::attention::name() + ": " + std::string(trainer.last_refusal()));
  }
  learning_result result{.seconds = now() - start, .parameters = M::parameters()};
  const ln::index most = 64, examples = std::min(most, (std::ssize(c.held_out) - 1) / length);
  double nats = 0;
  for (ln::index i = 0; i < examples; ++i) {
    read(0, c.held_out,
         (std::ssize(c.held_out) - 1 - length) * i / std::max(examples - 1, ln::index{1}));
    nats += trainer.evaluate({tokens.data(), labels.data(), 1, length}).nats;
  }
  result.bits = ln::bits_per_byte(nats, examples * length);
  return result;
}

/// The kind that a decoder learns with: one whose groups later tokens decide takes its online
/// grouping, as its sessions do, or its figures would be of text that it has looked ahead in.
template <class Kind, bool = Kind::noncausal_grouping>
struct learned_kind {
  using type = Kind;
};
template <class Kind>
struct learned_kind<Kind, true> {
  using type = typename Kind::online;
};

/// Adds a kind to the table.
template <class Kind, ln::rope_pairing Rope = ln::rope_pairing::interleaved>
void add_kind(std::vector<kind>& all) {
  constexpr ln::attention_shape A = shape_of_kind<Kind, Rope>();
  using layer = typename Kind::template layer<A>;
  all.push_back({.name = Kind::name(),
                 .decoder = A.causal,
                 .longest = Kind::longest,
                 .parameters = ln::count_parameters<layer>(),
                 .flops = lone_layer_of<Kind, A>::flops,
                 .bytes = lone_layer_of<Kind, A>::bytes,
                 .make = [](const layer_plan& p) -> std::unique_ptr<lone_layer> {
                   return std::make_unique<lone_layer_of<Kind, A>>(p);
                 }});
  if constexpr (A.causal) {
    using learned = typename learned_kind<Kind>::type;
    static_assert(learned::supports_cache && !learned::noncausal_grouping);
    all.back().learn = learn_bytes<typename decoder_of_kind<learned, Rope>::type>;
    all.back().learner = learned::name();
  }
}

}  // namespace zoo
