// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Contrastive decoding: prefer tokens that an expert finds likelier than an amateur does (Li et
/// al. 2023).

#include <linnet/core/portable_math.hpp>
#include <linnet/generate/session.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of contrastive decoding.
struct contrast_options {
  double weight = 1;        ///< factor of log P_expert - log P_amateur, added to log P_expert
  double plausibility = 0;  ///< only tokens at least this times as likely as the expert's most
                            ///< likely one (Li et al. 2023: 0.1); 0 leaves all

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("weight", self.weight, detail::option_range{});
    f("plausibility", self.plausibility, detail::between(0, 1, "0 leaves all"));
  }
};

/// A logit hook for `with_logit_processors`: logits become log P_expert + weight (log P_expert -
/// log P_amateur), up to a constant. The amateur is another session that reads the same new tokens.
/// It may be a weaker model (Li et al. 2023). Or it is the same model without the context that
/// matters, or with another one (Wang et al. 2023, SCOTT). Two equal readings change nothing. It
/// allocates nothing. For one sequence; not for speculative decoding.
///
///     ln::contrast against(plain, {.plausibility = 0.1});
///     against.reset_and_prefill(question);
///     ln::with_logit_processors choose(ln::greedy{}, against);
///     expert.generate(context_and_question, choose, emit);
template <class M, class T = float>
class contrast {
  static_assert(session<M, T>::ids_per_token == 1,
                "linnet::contrast: this model's tokens consist of bytes; generate_bytes() runs it");
  static_assert(M::block_tokens == 1,
                "linnet::contrast: tokens of one block see each other, so an amateur does not read "
                "them one after the other");

 public:
  /// Contrasts with an amateur's session, which must outlive it. Errors: errc::invalid (an option
  /// out of its range, see docs/options.md).
  static result<contrast> open(session<M, T>& amateur,
                               const contrast_options& how = {}) LINNET_TRY {
    if (auto fit = detail::acceptable("contrast::open", "contrast_options", how); !fit)
      return fit.error();
    return contrast(amateur, how);
  }
  LINNET_OR_OUT_OF_MEMORY("contrast::open")
  /// Contrasts with an amateur's session, which must outlive it. With options out of their ranges
  /// reset_and_prefill() fails.
  explicit contrast(session<M, T>& amateur, const contrast_options& how = {})
      : amateur_(&amateur), how_(how) {}

  /// Gives the amateur its own prompt or source; call it before each text. False for tokens that do
  /// not fit; the expert's logits then stay as they are.
  bool reset_and_prefill(std::span<const token> tokens) {
    logits_ = {};
    if (!detail::in_range(how_)) {
      detail::refuse(*amateur_, refusal::options);
      return false;
    }
    logits_ = amateur_->reset_and_prefill(tokens);
    read_ = unknown;
    return !logits_.empty();
  }

  /// Changes the expert's logits after the tokens `so_far`. They stay as they are once the amateur
  /// has no more room.
  template <class X>
  void operator()(std::span<X> expert, std::span<const token> so_far) {
    const index count = std::ssize(so_far);
    if (read_ != unknown && count < read_) {
      logits_ = {};
      detail::refuse(*amateur_, refusal::not_started);
    }
    if (read_ != unknown && count > read_ && !logits_.empty())
      logits_ = amateur_->prefill(so_far.subspan(static_cast<std::size_t>(read_)));
    read_ = count;
    if (logits_.size() != expert.size()) return;
    const auto most = static_cast<double>(*std::max_element(expert.begin(), expert.end()));
    const double least =
        how_.plausibility > 0 ? most + detail::portable_log(how_.plausibility) : -1e300;
    for (std::size_t i = 0; i < expert.size(); ++i) {
      const auto e = static_cast<double>(expert[i]), a = static_cast<double>(logits_[i]);
      // Logits are log P up to a constant, which changes nothing. A difference of exactly
      // 0 keeps every tie and order.
      expert[i] = static_cast<X>(
          e < least && e < most ? -1e30 : e + detail::unfused(how_.weight * (e - a)));
    }
  }
  /// Why the last reset_and_prefill() failed, or why the expert's logits stay as they are: that of
  /// the amateur, see session::last_refusal().
  std::string_view last_refusal() const noexcept { return amateur_->last_refusal(); }

 private:
  static constexpr index unknown = -1;

  session<M, T>* amateur_;
  contrast_options how_;
  std::span<T> logits_{};
  index read_ = unknown;  ///< tokens of the expert that the amateur has read, or its prompt instead
};

LINNET_NAMESPACE_END
