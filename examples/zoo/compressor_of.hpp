// SPDX-License-Identifier: MIT
#pragma once
// The one implementation of `compressor`, for any model type and storage.

#include <filesystem>
#include <linnet/eval/evaluator.hpp>
#include <linnet/formats/weights_file.hpp>
#include <linnet/generate/embedder.hpp>
#include <vector>

#if __has_include(<xxhash.h>)  // of files of statistics
#include <linnet/calibration_file.hpp>
#define ZOO_KEEPS_STATISTICS
#endif

#include "compress_methods.hpp"
#include "compressor.hpp"
#include "preset_loader.hpp"

namespace zoo {

/// What gives the vectors or the losses of a model.
template <class M>
struct runner_of {
  using type = ln::evaluator<M>;
};
template <class M>
requires ln::detail::is_encoder<M>
struct runner_of<M> {
  using type = ln::embedder<M>;
};

template <class M>
class stored_model_of final : public stored_model {
  static constexpr bool embeds = ln::detail::is_encoder<M>;

 public:
  stored_model_of(std::shared_ptr<const ln::weights<M>> weights, const ln::limits& l)
      : weights_(std::move(weights)), packed_(packed_of(*weights_)), limits_(l) {}

  ln::index bytes() const override { return ln::weight_bytes<M>(); }
  ln::loss_sum loss(const any_batch& b, std::span<float> logits) override {
    if constexpr (embeds) {
      throw failure("an encoder alone has no loss");
    } else {
      const ln::loss_sum sum = runner().loss(std::get<typename M::batch>(b), logits);
      if (const auto why = runner().last_refusal(); !why.empty())
        throw failure("the model refuses a batch: " + std::string(why));
      return sum;
    }
  }
  std::span<const float> embed(const ln::encoder_batch& b) override {
    if constexpr (embeds) {
      const auto vectors = runner().embed(b);
      if (vectors.empty())
        throw failure("the model gives nothing: " + std::string(runner().last_refusal()));
      return vectors;
    } else {
      throw failure("only an encoder gives vectors of texts");
    }
  }
  std::unique_ptr<running> open(const ln::limits& l) const override {
    if constexpr (embeds)
      throw failure("an encoder alone writes no text");
    else
      return std::make_unique<running_of<M>>(packed_, l);
  }
  void save(const std::string& path, const file_notes& notes) const override {
    take(ln::save_safetensors(*weights_, path, {}, notes));
  }

 private:
  std::shared_ptr<const ln::weights<M>> weights_;
  std::shared_ptr<const ln::packed<M>> packed_;
  ln::limits limits_;
  std::optional<typename runner_of<M>::type> runner_;

  typename runner_of<M>::type& runner() {
    if (!runner_) runner_.emplace(take(runner_of<M>::type::open(*packed_, limits_)));
    return *runner_;
  }
};

/// Model `M` in storage `S`, products in `A`, by those methods that store it as `Way` says.
template <class M, class S, class A, class Way>
class compressor_of final : public compressor {
  using stored = typename Way::template of<S>;
  using source = typename Way::template model<M>;  // what the method begins with
  using deployed = ln::quantized<source, stored, A>;

 public:
  ln::index parameters() const override { return M::parameters(); }
  void load(const std::string& path) override {
    weights_ = std::make_shared<const ln::weights<M>>(weights_at<M>(path));
    source_.reset();
  }
  std::unique_ptr<stored_model> original(const ln::limits& l) const override {
    return std::make_unique<stored_model_of<M>>(weights_, l);
  }
  ln::index calibrate(const calibration_plan& p) override {
    ln::calibration<source> before;
#ifdef ZOO_KEEPS_STATISTICS
    if (!p.kept.empty() && std::filesystem::exists(p.kept))
      before = take(ln::load_calibration<source>(p.kept));
#else
    if (!p.kept.empty())
      throw failure(
          "--statistics: the module was compiled without xxhash.h (Debian: libxxhash-dev)");
#endif
    const ln::index seen = before.batches();
    statistics_ = take(ln::calibrate(begins(&p), batches_of(p.batch), p.limits,
                                     {.batches = p.batches}, std::move(before)));
#ifdef ZOO_KEEPS_STATISTICS
    if (!p.kept.empty() && statistics_.batches() > seen)
      take(ln::save_calibration(p.kept, statistics_));
#endif
    return statistics_.batches();
  }
  std::unique_ptr<stored_model> compress(std::string_view method, const ln::limits& l,
                                         const calibration_plan* in_blocks) override {
    (void)begins(in_blocks);
    std::unique_ptr<stored_model> made;
    each_method([&](std::string_view name, const auto& how, auto way) {
      using Method = std::remove_cvref_t<decltype(how)>;
      if constexpr (std::is_same_v<decltype(way), Way> && compiles<Method, S>)
        if (name == method) made = kept(compressed(how, in_blocks), l);
    });
    if (!made) throw failure(std::string(method) + " does not give this storage");
    return made;
  }
  std::unique_ptr<stored_model> reopen(const std::string& path,
                                       const ln::limits& l) const override {
    ln::weights<deployed> w;
    if (!w.valid()) throw failure("not enough memory for the weights");
    take(ln::load_safetensors(w, path, {}, ln::nonfinite::refuse));
    return kept(std::move(w), l);
  }

 private:
  std::shared_ptr<const ln::weights<M>> weights_;
  std::shared_ptr<const ln::weights<source>> source_;
  ln::calibration<source> statistics_;

  /// The weights that the method begins with. A model that it changes is learned on the text of the
  /// first call.
  const ln::weights<source>& begins(const calibration_plan* p) {
    if constexpr (Way::changes_model) {
      if (!source_)
        source_ = std::make_shared<const ln::weights<source>>(
            take(Way::template prepare<stored>(*weights_, batches_of(p->lesson), *p)));
    } else {
      source_ = weights_;
    }
    return *source_;
  }

  static std::unique_ptr<stored_model> kept(ln::weights<deployed> w, const ln::limits& l) {
    return std::make_unique<stored_model_of<deployed>>(
        std::make_shared<const ln::weights<deployed>>(std::move(w)), l);
  }
  static auto batches_of(const std::function<std::optional<any_batch>(ln::index)>& text) {
    return [&text](ln::index i) {
      const std::optional<any_batch> b = text(i);
      return b ? std::get<typename M::batch>(*b) : typename M::batch{};
    };
  }
  template <class Method>
  ln::weights<deployed> compressed(const Method& how, const calibration_plan* in_blocks) const {
    using ln::quantize;
    if constexpr (!Method::reads_inputs) {
      return take(quantize<stored, A>(*source_, how));
    } else {
      if constexpr (ln::rounding_method<Method>)
        if (in_blocks)
          return take(ln::quantize_in_blocks<stored, A>(*source_, batches_of(in_blocks->batch),
                                                        in_blocks->limits, how,
                                                        {.batches = in_blocks->batches}));
      return take(quantize<stored, A>(*source_, statistics_, how));
    }
  }
};

}  // namespace zoo

/// What a module of zoo compress exports: what makes its one kind of object, and the interface that
/// it is for.
#define ZOO_COMPRESSOR(...)                                                         \
  extern "C" int zoo_compressor_interface() { return ::zoo::compressor_interface; } \
  extern "C" ::zoo::compressor* zoo_compressor() { return new ::zoo::compressor_of<__VA_ARGS__>(); }
