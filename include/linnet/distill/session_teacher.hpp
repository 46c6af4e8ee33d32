// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A local model as a teacher: it writes through its session, several answers at a time.

#include <algorithm>
#include <cmath>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/distill/teacher.hpp>
#include <linnet/generate/contrast.hpp>
#include <linnet/generate/generate_batch.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/text/chatml.hpp>
#include <linnet/text/t5_ids.hpp>

LINNET_NAMESPACE_BEGIN

/// Options of session_teacher.
struct session_teacher_options {
  index tokens = 256;                           ///< most new ones of an answer
  sampling_options sampling{.temperature = 0};  ///< its seed is mixed with prompt and draw
  contrast_options contrast{};                  ///< of requests with `against`
  bool chat = false;                            ///< prompts are messages of a user in ChatML
  std::string system{};                         ///< message before them; "" for none
  std::vector<token> opening{}, stops{};        ///< before each prompt; that end an answer
  std::vector<std::string> stop_texts{};        ///< that end an answer, and are cut off

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("tokens", self.tokens, detail::count(1));
    f("sampling", self.sampling);
    f("contrast", self.contrast);
    f("chat", self.chat, detail::one_of(detail::false_or_true));
  }
};

/// A teacher that is a model here: packed weights of any type, and their tokenizer. An answer is a
/// function of its request and the options. Decoders answer limits.batch requests at a time. Of
/// models with coded weights a batch may change the last bits of logits, so there it counts, too.
template <class M, class T = float>
class session_teacher {
  static_assert(session<M, T>::ids_per_token == 1,
                "linnet::session_teacher: a model of tokens writes the answers");
  static_assert(M::block_tokens == 1,
                "linnet::session_teacher: tokens of one block see each other, so such a model does "
                "not write answers token by token");

 public:
  /// Opens a session. Weights and tokenizer must outlive it. Errors: those of session::open();
  /// errc::invalid for options out of range; errc::missing for a chat without ChatML's marks.
  static result<session_teacher> open(const packed<M, T>& p, const limits& l,
                                      const tokenizer& pieces,
                                      session_teacher_options how = {}) LINNET_TRY {
    if (auto fit = detail::acceptable(where, "session_teacher_options", how); !fit)
      return fit.error();
    auto run = session<M, T>::open(p, l);
    if (!run) return run.error();
    session_teacher made(p, std::move(*run), pieces, std::move(how));
    if (!made.how_.chat) return made;
    auto format = chatml::open(pieces);
    if (!format) return format.error();
    made.how_.stops.push_back(format->end());
    made.format_.emplace(*format);
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY(where)
  // Weights that would be gone before they are read.
  static result<session_teacher> open(const packed<M, T>&&, const limits&, const tokenizer&,
                                      session_teacher_options = {}) = delete;

  /// New tokens so far, of all answers.
  index written() const { return written_; }

  /// Answers each request. Errors: errc::invalid for a prompt that is empty, too long or of other
  /// tokens, and for logits without a maximum; errc::out_of_memory.
  result<std::vector<std::string>> generate(std::span<const teacher_request> all) LINNET_TRY {
    std::vector<std::string> texts;
    for (std::size_t i = 0; i < all.size();) {
      std::size_t n = 1;  // how many are answered together
      if constexpr (!M::encodes)
        while (all[i].against.empty() && i + n < all.size() && all[i + n].against.empty() &&
               static_cast<index>(n) < session_.planned().batch)
          ++n;
      auto some = answer(all.subspan(i, n));
      if (!some) return some;
      for (std::string& text : *some) texts.push_back(std::move(text));
      i += n;
    }
    return texts;
  }
  LINNET_OR_OUT_OF_MEMORY(where)

  /// Mean log-likelihood of a text behind a prompt. Errors: as above; errc::invalid for a text of
  /// no tokens.
  result<double> score(std::string_view prompt, std::string_view text) LINNET_TRY {
    const std::vector<token> before = ids_of(prompt), ids = pieces_->encode(text);
    if (ids.empty()) return detail::failure(errc::invalid, where, "text", "at least 1 token", "0");
    std::span<T> logits = session_.reset_and_prefill(before);
    double sum = 0;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      if (i > 0) logits = session_.feed({&ids[i - 1], 1});
      if (logits.empty()) return refused(prompt);
      const auto most = static_cast<double>(*std::max_element(logits.begin(), logits.end()));
      double mass = 0;
      for (const T x : logits) mass += std::exp(static_cast<double>(x) - most);
      sum += static_cast<double>(logits[static_cast<std::size_t>(ids[i])]) - most - std::log(mass);
    }
    return sum / static_cast<double>(ids.size());
  }
  LINNET_OR_OUT_OF_MEMORY(where)

 private:
  static constexpr const char* where = "session_teacher";
  /// An answer that is being written.
  struct writing {
    std::vector<token> ids;  ///< prompt and answer
    sampler draw;
    token previous = -1;
    std::string text{};
  };

  session_teacher(const packed<M, T>& p, session<M, T> run, const tokenizer& pieces,
                  session_teacher_options how)
      : packed_(&p), session_(std::move(run)), pieces_(&pieces), how_(std::move(how)) {
    order_.resize(static_cast<std::size_t>(M::vocabulary));
  }

  std::vector<token> ids_of(std::string_view prompt) const {
    std::vector<token> ids = how_.opening;
    if (!format_) {
      pieces_->encode(prompt, ids);
      if constexpr (requires(const typename M::batch& b) { b.target_length; })  // a T5's source
        ids.push_back(t5_ids::end);
      return ids;
    }
    if (!how_.system.empty()) format_->append(chatml::role::system, how_.system, ids);
    format_->append(chatml::role::user, prompt, ids);
    format_->append_opening(ids);
    return ids;
  }
  sampler sampler_of(const teacher_request& one) const {
    sampling_options s = how_.sampling;
    random_stream mixed(seed{s.seed ^ stream_of(one.prompt) ^ stream_of(one.against) * 3},
                        static_cast<std::uint64_t>(one.draw));
    const std::uint64_t high = mixed.bits();
    s.seed = high << 32 | mixed.bits();
    return sampler(s);
  }
  bool stops(token t) const {
    return std::find(how_.stops.begin(), how_.stops.end(), t) != how_.stops.end();
  }
  token choose(writing& one, std::span<T> logits) {
    const token t = one.draw(logits, std::span(order_), one.ids);
    if (t == no_token) spoilt_ = true;
    return t;
  }
  /// Adds a token to an answer; false where that ends it.
  bool add(writing& one, token t) {
    if (stops(t)) return false;
    ++written_;
    one.ids.push_back(t);
    const std::size_t old = one.text.size();
    one.text += pieces_->decode(std::exchange(one.previous, t), t);
    for (const std::string& stop : how_.stop_texts) {
      const std::size_t from = old - (std::min)(old, stop.size());
      if (const std::size_t at = one.text.find(stop, from); !stop.empty() && at != stop.npos) {
        one.text.resize(at);
        return false;
      }
    }
    return true;
  }
  linnet::error refused(std::string_view prompt) const {
    return detail::failure(errc::invalid, where, "prompt \"" + detail::printable(prompt) + '"',
                           "one that fits the limits and the model",
                           std::string(session_.last_refusal()));
  }

  result<std::vector<std::string>> answer(std::span<const teacher_request> some) {
    std::vector<writing> all;
    std::vector<std::vector<token>> prompts;
    for (const teacher_request& one : some) {
      prompts.push_back(ids_of(one.prompt));
      if (prompts.back().empty() || std::ssize(prompts.back()) > room())
        return detail::failure(
            errc::invalid, where, "prompt \"" + detail::printable(one.prompt) + '"',
            "1 to " + std::to_string(room()) + " tokens", std::to_string(prompts.back().size()));
      all.push_back({prompts.back(), sampler_of(one)});
    }
    spoilt_ = false;
    if (M::encodes || !some[0].against.empty()) {
      if (auto done = write_alone(some[0], prompts[0], all[0]); !done) return done.error();
    } else {
      const std::vector<std::span<const token>> views(prompts.begin(), prompts.end());
      const auto pick = [&](std::size_t i, std::span<T> logits) { return choose(all[i], logits); };
      const auto put = [&](std::size_t i, token t) { return add(all[i], t); };
      if (!generate_batch(session_, std::span(views), how_.tokens, pick, put))
        return refused(some[0].prompt);
    }
    if (spoilt_)
      return detail::failure(
          errc::invalid, where, "logits", "finite numbers",
          "none that is largest, behind \"" + detail::printable(some[0].prompt) + '"');
    std::vector<std::string> texts;
    for (writing& one : all) texts.push_back(std::move(one.text));
    return texts;
  }
  /// Most tokens of a prompt: some are left for the answer.
  index room() const {
    if constexpr (M::encodes)
      return session_.planned().source;
    else
      return session_.capacity();
  }
  result<void> write_alone(const teacher_request& one, std::span<const token> prompt, writing& to) {
    std::optional<contrast<M, T>> against;
    if (!one.against.empty()) {
      if (!amateur_) {
        auto run = session<M, T>::open(*packed_, session_.planned());
        if (!run) return run.error();
        amateur_.emplace(std::move(*run));
      }
      against.emplace(*amateur_, how_.contrast);
      if (!against->reset_and_prefill(ids_of(one.against))) return refused(one.against);
    }
    const auto pick = [&](std::span<T> logits, std::span<token>, std::span<const token> fed) {
      if (against) {  // ends where one of both would (Wang et al. 2023)
        if (const token plain = detail::most_likely(logits); stops(plain)) return plain;
        (*against)(logits, fed);
      }
      return choose(to, logits);
    };
    const generation_options most{.tokens = how_.tokens};
    if (session_.generate(
            prompt, pick, [&](token t) { return add(to, t); }, most) == 0 &&
        !spoilt_)
      return refused(one.prompt);
    return {};
  }

  const packed<M, T>* packed_;
  session<M, T> session_;
  std::optional<session<M, T>> amateur_{};  ///< opened by the first request with `against`
  const tokenizer* pieces_;
  session_teacher_options how_;
  std::optional<chatml> format_{};
  std::vector<token> order_{};  ///< for samplers
  index written_ = 0;
  bool spoilt_ = false;
};

LINNET_NAMESPACE_END
