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
#include "compress_predictors.hpp"
#include "compressor.hpp"
#include "preset_loader.hpp"

namespace zoo {

/// What gives the vectors or the losses of a model.
template <class M>
struct runner_of {
  using type = ln::evaluator<M>;
};
template <class M>
requires ln::embedding_model<M>
struct runner_of<M> {
  using type = ln::embedder<M>;
};

template <class M>
class stored_model_of final : public stored_model {
  static constexpr bool embeds = ln::embedding_model<M>;

 public:
  stored_model_of(std::shared_ptr<const ln::weights<M>> weights, const ln::limits& l)
      : weights_(std::move(weights)), packed_(packed_of(*weights_)), limits_(l) {}

  ln::index bytes() const override { return ln::weight_bytes<M>(); }
  ln::index parameters() const override { return M::parameters(); }
  double zeros() const override { return ln::sparsity(*weights_); }
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

/// Model `M`, rebuilt by `Before`, in storage `S`, products in `A`, by the methods in `Only`.
template <class M, class S, class A, class Before, method_list Only>
class compressor_of final : public compressor {
  using source = typename Before::template model<M>;  // what most methods begin with
  using deployed = ln::quantized<source, S, A>;
  using batch = typename M::batch;
  using texts = step_text<batch>;

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
    const texts text = text_of(p);
    begin(text);
    gather(text, std::move(before));
#ifdef ZOO_KEEPS_STATISTICS
    if (!p.kept.empty() && statistics_.batches() > seen)
      take(ln::save_calibration(p.kept, statistics_));
#endif
    return statistics_.batches();
  }
  std::unique_ptr<stored_model> compress(const method_chain& by, const pruning& how,
                                         const ln::limits& l, const calibration_plan* p) override {
    const texts text = p ? text_of(*p) : texts{};
    if (!source_) begin(text);
    bool pruned = false;
    for (const std::string_view name : by.before) {
      if (name == "distil")
        distil(text, *p);
      else if (words_of(name).does == effect::prunes)
        prune(name, how, text, p);
      else
        scale(name, text);
      pruned = pruned || words_of(name).does == effect::prunes;
    }
    return store(pruned && by.last == "gptq" ? std::string_view("sparsegpt") : by.last,
                 pruned ? pruning{.fraction = 0} : how, l, text, p);
  }
  ln::index dropped() const override { return dropped_; }
  std::span<const found_units> found() const override { return found_; }
  std::unique_ptr<stored_model> reopen(const std::string& path,
                                       const ln::limits& l) const override {
    ln::weights<deployed> w;
    if (!w.valid()) throw failure("not enough memory for the weights");
    take(ln::load_safetensors(w, path, {}, ln::nonfinite::refuse));
    return kept(std::move(w), l);
  }

 private:
  std::shared_ptr<const ln::weights<M>> weights_;
  std::shared_ptr<const ln::weights<source>> source_;  // changed by each step
  ln::calibration<source> statistics_;
  bool current_ = false;  // whether statistics_ are of source_
  ln::index dropped_ = 0;
  std::vector<found_units> found_;

  static typename texts::batches batches_of(
      const std::function<std::optional<any_batch>(ln::index)>& text) {
    return [text](ln::index i) {
      const std::optional<any_batch> b = text(i);
      return b ? std::get<batch>(*b) : batch{};
    };
  }
  static texts text_of(const calibration_plan& p) {
    return {
        batches_of(p.batch), batches_of(p.lesson), p.limits, p.batches, p.steps, p.windows, p.rate};
  }
  /// Rebuilds what load() read.
  void begin(const texts& text) {
    found_.clear();
    if constexpr (Before::changes) {
      texts heard = text;
      heard.found = &found_;
      become(take(Before::template of<S>(*weights_, heard)));
    } else {
      source_ = weights_;
    }
    current_ = false;
  }
  void become(ln::weights<source>&& w) {
    source_ = std::make_shared<const ln::weights<source>>(std::move(w));
    current_ = false;
  }
  void gather(const texts& text, ln::calibration<source> before = {}) {
    statistics_ = take(ln::calibrate(*source_, text.windows, text.limits, {.batches = text.count},
                                     std::move(before)));
    current_ = true;
  }
  const ln::calibration<source>& statistics(const texts& text) {
    if (!current_) gather(text);
    return statistics_;
  }

  /// A method with the share of weights that it prunes, where it does.
  template <class Method>
  static Method asked(Method method, const pruning& how) {
    if constexpr (requires { method.pattern; }) {
      method.fraction = how.fraction;
      method.pattern = {how.kept, how.of};
    }
    if constexpr (requires { method.scope; })
      if (how.by_rows) method.scope = ln::pruning_scope::row;
    return method;
  }
  void prune(std::string_view name, const pruning& how, const texts& text,
             const calibration_plan* p) {
    each_pruning([&]<class Row>(const Row& row) {
      if constexpr (Only.has(Row::name))
        if (Row::name.is(name)) {
          const auto method = asked(row.how, how);
          if constexpr (!std::remove_cvref_t<decltype(method)>::reads_inputs)
            become(take(ln::prune(*source_, method)));
          else if (p->in_blocks)
            become(take(ln::prune_in_blocks(*source_, text.windows, text.limits, method,
                                            {.batches = text.count})));
          else
            become(take(ln::prune(*source_, statistics(text), method)));
        }
    });
  }
  void scale(std::string_view name, const texts& text) {
    each_scaling([&]<class Row>(const Row& row) {
      if constexpr (Only.has(Row::name))
        if (Row::name.is(name)) {
          if constexpr (requires { ln::smooth(*source_, statistics(text), row.how); })
            become(take(ln::smooth(*source_, statistics(text), row.how)));
          else
            become(take(ln::smooth<S>(*source_, statistics(text), row.how)));
        }
    });
  }
  /// Trains what the steps before have made, by the logits of the model as it was. Zeros stay.
  void distil(const texts& text, const calibration_plan& p) {
    if constexpr (Only.has("distil")) {
      const auto teacher = packed_of(*weights_);
      auto lesson = take(
          ln::distillation<source, M>::open(*teacher, text.limits, {.alpha = 0, .temperature = 1}));
      ln::weights<source> w = source_->clone();
      auto train = take(ln::trainer<source>::open(
          w, text.limits,
          ln::adamw{.rate = ln::schedule::cosine(p.rate, std::max<ln::index>(1, p.steps / 20),
                                                 p.steps, p.rate / 100)},
          {.keep_zeros = true}));
      for (ln::index step = 0;; ++step) {
        batch b = text.lessons(step * text.each);
        if (step == p.steps || b.batch == 0) break;
        for (ln::index i = 1; i <= text.each; ++i) {
          (void)train.accumulate(b, lesson);
          if (i < text.each) b = text.lessons(step * text.each + i);
        }
        train.update();
        if (const auto why = train.last_refusal(); !why.empty())
          throw failure("distil: the trainer refuses a batch: " + std::string(why));
      }
      become(std::move(w));
    }
  }
  std::unique_ptr<stored_model> store(std::string_view name, const pruning& how,
                                      const ln::limits& l, const texts& text,
                                      const calibration_plan* p) {
    std::unique_ptr<stored_model> made;
    each_rounding([&]<class Row>(const Row& row) {
      using Method = std::remove_cvref_t<decltype(row.how)>;
      if constexpr (Only.has(Row::name) && compiles<Method, S> &&
                    (!trains_blocks<Method> || ln::detail::has_lone_blocks<source>))
        if (Row::name.is(name)) made = kept(rounded(asked(row.how, how), text, p), l);
    });
    if (!made)
      throw failure(std::string(name) +
                    (words_of(name).in_blocks
                         ? " trains block by block: blocks of one type and storage, shared by none"
                         : " does not give this storage"));
    dropped_ = ln::dropped_by<S>(*source_);
    return made;
  }

  static std::unique_ptr<stored_model> kept(ln::weights<deployed> w, const ln::limits& l) {
    return std::make_unique<stored_model_of<deployed>>(
        std::make_shared<const ln::weights<deployed>>(std::move(w)), l);
  }
  template <class Method>
  ln::weights<deployed> rounded(const Method& how, const texts& text, const calibration_plan* p) {
    if constexpr (trains_blocks<Method>) {
      Method each = how;
      each.batches = text.count;
      return take(ln::quantize_in_blocks<S, A>(*source_, text.windows, text.limits, each));
    } else if constexpr (!Method::reads_inputs) {
      return take(ln::quantize<S, A>(*source_, how));
    } else {
      if constexpr (ln::rounding_method<Method>)
        if (p->in_blocks)
          return take(ln::quantize_in_blocks<S, A>(*source_, text.windows, text.limits, how,
                                                   {.batches = text.count}));
      return take(ln::quantize<S, A>(*source_, statistics(text), how));
    }
  }
};

}  // namespace zoo

/// What a module of zoo compress exports: what makes its one kind of object, and the interface that
/// it is for.
#define ZOO_COMPRESSOR(...)                                                         \
  extern "C" int zoo_compressor_interface() { return ::zoo::compressor_interface; } \
  extern "C" ::zoo::compressor* zoo_compressor() { return new ::zoo::compressor_of<__VA_ARGS__>(); }
