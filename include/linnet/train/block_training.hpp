// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Quantized blocks of a model that are trained one after the other, so that each gives what the
/// full-precision one gives.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <linnet/compress/quantize_by.hpp>
#include <linnet/train/block_model.hpp>

LINNET_NAMESPACE_BEGIN

/// Losses of one block that was trained: mean squared differences between its outputs and those of
/// the block in full precision.
struct block_loss {
  double nearest = 0;  ///< rounded to nearest
  double start = 0;    ///< as training began
  double kept = 0;     ///< of what was kept, never above the two others
};

namespace detail {

/// A batch whose tokens are in the streams: its sizes, and lengths, prefixes or documents of its
/// own.
template <class M>
struct kept_batch {
  typename M::batch batch{};
  std::vector<index> numbers{}, starts{};
  index first = 0;  ///< row of the streams

  kept_batch(const typename M::batch& b, index row) : batch(b), first(row) {
    const auto keep = [](const index*& of, index n, std::vector<index>& kept) {
      if (!of) return;
      kept.assign(of, of + n);
      of = kept.data();
    };
    if constexpr (requires { b.lengths; }) keep(batch.lengths, b.batch, numbers);
    if constexpr (requires { b.prefixes; }) keep(batch.prefixes, b.batch, numbers);
    if constexpr (requires { b.documents; }) keep(batch.documents, b.batch * b.length, starts);
  }
  kept_batch(kept_batch&&) noexcept = default;
  index rows() const { return batch.batch * batch.length; }
  /// Whether a row is none of padding.
  bool counts(index row) const {
    if constexpr (requires { batch.lengths; })
      return !batch.lengths || row % batch.length < batch.lengths[row / batch.length];
    return true;
  }
};

/// Reads the batches once, so that their memory is known. Errors: errc::invalid.
template <class M, class Batches>
result<std::vector<kept_batch<M>>> read_batches(Batches& batches, const limits& l, index most) {
  std::vector<kept_batch<M>> kept;
  index rows = 0;
  for (index i = 0; i < most; ++i) {
    const typename M::batch b = batches(i);
    if (b.batch == 0) break;
    if (auto fit = check_batch("quantize", i, in_training<M>(b, refusal_of_text<M>(b, l))); !fit)
      return fit.error();
    kept.emplace_back(b, rows);
    rows += kept.back().rows();
  }
  if (kept.empty())
    return error{errc::invalid, "quantize", "batches", "at least one with tokens", "none"};
  return kept;
}

/// The streams between the blocks of model `M`, in full precision and behind quantized blocks, and
/// one block of storage `S` to train.
template <class M, class S>
class block_trial {
  using body = typename body_of<M>::type;
  using layer = typename block_of_stack<typename body::blocks>::type;
  using fake = typename faked_storage<S>::type;
  static constexpr index d = layer::in;

 public:
  using exact = block_model<layer>;
  using deployed = block_model<layer, S>;

  /// Bytes of the streams of so many rows, and of the buffers.
  static constexpr index bytes(const limits& l, index rows) {
    const planner m = planned(l, rows);
    return add_sizes(add_sizes(m.state.peak(), m.saved.peak()),
                     add_sizes(m.scratch.peak(), round_up(m.converted, alignment)));
  }
  /// Bytes of a block in all its forms.
  static constexpr index block_bytes() {
    return 2 * weights<exact>::bytes() + gradients<exact>::bytes() + packed<exact>::bytes() +
           packed<exact, float, fake>::bytes() + weights<deployed>::bytes();
  }

  block_trial(const limits& l, std::vector<kept_batch<M>>&& batches)
      : batches_(std::move(batches)),
        limits_(l),
        rows_(batches_.back().first + batches_.back().rows()),
        memory_(bytes(l, rows_)) {
    for (const auto& one : batches_)
      for (index i = 0; i < one.rows(); ++i) counted_ += one.counts(i);
    if (!valid()) return;
    const planner sizes = planned(l, rows_);
    auto* at = static_cast<std::byte*>(memory_.data());
    planner m = planner_for<fake>();
    m.state = arena(at, sizes.state.peak());
    m.saved = arena(at += sizes.state.peak(), sizes.saved.peak());
    m.scratch = arena(at += sizes.saved.peak(), sizes.scratch.peak());
    converted_ = at + sizes.scratch.peak();
    buffers_ = plan(m, l, rows_);
    body::positional::prepare(buffers_.positions, M::longest(l));
    attach_rows<exact>(numbers_, fake_);
  }
  bool valid() const {
    return memory_.data() && master.valid() && numbers_.valid() && gradients_.valid() &&
           exact_.valid() && fake_.valid() && best.valid();
  }

  index batches() const { return std::ssize(batches_); }

  /// Fills one of the streams with what the first block reads in packed weights `p`. Errors:
  /// errc::invalid for batches that are others than before; errc::out_of_memory.
  template <class W, class Batches>
  result<void> embed(const packed<W>& p, Batches& batches, bool quantized) {
    constexpr purpose use = headless<M> ? purpose::decoding : purpose::scoring;
    const memory_block memory(plan_for<W, float>(limits_, use).total());
    if (!p.valid()) return p.error();
    if (!memory.data()) return out_of_memory("quantize", plan_for<W, float>(limits_, use).total());
    auto work = place_workspace<W, float>(limits_, use, memory.data());
    using Body = typename body_of<W>::type;
    for (index i = 0; i < std::ssize(batches_); ++i) {
      const auto& kept = batches_[static_cast<std::size_t>(i)];
      const typename M::batch b = batches(i);
      if (b.batch != kept.batch.batch || b.length != kept.batch.length)
        return error{errc::invalid, "quantize", "batch " + std::to_string(i),
                     "the same one in each call", "one of another size"};
      run(limits_, work.converted, [&](const ops::execution& on) {
        context<float> ctx = Body::template context_of<float>(b, on);
        Body::template embed<float, storage_of<W, float>>(p.tree(), b, work.work, ctx);
        ops::copy(on, kept.rows() * d, static_cast<const float*>(work.work.embedded),
                  (quantized ? buffers_.read : buffers_.exact) + kept.first * d);
      });
    }
    return {};
  }

  /// Takes up the next block: its weights, and its codes rounded to nearest.
  template <class Weights, class Codes>
  void load(index number, const Weights& w, const Codes& rounded) {
    block_ = number;
    const auto copy = [](const parameter_path&, const tensor_info& info, auto& to,
                         const auto& from) { copy_stored(info, from, to); };
    layer::visit(copy, parameter_path{}, master.tree(), w);
    layer::visit(copy, parameter_path{}, best.tree(), rounded);
    run(limits_, converted_, [&](const ops::execution& on) {
      pack_tree<exact>(on, master, exact_);
      for (const auto& one : batches_)
        forward<storage::f32>(on, exact_.tree(), one, buffers_.exact, buffers_.wanted);
    });
  }
  /// Trains the block by `by` for so many epochs, a step for each batch. It reads what quantized
  /// blocks before it give, or what those in full precision give. `best` has the codes with the
  /// least loss.
  template <class Trainer>
  block_loss train(Trainer& by, index epochs, bool reads_quantized) {
    block_loss loss;
    const float* const read = reads_quantized ? buffers_.read : buffers_.exact;
    run(limits_, converted_, [&](const ops::execution& on) {
      pack_codes<layer>(on, best.tree(), fake_.tree());
      const double nearest = evaluate(on, read);
      double start = nearest, least = nearest;
      by.start(on, master, epochs * std::ssize(batches_));
      for (index epoch = 0, step = 0;; ++epoch) {
        by.pack(on, master, fake_);
        const double now = evaluate(on, read);
        if (epoch == 0) start = now;
        if (now < least)
          on.threads.once([&] {
            __builtin_memcpy(best.data(), by.codes().data(),
                             static_cast<std::size_t>(best.bytes()));
          });
        if (!is_finite(now) || now < least) least = now;
        if (epoch == epochs || !is_finite(now)) break;
        for (const auto& one : batches_) {
          find_gradients(on, one, read);
          by.step(on, ++step, master, gradients_);
          by.pack(on, master, fake_);
        }
      }
      on.threads.once([&] { loss = {nearest, start, least}; });
    });
    return loss;
  }
  /// Goes on behind the block with the codes `best`.
  void pass() {
    run(limits_, converted_, [&](const ops::execution& on) {
      pack_codes<layer>(on, best.tree(), fake_.tree());
      for (const auto& one : batches_)
        forward<fake>(on, fake_.tree(), one, buffers_.read, buffers_.read);
    });
    std::swap(buffers_.exact, buffers_.wanted);
  }

  weights<exact> master;   ///< the block in full precision, which training may change
  weights<deployed> best;  ///< its codes

 private:
  struct placed {
    typename layer::template cache<float> cache{};
    typename body::positional::template cache<float> positions{};
    float *exact = nullptr, *read = nullptr, *wanted = nullptr;  ///< [rows, d] of all batches
    float *y = nullptr, *dy = nullptr, *dx = nullptr;            ///< [rows, d] of one
    double* losses = nullptr;                                    ///< [rows]
  };
  static constexpr placed plan(planner& m, const limits& l, index rows) {
    const call_shape e = call_shape_for(l, purpose::training, M::longest(l));
    placed p;
    for (float** one : {&p.exact, &p.read, &p.wanted}) *one = m.state.take<float>(rows * d);
    for (float** one : {&p.y, &p.dy, &p.dx}) *one = m.saved.take<float>(e.rows() * d);
    p.losses = m.saved.take<double>(e.rows());
    p.positions = body::positional::template plan<float>(m, e, M::longest(l));
    p.cache = layer::template plan<float>(m, e);
    return p;
  }
  static constexpr planner planned(const limits& l, index rows) {
    planner m = planner_for<fake>();
    (void)plan(m, l, rows);
    return m;
  }

  context<float> context_of(const ops::execution& on, const kept_batch<M>& one) {
    context<float> ctx = body::template context_of<float>(one.batch, on);
    ctx.stack.layer = block_;
    body::positional::angles(buffers_.positions, ctx);
    return ctx;
  }
  /// to = the block of `from`, streams of all batches; they may be the same.
  template <class Stored, class P>
  void forward(const ops::execution& on, const P& p, const kept_batch<M>& one, const float* from,
               float* to) {
    context<float> ctx = context_of(on, one);
    const index rows = one.rows(), at = one.first * d;
    layer::template forward<float, Stored>(p, {from + at, rows}, {buffers_.y, rows}, buffers_.cache,
                                           ctx);
    ops::copy(on, rows * d, static_cast<const float*>(buffers_.y), to + at);
  }
  /// Squared differences of the outputs y of a batch from those wanted, summed up; with `dy` also
  /// the derivative of their mean.
  double compare(const ops::execution& on, const kept_batch<M>& one, float* dy) {
    const float* const wanted = buffers_.wanted + one.first * d;
    index counted = 0;
    for (index i = 0; i < one.rows(); ++i) counted += one.counts(i);
    const double share = 2 / static_cast<double>(counted * d);
    on.threads.each(one.rows(), [&](index i) {
      double sum = 0;
      for (index j = i * d; j < (i + 1) * d; ++j) {
        const double off =
            one.counts(i) ? static_cast<double>(buffers_.y[j]) - static_cast<double>(wanted[j]) : 0;
        sum += off * off;
        if (dy) dy[j] = static_cast<float>(share * off);
      }
      buffers_.losses[i] = sum;
    });
    double sum = 0;
    for (index i = 0; i < one.rows(); ++i) sum += buffers_.losses[i];
    on.threads.wait();
    return sum;
  }
  /// Mean squared difference over all batches, the same on each thread.
  double evaluate(const ops::execution& on, const float* read) {
    double sum = 0;
    for (const auto& one : batches_) {
      context<float> ctx = context_of(on, one);
      layer::template forward<float, fake>(fake_.tree(), {read + one.first * d, one.rows()},
                                           {buffers_.y, one.rows()}, buffers_.cache, ctx);
      sum += compare(on, one, nullptr);
    }
    return sum / static_cast<double>(counted_ * d);
  }
  /// Gradients of the loss on one batch by the numbers of the block.
  void find_gradients(const ops::execution& on, const kept_batch<M>& one, const float* read) {
    context<float> ctx = context_of(on, one);
    const index rows = one.rows();
    const view<const float, d> x(read + one.first * d, rows);
    layer::template forward<float, fake>(fake_.tree(), x, {buffers_.y, rows}, buffers_.cache, ctx);
    (void)compare(on, one, buffers_.dy);
    ops::fill(on, rows * d, 0.0f, buffers_.dx);
    ops::fill(on, gradients<exact>::bytes() / static_cast<index>(sizeof(float)), 0.0f,
              static_cast<float*>(gradients_.data()));
    layer::template backward<float, fake>(fake_.tree(), gradients_.tree(), x, {buffers_.dy, rows},
                                          {buffers_.dx, rows}, buffers_.cache, ctx);
  }

  std::vector<kept_batch<M>> batches_;
  limits limits_;
  index rows_ = 0, counted_ = 0, block_ = 0;
  memory_block memory_;
  void* converted_ = nullptr;
  placed buffers_{};
  weights<exact> numbers_;
  gradients<exact> gradients_;
  packed<exact> exact_;
  packed<exact, float, fake> fake_;
};

/// True, or words for a model, or a storage `S` of it, whose blocks cannot be trained alone.
template <class M, class S>
consteval bool check_block_training() {
  constexpr bool lone = has_lone_blocks<M>, alike = !by_layer<S>;
  static_assert(lone,
                "linnet::quantize_in_blocks: this method trains block by block; it goes with "
                "decoders and encoders whose blocks are of one type and share nothing. Give "
                "another model a method that rounds each matrix alone, such as gptq");
  static_assert(std::is_same_v<typename M::storage, storage::f32>,
                "linnet::quantize_in_blocks: the source must be stored in f32");
  static_assert(alike,
                "linnet::quantize_in_blocks: this method trains blocks of one storage; with "
                "storage::layers take a method that rounds each matrix alone, such as gptq");
  return lone && alike;
}

}  // namespace detail

/// Bytes that quantize_in_blocks() takes beside its result by a method that trains, such as
/// zeroquant, at most. `batches` is the number of batches, each of the largest size. Most of it are
/// the streams between blocks, or the packed model that tokens are looked up in.
template <class S, class M, class Method, class A = compute::f32>
index block_training_bytes(const limits& l, index batches) {
  using Q = quantized<M, S, A>;
  using trial = detail::block_trial<M, typename Q::storage>;
  constexpr purpose use = detail::headless<M> ? purpose::decoding : purpose::scoring;
  const index rows = batches * l.batch * M::longest(l), packs = packed<M>::bytes(),
              looking = (std::max)(packs + detail::plan_for<M, float>(l, use).total(),
                                   packed<Q>::bytes() + detail::plan_for<Q, float>(l, use).total());
  return add_sizes(add_sizes(trial::bytes(l, rows), looking),
                   trial::block_bytes() + Method::template trainer<trial>::bytes());
}

namespace detail {

/// Rounds `w` to nearest, then trains its blocks by a method, one after the other.
template <class S, class A, class M, class Batches, class Method>
result<weights<quantized<M, S, A>>> train_in_blocks(const weights<M>& w, Batches& batches,
                                                    const limits& l, const Method& how) LINNET_TRY {
  using Q = quantized<M, S, A>;
  using trial_type = block_trial<M, typename Q::storage>;
  using trainer = typename Method::template trainer<trial_type>;
  static_assert(ops::trainable<typename faked_storage<typename Q::storage>::type>);
  if (auto fit = acceptable("quantize", Method::name, how); !fit) return fit.error();
  const index one = bounded_bytes(
      l, [](const limits& some) { return block_training_bytes<S, M, Method, A>(some, 1); });
  if (auto fit = acceptable<M>("quantize", l, one); !fit) return fit.error();
  if (auto fit = check_finite(w, "quantize"); !fit) return fit.error();
  auto kept = read_batches<M>(batches, l, how.batches);
  if (!kept) return kept.error();
  auto rounded = quantize<S, A>(w);
  if (!rounded.valid()) return rounded.error();
  trial_type trial(l, std::move(*kept));
  trainer by(how);
  if (!trial.valid() || !by.valid())
    return out_of_memory("quantize", block_training_bytes<S, M, Method, A>(l, trial.batches()));
  if constexpr (requires { by.fits(how); })
    if (auto fit = by.fits(how); !fit) return fit.error();
  if (auto done = trial.embed(linnet::pack(w), batches, false); !done) return done.error();
  if (auto done = trial.embed(linnet::pack(rounded), batches, true); !done) return done.error();
  index number = 0;
  for (auto& block : rounded.tree().stack.items) {
    trial.load(number, w.tree().stack.items[number], block);
    const block_loss loss = trial.train(by, how.epochs, how.reads_quantized);
    if (!is_finite(loss.start) || !is_finite(loss.kept))
      return error{errc::invalid, "quantize",
                   "the loss of block " + std::to_string(number) + " by " + Method::name,
                   "a finite number, as with a smaller rate", "another"};
    if (how.report) how.report->push_back(loss);
    block_of_stack<typename body_of<M>::type::blocks>::type::visit(
        [](const parameter_path&, const tensor_info& info, auto& to, const auto& from) {
          copy_stored(info, from, to);
        },
        parameter_path{}, block, trial.best.tree());
    trial.pass();
    ++number;
  }
  return if_held<S>(std::move(rounded), "quantize");
}
LINNET_OR_OUT_OF_MEMORY("quantize")

}  // namespace detail

LINNET_NAMESPACE_END
