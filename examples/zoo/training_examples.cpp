// SPDX-License-Identifier: MIT
#include "training_examples.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <linnet/data/denoiser_stream.hpp>
#include <linnet/data/denoising_stream.hpp>
#include <linnet/data/masking_stream.hpp>
#include <linnet/data/mixture.hpp>
#include <linnet/data/prefix_stream.hpp>
#include <linnet/data/window_stream.hpp>
#include <numbers>

#include "support.hpp"

namespace zoo {

namespace {

/// Tokens of one group, and the bytes of its held-out part.
struct tokens {
  std::string name;
  double weight;
  std::vector<ln::token> training, held_out;
  ln::index training_bytes = 0, held_out_bytes = 0;

  double bytes_per_token() const {
    return static_cast<double>(held_out_bytes) / static_cast<double>(held_out.size());
  }
};

std::vector<tokens> tokenized(const training_text& text, const tokenizing& by) {
  std::vector<tokens> all;
  for (std::size_t g = 0; g < text.groups.size(); ++g) {
    tokens t{text.groups[g].name, text.groups[g].weight, {}, {}};
    const auto read = [&](const std::vector<std::string_view>& parts, std::vector<ln::token>& to,
                          ln::index& bytes) {
      for (const std::string_view part : parts) {
        const std::vector<ln::token> ids = by.encode(part);
        to.insert(to.end(), ids.begin(), ids.end());
        bytes += std::ssize(part);
      }
    };
    read(text.training(g), t.training, t.training_bytes);
    read(text.held_out(g), t.held_out, t.held_out_bytes);
    all.push_back(std::move(t));
  }
  return all;
}

/// Refuses a text that is shorter than an example.
void check_long_enough(const std::vector<tokens>& all, ln::index needed) {
  for (const tokens& t : all)
    if (const ln::index n = std::min(std::ssize(t.training), std::ssize(t.held_out)); n < needed)
      throw failure(
          fmt::format("{}: too short: {} tokens, a tenth of them held out, but an example "
                      "has {}; give more text or a smaller --length",
                      t.name, std::ssize(t.training) + std::ssize(t.held_out), needed));
}

ln::mixture mixture_of(const std::vector<tokens>& all, std::uint64_t seed) {
  std::vector<ln::index> sizes;
  for (const tokens& t : all) sizes.push_back(std::ssize(t.training));
  std::vector<double> weights = ln::mixing_weights(sizes, 1);
  for (std::size_t k = 0; k < all.size(); ++k)
    if (all[k].weight > 0) weights[k] = all[k].weight;
  return take(ln::mixture::open(weights, ln::seed{seed}));
}

/// Examples of mixed texts from a stream of any kind, and from one of what is held out.
template <class Stream>
class mixed_examples : public examples {
 public:
  any_batch batch(std::uint64_t first) final { return training_.batch(first); }
  any_batch first_held_out() final {
    auto one = held_out_.in_order(0);
    one.batch = 1;
    return one;
  }
  text_score held_out(trainee& model, std::size_t group, ln::index most) final {
    const auto k = static_cast<ln::index>(group);
    const ln::index windows = held_out_.epoch(k),
                    calls = (std::min(most, windows) + batch_ - 1) / batch_;
    text_score s;
    for (ln::index i = 0; i < calls; ++i) {
      const auto some =
          held_out_.in_order(calls * batch_ >= windows ? i * batch_ : i * windows / calls, k);
      s += {model.loss(some).nats,
            static_cast<double>(labels_of_text(some)) * all_[group].bytes_per_token()};
    }
    return s;
  }

 protected:
  using batch_type = decltype(std::declval<Stream&>().batch(0));

  /// `open(sources, mixture, seed, learned)` makes a stream, `learned` or held out; `ids` are the
  /// vocabulary's.
  template <class Open>
  mixed_examples(std::vector<tokens> all, const ln::t5_ids& ids, ln::index batch,
                 std::uint64_t seed, Open&& open)
      : all_(std::move(all)),
        batch_(batch),
        training_(opened(&tokens::training, ids, seed, open)),
        held_out_(opened(&tokens::held_out, ids, 0, open)) {
    double bytes = 0, count = 0;
    for (const tokens& t : all_) {
      bytes += static_cast<double>(t.training_bytes);
      count += static_cast<double>(t.training.size());
    }
    bytes_per_label = bytes / count;
  }
  /// Number of labels that are text.
  virtual ln::index labels_of_text(const batch_type& b) const = 0;
  /// Labels that are no text, of which the loss has a share, have no bytes. Their share is that of
  /// some examples; `size(batch)` is the number of labels and of what is ignored.
  template <class Size>
  void share_bytes(Size&& size) {
    double text = 0, counted = 0;
    for (ln::index i = 0; i < 64; i += batch_) {
      const batch_type b = training_.batch(static_cast<std::uint64_t>(i));
      const ln::index labels = size(b);
      text += static_cast<double>(labels_of_text(b));
      counted += static_cast<double>(labels - std::count(b.labels, b.labels + labels, ln::ignored));
    }
    bytes_per_label *= text / counted;
  }

  std::vector<tokens> all_;
  ln::index batch_;
  Stream training_, held_out_;

 private:
  template <class Open>
  Stream opened(std::vector<ln::token> tokens::*part, const ln::t5_ids& ids, std::uint64_t seed,
                Open&& open) const {
    std::vector<ln::token_source> sources;
    for (const tokens& t : all_) sources.emplace_back(t.*part, ids);
    return take(open(std::move(sources), mixture_of(all_, seed), ln::seed{seed},
                     part == &tokens::training));
  }
};

/// Rows of a decoder. `ids` are those of a vocabulary with gaps, or none.
template <class Stream>
class row_examples final : public mixed_examples<Stream> {
 public:
  template <class Open>
  row_examples(std::vector<tokens> all, const ln::t5_ids& ids, const example_sizes& l,
               std::uint64_t seed, Open&& open)
      : mixed_examples<Stream>(std::move(all), ids, l.batch, seed, std::forward<Open>(open)),
        ids_(ids) {
    length_ = this->training_.batch(0).length;
    if (ids.sentinels == 0) {
      const auto& first = this->all_[0].held_out;
      this->prompt.assign(first.begin(), first.begin() + std::min<ln::index>(length_ / 4 + 1, 24));
      return;
    }
    this->share_bytes([](const ln::decoder_batch& b) { return b.batch * b.length; });
    const ln::decoder_batch row = this->held_out_.in_order(0);
    const auto gap = std::find_if(row.labels, row.labels + row.length,
                                  [](ln::token id) { return id != ln::ignored; });
    this->prompt.assign(row.tokens, row.tokens + (gap - row.labels) + 1);
  }
  ln::index source() const override { return 0; }
  ln::index target() const override { return length_; }

 private:
  ln::t5_ids ids_;
  ln::index length_;

  ln::index labels_of_text(const ln::decoder_batch& b) const override {
    return std::count_if(b.labels, b.labels + b.batch * b.length, [&](ln::token id) {
      return ids_.sentinels == 0 ? id != ln::ignored
                                 : id > ln::t5_ids::end && !ids_.is_sentinel(id);
    });
  }
};

/// Sources with gaps, and targets that fill them.
template <class Stream>
class denoised_examples final : public mixed_examples<Stream> {
 public:
  template <class Open>
  denoised_examples(std::vector<tokens> all, const ln::t5_ids& ids, const example_sizes& l,
                    std::uint64_t seed, Open&& open)
      : mixed_examples<Stream>(std::move(all), ids, l.batch, seed, std::forward<Open>(open)),
        ids_(ids) {
    this->share_bytes([](const ln::t5_batch& b) { return b.batch * b.target_length; });
    const ln::t5_batch first = this->held_out_.in_order(0);
    this->prompt.assign(first.source, first.source + first.source_lengths[0]);
  }
  ln::index source() const override { return this->training_.planned().source; }
  ln::index target() const override { return this->training_.planned().target; }

 private:
  ln::t5_ids ids_;

  ln::index labels_of_text(const ln::t5_batch& b) const override {
    return std::count_if(b.labels, b.labels + b.batch * b.target_length, [&](ln::token id) {
      return id > ln::t5_ids::end && !ids_.is_sentinel(id);
    });
  }
};

/// Rows of an encoder, some of whose tokens are masked.
class masked_examples final : public mixed_examples<ln::masking_stream<>> {
 public:
  masked_examples(std::vector<tokens> all, const ln::bert_ids& marks, const example_sizes& l,
                  std::uint64_t seed)
      : mixed_examples(std::move(all), {.vocabulary = 0, .sentinels = 0}, l.batch, seed,
                       [&](auto sources, auto mix, ln::seed key, bool) {
                         return ln::masking_stream<>::open(std::move(sources), std::move(mix), {},
                                                           marks, l.batch, l.length, key);
                       }),
        length_(l.length) {}
  ln::index source() const override { return 0; }
  ln::index target() const override { return length_; }

 private:
  ln::index length_;

  ln::index labels_of_text(const ln::encoder_batch& b) const override {
    return std::count_if(b.labels, b.labels + b.batch * b.length,
                         [](ln::token id) { return id != ln::ignored; });
  }
};

/// The denoisers of an objective.
std::vector<ln::denoiser> denoisers_of(objective what) {
  switch (what) {
    case objective::ul2:
      return {ln::ul2_denoisers.begin(), ln::ul2_denoisers.end()};
    case objective::ul2r:
      return {ln::ul2r_denoisers.begin(), ln::ul2r_denoisers.end()};
    case objective::prefix:
      return {{.mode = ln::denoiser_mode::sequential, .how = {.density = 0.5}}};
    case objective::independent:
      return {{.how = {.mask = ln::masking::independent}}};
    case objective::next_token:
    case objective::fim:
    case objective::spans:
    case objective::masked:
      break;
  }
  return {{}};
}

/// The longest window whose examples have at most `l.length` tokens.
ln::index window_of(const std::vector<ln::denoiser>& denoisers, const lesson_plan& plan,
                    const example_sizes& l) {
  const auto needs = [&](ln::index window) {
    ln::index most = 0;
    for (const ln::denoiser& d : denoisers) {
      const ln::denoised_lengths n = d.lengths(window);
      const ln::index row =
          d.mode == ln::denoiser_mode::sequential ? window + 2 : n.source + n.target - 2;
      most = std::max(most, (plan.modes.of(d.mode) >= 0) + (l.encodes ? n.source : row));
    }
    return most;
  };
  ln::index window = l.length;
  while (window >= 2 && needs(window) > l.length) --window;
  if (window < 2)
    throw failure(
        fmt::format("--length: {} tokens have no room for a text with gaps; this "
                    "objective needs at least {}",
                    l.length, needs(2)));
  return window;
}

/// Rows or pairs by a mixture of denoisers.
template <class Batch>
auto denoisers_to(const lesson_plan& plan, const example_sizes& l) {
  const std::vector<ln::denoiser> all = denoisers_of(plan.what);
  const ln::denoiser_limits limits{
      .batch = l.batch, .length = window_of(all, plan, l), .prefixes = false};
  return [=, modes = plan.modes](auto sources, auto mix, ln::seed key, bool) {
    return ln::denoiser_stream<Batch, ln::token_source>::open(std::move(sources), std::move(mix),
                                                              all, modes, limits, key);
  };
}

/// Texts in pieces of half a window, so that each window has a whole one, with their middles moved.
/// What is held out stays as it is.
auto middles_to(const lesson_plan& plan, const example_sizes& l) {
  return [=, ids = plan.middles](auto sources, auto mix, ln::seed key, bool learned) {
    using source = ln::middle_source<ln::token_source>;
    using stream = ln::window_stream<source>;
    const ln::index piece = std::max<ln::index>(1, l.length / 2 - 3);
    std::vector<source> moved;
    for (ln::token_source& text : sources) {
      std::vector<ln::index> starts;
      for (ln::index at = 0; at < text.size(); at += piece) starts.push_back(at);
      const ln::seed own{key.value + moved.size()};
      auto one = source::open(std::move(text), starts, {.rate = learned ? 0.5 : 0}, ids, own);
      if (!one) return ln::result<stream>(one.error());
      moved.push_back(*std::move(one));
    }
    return stream::open(std::move(moved), std::move(mix), l.batch, l.length, key);
  };
}

}  // namespace

double text_score::bits() const { return nats / bytes / std::numbers::ln2; }

std::unique_ptr<examples> open_examples(const training_text& text, const tokenizing& by,
                                        const lesson_plan& plan, const example_sizes& l,
                                        std::uint64_t seed) {
  std::vector<tokens> all = tokenized(text, by);
  check_long_enough(all, l.length + 1);
  if (plan.what == objective::masked)
    return std::make_unique<masked_examples>(std::move(all), plan.marks, l, seed);
  const auto make = [&]<class Examples>(std::type_identity<Examples>, const ln::t5_ids& ids,
                                        auto&& open) -> std::unique_ptr<examples> {
    return std::make_unique<Examples>(std::move(all), ids, l, seed, open);
  };
  constexpr ln::t5_ids no_ids{.vocabulary = 0, .sentinels = 0};
  if (l.encodes && plan.what == objective::spans)
    return make(std::type_identity<denoised_examples<ln::denoising_stream<ln::token_source>>>(),
                by.t5, [&](auto sources, auto mix, ln::seed key, bool) {
                  return ln::denoising_stream<ln::token_source>::open(
                      std::move(sources), std::move(mix), {},
                      {.batch = l.batch, .source = l.length}, key);
                });
  if (l.encodes)
    return make(std::type_identity<
                    denoised_examples<ln::denoiser_stream<ln::t5_batch, ln::token_source>>>(),
                by.t5, denoisers_to<ln::t5_batch>(plan, l));
  if (denoises(plan.what))
    return make(std::type_identity<
                    row_examples<ln::denoiser_stream<ln::decoder_batch, ln::token_source>>>(),
                by.t5, denoisers_to<ln::decoder_batch>(plan, l));
  if (plan.what == objective::prefix)
    return make(std::type_identity<row_examples<ln::prefix_stream<>>>(), no_ids,
                [&](auto sources, auto mix, ln::seed key, bool) {
                  return ln::prefix_stream<>::open(std::move(sources), std::move(mix),
                                                   {.prefixes = false}, l.batch, l.length, key);
                });
  if (plan.what == objective::fim)
    return make(
        std::type_identity<row_examples<ln::window_stream<ln::middle_source<ln::token_source>>>>(),
        no_ids, middles_to(plan, l));
  return make(std::type_identity<row_examples<ln::window_stream<>>>(), no_ids,
              [&](auto sources, auto mix, ln::seed key, bool) {
                return ln::window_stream<>::open(std::move(sources), std::move(mix), l.batch,
                                                 l.length, key);
              });
}

}  // namespace zoo
