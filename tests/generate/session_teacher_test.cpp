// SPDX-License-Identifier: MIT
// A local model as a teacher: its answers are those of its session, alone or together.

#include <linnet/generated_data.hpp>

#include "support/data.hpp"
#include "support/decoding.hpp"

namespace test::session_teacher_test {

namespace {

using request = ln::teacher_request;
using strings = std::vector<std::string>;

constexpr ln::decoder_shape eight_tokens = [] {
  ln::decoder_shape s = four_tokens;
  s.vocabulary = 8;
  return s;
}();
using decoder = ln::decoder<eight_tokens>;
using encoder_decoder = ln::t5<four_tokens_t5>;

constexpr std::string_view letters = "abcdef";

/// The letters a to f, and ChatML's marks if wanted.
ln::tokenizer pieces_of(std::size_t count, bool marks = false) {
  ln::tokenizer_parts parts;
  parts.model = ln::tokenizer_parts::models::bpe;
  parts.unknown = 0;
  for (std::size_t i = 0; i < count; ++i) parts.tokens.push_back(letters.substr(i, 1));
  if (marks)
    for (const char* const mark : {"<|im_start|>", "<|im_end|>"}) {
      parts.added.push_back({static_cast<token>(parts.tokens.size())});
      parts.tokens.push_back(mark);
    }
  auto made = ln::tokenizer::assemble(std::move(parts), "t");
  LINNET_REQUIRE_OK(made);
  return *std::move(made);
}
const ln::packed<decoder, float>& weights() {
  static const auto p = random_packed<decoder, float>(3);
  return p;
}
constexpr ln::limits limits{.batch = 3, .target = 64};

template <class Teacher>
strings answers(Teacher& teacher, const std::vector<request>& all) {
  const auto texts = teacher.generate(all);
  LINNET_REQUIRE_OK(texts);
  return *texts;
}
/// What a session writes behind `prompt`.
template <class M, class Choose>
std::string written(const ln::packed<M, float>& p, const ln::tokenizer& pieces,
                    std::span<const token> prompt, Choose&& choose, index tokens, token stop = -2) {
  auto s = opened(p, {.source = 16, .target = 64});
  std::string text;
  token previous = -1;
  s.generate(prompt, choose, [&](token t) { text += pieces.decode(std::exchange(previous, t), t); },
             {.tokens = tokens, .stop = std::span(&stop, 1)});
  return text;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(session_teacher)

BOOST_AUTO_TEST_CASE(answers_are_those_of_a_session) {
  const auto pieces = pieces_of(6, true);
  for (const token stop : {-2, 0, 1, 2}) {  // the first is none
    auto teacher = ln::session_teacher<decoder>::open(weights(), limits, pieces,
                                                      {.tokens = 6, .stops = {stop}});
    LINNET_REQUIRE_OK(teacher);
    const std::vector<request> all{{"abc"}, {"f"}, {"ffdebb"}, {"ba"}, {"abc"}};
    const strings texts = answers(*teacher, all);
    for (std::size_t i = 0; i < all.size(); ++i) {
      const auto ids = pieces.encode(all[i].prompt);
      BOOST_TEST(texts[i] == written(weights(), pieces, ids, ln::greedy{}, 6, stop));
      BOOST_TEST((answers(*teacher, {all[i]}) == strings{texts[i]}));
    }
  }
}

// Draws differ, and each is the same in any company.
BOOST_AUTO_TEST_CASE(draws) {
  const auto pieces = pieces_of(6, true);
  const auto open = [&](std::uint64_t seed) {
    auto t = ln::session_teacher<decoder>::open(weights(), limits, pieces,
                                                {.tokens = 12, .sampling = {.seed = seed}});
    LINNET_REQUIRE_OK(t);
    return *std::move(t);
  };
  auto teacher = open(1), other = open(2);
  const std::vector<request> all{{"ab"}, {"ab", "", 1}, {"c"}, {"ab", "", 2}, {"c", "", 1}};
  const strings texts = answers(teacher, all);
  BOOST_TEST(texts[0] != texts[1]);
  BOOST_TEST(texts[1] != texts[3]);
  BOOST_TEST(texts[2] != texts[4]);
  BOOST_TEST((answers(other, all) != texts));
  for (std::size_t i = all.size(); i-- > 0;)
    BOOST_TEST((answers(teacher, {all[i]}) == strings{texts[i]}));
}

BOOST_AUTO_TEST_CASE(stop_texts_are_cut_off) {
  const auto pieces = pieces_of(6, true);
  auto plain = ln::session_teacher<decoder>::open(weights(), limits, pieces, {.tokens = 12});
  LINNET_REQUIRE_OK(plain);
  const std::string whole = answers(*plain, {{"abc"}})[0];
  BOOST_REQUIRE(whole.size() > 5);
  const std::string stop = whole.substr(2, 2);
  auto cut = ln::session_teacher<decoder>::open(weights(), limits, pieces,
                                                {.tokens = 12, .stop_texts = {"", stop}});
  LINNET_REQUIRE_OK(cut);
  BOOST_TEST(answers(*cut, {{"abc"}})[0] == whole.substr(0, whole.find(stop)));
}

// With a prompt to avoid it is contrastive decoding, whose weight 0 is none.
BOOST_AUTO_TEST_CASE(against_another_prompt) {
  const auto pieces = pieces_of(6, true);
  const auto ids = pieces.encode("abc"), other = pieces.encode("fe");
  for (const double weight : {0.0, 1.0, 30.0}) {
    auto teacher = ln::session_teacher<decoder>::open(
        weights(), limits, pieces, {.tokens = 8, .contrast = {.weight = weight}});
    LINNET_REQUIRE_OK(teacher);
    auto amateur = opened(weights(), {.target = 64});
    ln::contrast against(amateur, {.weight = weight});
    BOOST_TEST(against.reset_and_prefill(other));
    const std::string text =
        written(weights(), pieces, ids, ln::with_logit_processors(ln::greedy{}, against), 8);
    BOOST_TEST((answers(*teacher, {{"abc"}, {"abc", "fe"}, {"abc"}})[1] == text));
    const std::string plain = written(weights(), pieces, ids, ln::greedy{}, 8);
    BOOST_TEST((text == plain) == (weight == 0));
  }
}

BOOST_AUTO_TEST_CASE(messages_in_chatml) {
  const auto pieces = pieces_of(6, true);
  auto teacher = ln::session_teacher<decoder>::open(weights(), limits, pieces,
                                                    {.tokens = 6, .chat = true, .system = "cab"});
  LINNET_REQUIRE_OK(teacher);
  const auto format = ln::chatml::open(pieces);
  LINNET_REQUIRE_OK(format);
  std::vector<token> ids;
  BOOST_TEST(format->append(ln::chatml::role::system, "cab", ids));
  BOOST_TEST(format->append(ln::chatml::role::user, "fad", ids));
  BOOST_TEST(format->append_opening(ids));
  BOOST_TEST(answers(*teacher, {{"fad"}})[0] ==
             written(weights(), pieces, ids, ln::greedy{}, 6, format->end()));
}

BOOST_AUTO_TEST_CASE(scores_are_mean_log_likelihoods) {
  const auto pieces = pieces_of(6, true);
  auto teacher = ln::session_teacher<decoder>::open(weights(), limits, pieces);
  LINNET_REQUIRE_OK(teacher);
  const auto prompt = pieces.encode("abc"), text = pieces.encode("fed");
  anew<decoder, float> after(weights());
  double sum = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    double mass = 0;
    const auto logits = after(prompt, std::span(text).first(i));
    for (const float x : logits) mass += std::exp(static_cast<double>(x));
    sum += static_cast<double>(logits[at(text[i])]) - std::log(mass);
  }
  const auto score = teacher->score("abc", "fed");
  LINNET_REQUIRE_OK(score);
  BOOST_TEST(std::abs(*score - sum / 3) < 1e-5);
  BOOST_TEST(!teacher->score("abc", ""));
  BOOST_TEST(!teacher->score("", "abc"));
  BOOST_TEST(!teacher->score("abc", std::string(65, 'a')));
}

BOOST_AUTO_TEST_CASE(an_encoder_decoder) {
  const auto pieces = pieces_of(4);
  const auto p = random_packed<encoder_decoder, float>(5);
  auto teacher = ln::session_teacher<encoder_decoder>::open(
      p, {.batch = 2, .source = 16, .target = 64}, pieces, {.tokens = 6, .stops = {1}});
  LINNET_REQUIRE_OK(teacher);
  const strings texts = answers(*teacher, {{"dca"}, {"cc"}});
  for (const std::size_t i : {0u, 1u}) {
    auto ids = pieces.encode(i == 0 ? "dca" : "cc");
    ids.push_back(1);
    BOOST_TEST(texts[i] == written(p, pieces, ids, ln::greedy{}, 6, 1));
  }
}

BOOST_AUTO_TEST_CASE(refusals) {
  const auto pieces = pieces_of(6, true), bare = pieces_of(6);
  const auto why = [&](const ln::tokenizer& t, ln::session_teacher_options how, const request& one,
                       const ln::limits& l = limits) {
    auto teacher = ln::session_teacher<decoder>::open(weights(), l, t, std::move(how));
    if (!teacher) return teacher.error().message();
    const auto texts = teacher->generate(std::span(&one, 1));
    return texts ? std::string("answered") : texts.error().message();
  };
  BOOST_TEST(why(pieces, {}, {"ab"}) == "answered");
  BOOST_TEST(why(pieces, {}, {std::string(65, 'a')}) ==
             "session_teacher: prompt \"" + std::string(60, 'a') +
                 "...\": expected 1 to 64 tokens, got 65");
  BOOST_TEST(why(pieces, {}, {""}) ==
             "session_teacher: prompt \"\": expected 1 to 64 tokens, got 0");
  BOOST_TEST(!why(pieces, {}, {"ab", std::string(65, 'a')}).starts_with("answered"));
  BOOST_TEST(
      why(bare, {.chat = true}, {"ab"}).starts_with("chatml::open: added tokens: expected "));
  BOOST_TEST(why(pieces, {.tokens = 0}, {"ab"}) ==
             "session_teacher: session_teacher_options.tokens: expected at least 1, got 0");
  BOOST_TEST(why(pieces, {.sampling = {.temperature = -1}}, {"ab"}) ==
             "session_teacher: session_teacher_options.sampling.temperature: expected at least 0, "
             "finite (0 is greedy), got -1");
  BOOST_TEST(why(pieces, {}, {"ab"}, {.batch = 0}).starts_with("session::open: limits.batch"));
  ln::weights<decoder> w;
  std::fill_n(reinterpret_cast<float*>(w.data()), w.bytes() / 4, 1e15f);  // logits that overflow
  const auto p = ln::pack(w);
  auto teacher = ln::session_teacher<decoder>::open(p, limits, pieces);
  LINNET_REQUIRE_OK(teacher);
  const std::vector<request> one{{"ab"}};
  BOOST_TEST(teacher->generate(one).error().message() ==
             "session_teacher: logits: expected finite numbers, got none that is largest, behind "
             "\"ab\"");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::session_teacher_test
