// SPDX-License-Identifier: MIT
#pragma once
// The one implementation of `running`, for any model type.

#include <linnet/generate/beam_search.hpp>

#include "running.hpp"
#include "support/basics.hpp"

namespace zoo {

using support::failure, support::take;

template <class M>
class running_of final : public running {
  static constexpr bool t5 = M::encodes;

 public:
  /// Gives a sequence of a session its adapter; it keeps what that needs.
  using giver = std::function<bool(ln::session<M>&, ln::index)>;

  running_of(std::shared_ptr<const ln::packed<M>> weights, const ln::limits& l, giver adapter = {})
      : weights_(std::move(weights)),
        adapter_(std::move(adapter)),
        session_(take(ln::session<M>::open(*weights_, l))) {
    for (ln::index b = 0; adapter_ && b < l.batch; ++b)
      if (!adapter_(session_, b)) give_up(*this);
  }

  bool encodes() const override { return t5; }
  ln::index vocabulary() const override { return M::vocabulary; }
  void encode(std::span<const ln::token> source) override {
    if constexpr (t5)
      if (!session_.encode(source)) give_up(*this);
  }
  const ln::limits& planned() const override { return session_.planned(); }
  ln::index capacity() const override { return session_.capacity(); }
  ln::index chunk() const override { return session_.chunk(); }
  void reset() override { session_.reset(); }
  std::span<float> prefill(std::span<const ln::token> tokens) override {
    return session_.prefill(tokens);
  }
  std::span<float> feed(std::span<const ln::token> tokens, ln::index batch,
                        std::span<const ln::index> lengths) override {
    return session_.feed(tokens, batch, lengths);
  }
  std::span<float> feed_all(std::span<const ln::token> tokens, ln::index batch,
                            std::span<const ln::index> lengths) override {
    return session_.feed_all(tokens, batch, lengths);
  }
  bool fork(ln::index from, ln::index to) override { return session_.fork(from, to); }
  std::string_view last_refusal() const override { return session_.last_refusal(); }
  std::unique_ptr<running> another() const override {
    return std::make_unique<running_of>(weights_, session_.planned(), adapter_);
  }
  std::vector<ln::token> search(std::span<const ln::token> tokens, const ln::beam_options& how,
                                const ln::generation_options& g) override {
    auto beam = take(ln::beam_search<M>::open(session_, how));
    const auto found = beam(tokens, g);
    if (found.empty()) give_up(*this);
    return {found[0].tokens.begin(), found[0].tokens.end()};
  }

 private:
  std::shared_ptr<const ln::packed<M>> weights_;
  giver adapter_;
  ln::session<M> session_;
};

/// The packed form of weights; refuses when memory ran out.
template <class M>
std::shared_ptr<const ln::packed<M>> packed_of(const ln::weights<M>& w) {
  auto packed = std::make_shared<const ln::packed<M>>(ln::pack(w));
  if (!packed->valid()) throw failure("not enough memory for the weights");
  return packed;
}

}  // namespace zoo
