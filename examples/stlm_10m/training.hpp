// SPDX-License-Identifier: MIT
#pragma once
// Trains a model, or goes on where its checkpoint stands.

#include <fmt/format.h>

#include <linnet/data/window_stream.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/formats/weights_file.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/model/presets.hpp>
#include <linnet/train/trainer.hpp>

#include <cmath>
#include <optional>

#include "support/marks.hpp"
#include "support/texts.hpp"
#include "support/training.hpp"
#include "vocabulary.hpp"

namespace stlm_10m {

using windows = ln::window_stream<>;

inline constexpr ln::index rows = 4, window = 512;  // windows of a step, tokens of a window
inline constexpr ln::index looks = 40;              // points of the curve, each with its weights
inline constexpr ln::index looked_at = 32;          // windows of each part for a point of the curve

/// A batch as models of type `M` read it.
template <class M>
typename M::batch batch_of(const ln::decoder_batch& b, const vocabulary& v) {
  if constexpr (requires { M::bytes_per_token; })
    return {b.tokens, b.labels, b.batch, b.length, v.bytes.data(), v.bytes.vocabulary()};
  else
    return b;
}

/// A model in training, as support::take_steps wants it. Everything runs in one thread.
template <class M>
class learner : public support::in_training<ln::trainer<M>> {
  using trainer = ln::trainer<M>;
  using learner::in_training::trainer_;

 public:
  learner(const vocabulary& v, const ln::schedule& rate) : words_(&v) {
    const ln::limits l{.batch = rows, .target = window, .threads = 1};
    if (!weights_.valid()) throw support::failure("not enough memory for the weights");
    ln::initialize(weights_, ln::seed{1});
    trainer_.emplace(support::take(
        trainer::open(weights_, l, {.rate = rate, .beta2 = 0.95, .decay = 0.1}, {.seed = 1})));
    judge_.emplace(support::take(ln::evaluator<M>::open(trainer_->current(), l)));
  }
  double step(const ln::decoder_batch& b) { return trainer_->step(batch_of<M>(b, *words_)); }
  double nats(const ln::decoder_batch& b) { return judge_->loss(batch_of<M>(b, *words_)).nats; }
  void save(const std::string& path) const { support::take(ln::save_safetensors(weights_, path)); }

 private:
  const vocabulary* words_;
  ln::weights<M> weights_;
  std::optional<ln::evaluator<M>> judge_;
};

/// Tokens of some stretches of text, one behind the other.
struct tokens {
  std::vector<ln::token> ids;
  ln::index bytes = 0;

  tokens(const std::vector<std::string_view>& parts, const vocabulary& v) {
    for (const std::string_view text : parts) {
      v.pieces.encode(text, ids);
      bytes += std::ssize(text);
    }
  }
  windows stream(std::uint64_t seed) const {
    return support::take(
        windows::open(ln::token_source(ids, ln::t5_ids{}), rows, window, ln::seed{seed}));
  }
};

/// Bits of each byte of windows that are spread over a text.
template <class M>
double bits(learner<M>& m, windows& text, const vocabulary& v) {
  double nats = 0;
  ln::index bytes = 0;
  for (ln::index i = 0; i < looked_at; i += rows) {
    const ln::decoder_batch b = text.in_order(i * std::max<ln::index>(1, text.epoch() / looked_at));
    nats += m.nats(b);
    for (ln::index k = 0; k < b.batch * b.length; ++k)
      if (b.labels[k] >= 0) bytes += std::ssize(v.pieces.decode(-1, b.labels[k]));
  }
  return ln::bits_per_byte(nats, bytes);
}

template <class M>
void train(const options& o) {
  const support::stop_requests stops;
  const vocabulary v = read_vocabulary(o);
  const support::texts texts = support::read_texts(o.data);
  const tokens learned(texts.training, v), held_out(texts.held_out, v);
  support::say("{} bytes of text in {} tokens, {} bytes held out; a step has {} tokens\n",
               support::grouped(learned.bytes), support::grouped(std::ssize(learned.ids)),
               support::grouped(held_out.bytes), support::grouped(rows * window));
  windows examples = learned.stream(1), known = learned.stream(1), unknown = held_out.stream(1);
  const auto rate =
      ln::schedule::warmup_stable_decay(o.rate, o.steps / 40, o.steps, o.steps / 4, o.rate / 20);
  learner<M> m(v, rate);
  const std::string base = o.out + "/" + o.kind;
  const double share =
      static_cast<double>(learned.bytes) / static_cast<double>(std::ssize(learned.ids));
  std::optional<ln::metrics_log> curve;
  const auto look = [&](ln::index step, support::run_record& r) {
    if (!curve)
      curve.emplace(support::take(
          ln::metrics_log::open(base + ".curve.jsonl", {"bytes", "seconds", "training", "held_out"},
                                std::max<ln::index>(0, step - 1))));
    if (step % std::max<ln::index>(1, o.steps / looks) != 0 && step != o.steps) return;
    m.save(fmt::format("{}.{}.safetensors", base, step));
    const double start = support::processor_seconds();
    const std::array figures{static_cast<double>(step * rows * window) * share, r.seconds,
                             bits(m, known, v), bits(m, unknown, v)};
    support::take(curve->write(step, figures));
    support::take(curve->sync());
    support::say("step {}: {:.2f} MB, {:.0f} s; bits per byte {:.3f}, held out {:.3f} ({:.1f} s)\n",
                 step, figures[0] / 1e6, r.seconds, figures[2], figures[3],
                 support::processor_seconds() - start);
  };
  support::run_record r{.steps = o.steps,
                        .batch = rows,
                        .length = window,
                        .rate = o.rate,
                        .data = texts.mark(),
                        .merges = support::mark_of(support::file_text(o.merges))};
  const bool ended =
      support::take_steps(base, m, r, HUGE_VAL,
                          [&](ln::index step) {
                            return m.step(examples.batch(static_cast<std::uint64_t>(step * rows)));
                          },
                          look, {.checkpoint_seconds = 60, .logs_seconds = true});
  support::say("{} after {:.0f} s of processor time\n", ended ? "ended" : "put off", r.seconds);
}

}  // namespace stlm_10m
