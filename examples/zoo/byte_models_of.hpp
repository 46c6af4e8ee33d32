// SPDX-License-Identifier: MIT
#pragma once
// The one implementation of `learner` and of `deployed`, for any byte-level model type.

#include <linnet/compress/collapse.hpp>
#include <linnet/compress/quantize.hpp>
#include <linnet/eval/evaluator.hpp>
#include <linnet/formats/weights_file.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>

#include "byte_models.hpp"
#include "count_table.hpp"
#include "running_of.hpp"
#if __has_include(<xxhash.h>)
#include "support/checkpoints.hpp"
#endif

namespace zoo {

/// Inner width of 2w and 3w over d_model. With 2, a 3w feed-forward has about as many weights to
/// train as the standard one: 2 * 2 d^2 + 4 d^2.
inline constexpr ln::expansion byte_expansion{2};

template <class M>
constexpr reading reading_of() {
  if constexpr (M::encodes)
    return {.encodes = true, .offset = 3, .source = 128, .target = 64};
  else
    return {.encodes = false, .offset = 0, .source = 0, .target = M::context_length};
}

template <class M>
constexpr ln::limits limits_for(ln::index batch, int threads) {
  constexpr reading r = reading_of<M>();
  return {.batch = batch, .source = r.source, .target = r.target, .threads = threads};
}

template <class M>
typename M::batch batch_of(const example_batch& l) {
  constexpr reading r = reading_of<M>();
  if constexpr (M::encodes)
    return {.source = l.inputs.data(),
            .labels = l.labels.data(),
            .batch = l.batch,
            .source_length = r.source,
            .target_length = r.target};
  else
    return {l.inputs.data(), l.labels.data(), l.batch, r.target};
}

/// How many matrices a feed-forward multiplies that ln::collapse() makes one; 0: not such a one.
template <class Ffn>
inline constexpr int factors = 0;
template <int N, ln::expansion E>
inline constexpr int factors<ln::ffn::reparam<N, E>> = N;
template <class M>
constexpr int factors_of() {
  if constexpr (M::encodes)
    return factors<typename M::decoder_ffn>;
  else
    return factors<typename M::ffn>;
}
template <class M>
inline constexpr bool collapsible = factors_of<M>() > 0;

/// Initial values of 2w and 3w for a quick start: the last factor is zero, so a block begins as if
/// it had no feed-forward, and the others keep the size of what passes through them.
template <class M>
void start_products(ln::weights<M>& w) {
  const std::string last = ".ffn.w" + std::to_string(factors_of<M>()) + ".weight";
  w.visit([&](const ln::parameter_path& at, const ln::tensor_info& info, auto& leaf) {
    if constexpr (!std::is_pointer_v<std::remove_cvref_t<decltype(leaf)>>) {
      const std::string name = at.str();
      if (name.find(".ffn.w") == name.npos) return;
      const double wanted =
          name.ends_with(last) ? 0 : 1 / std::sqrt(static_cast<double>(info.columns));
      for (ln::index i = 0; i < info.size(); ++i)
        leaf.data[i] *= static_cast<float>(wanted / info.deviation);
    }
  });
}

template <class M>
class deployed_of final : public deployed {
 public:
  explicit deployed_of(const ln::weights<M>& w) : weights_(packed_of(w)) {}

  void prepare(ln::index batch, int threads) override {
    evaluator_.emplace(take(ln::evaluator<M>::open(*weights_, limits_for<M>(batch, threads))));
  }
  double nats(const example_batch& l, std::span<float> logits) override {
    return evaluator_->loss(batch_of<M>(l), logits).nats;
  }
  std::unique_ptr<running> open(const ln::limits& l) const override {
    return std::make_unique<running_of<M>>(weights_, l);
  }

 private:
  std::shared_ptr<const ln::packed<M>> weights_;
  std::optional<ln::evaluator<M>> evaluator_;
};

template <class M>
class learner_of final : public learner {
 public:
  const reading& how_to_read() const override { return reading_; }
  ln::index vocabulary() const override { return M::vocabulary; }
  bool collapses() const override { return collapsible<M>; }
  counts cost(form f) const override {
    const lengths call{reading_.source, reading_.target};
    counts c = count_model<M>(call);
    if constexpr (collapsible<M>)
      if (f != form::trained) c = count_model<ln::collapsed<M>>(call);
    if (f == form::int8) c.bytes = c.bytes_int8;
    return c;
  }

  void begin(ln::index batch, int threads, std::uint64_t seed) override {
    make_weights();
    ln::initialize(*weights_, ln::seed{seed});
    if constexpr (collapsible<M>) start_products(*weights_);
    trainer_.emplace(take(ln::trainer<M>::open(*weights_, limits_for<M>(batch, threads),
                                               {.beta2 = 0.99, .decay = 0.1}, {.seed = seed})));
  }
  double step(const example_batch& l, double rate) override {
    trainer_->optimizer().rate = ln::schedule::constant(rate);
    return trainer_->step(batch_of<M>(l));
  }
  double nats(const example_batch& l) override { return trainer_->evaluate(batch_of<M>(l)).nats; }
#if __has_include(<xxhash.h>)
  void save_checkpoint(const std::string& path, std::span<const std::byte> own) override {
    support::save_run(path, *trainer_, own);
  }
  bool load_checkpoint(const std::string& path, std::span<std::byte> own) override {
    return support::load_run(path, *trainer_, own);
  }
#else
  void save_checkpoint(const std::string&, std::span<const std::byte>) override {}
  bool load_checkpoint(const std::string&, std::span<std::byte>) override { return false; }
#endif
  void finish() override { trainer_.reset(); }

  std::unique_ptr<deployed> deploy(form f) const override {
    if (f == form::trained) return std::make_unique<deployed_of<M>>(*weights_);
    if constexpr (collapsible<M>)
      return deploy_plain(ln::collapse(*weights_), f);
    else
      return deploy_plain(*weights_, f);
  }
  void save(const std::string& path, std::string_view model, std::string_view ffn) const override {
    take(ln::save_safetensors(*weights_, path, ln::naming::canonical{},
                              {{"zoo.model", std::string(model)}, {"zoo.ffn", std::string(ffn)}}));
  }
  void load(const std::string& path) override {
    make_weights();
    take(ln::load_safetensors(*weights_, path));
    take(ln::check_finite(*weights_, path));
  }

 private:
  void make_weights() {
    trainer_.reset();
    weights_.emplace();
    if (!weights_->valid()) throw failure("not enough memory for the weights");
  }
  template <class Plain>
  static std::unique_ptr<deployed> deploy_plain(const ln::weights<Plain>& w, form f) {
    using small = ln::quantized<Plain, ln::storage::int8>;
    if (f == form::int8)
      return std::make_unique<deployed_of<small>>(ln::quantize<ln::storage::int8>(w));
    return std::make_unique<deployed_of<Plain>>(w);
  }

  reading reading_ = reading_of<M>();
  std::optional<ln::weights<M>> weights_;
  std::optional<ln::trainer<M>> trainer_;
};

/// A learner of base model `Base` with feed-forward `V`.
template <class Base, variant V>
std::unique_ptr<learner> learner_with() {
  return std::make_unique<learner_of<typename with_variant<Base, V, byte_expansion>::type>>();
}

// Each of these is compiled in a source file of its own, which keeps compilers small and parallel.
std::unique_ptr<learner> byte_decoder_learner(variant v);
std::unique_ptr<learner> byte_decoder_linear_learner(variant v);  ///< 1w, 2w, 3w
std::unique_ptr<learner> byte_t5_learner(variant v);
std::unique_ptr<learner> byte_t5_linear_learner(variant v);

}  // namespace zoo
