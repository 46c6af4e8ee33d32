// SPDX-License-Identifier: MIT
// Soft tokens and prefixes in PEFT's directories: those that PEFT saved compute what they compute
// there, what is saved is loaded again, and what would compute something else is refused.

#include "support/golden.hpp"

namespace test::peft_virtual_test {

namespace {

template <class M>
using prompted = ln::adapted<M, ln::prompt_tuning<3>>;
template <class M>
using prefixed = ln::adapted<M, ln::prefix_tuning<3>>;

/// A fixture's base, and the adapter that PEFT saved in folder `name`.
template <class A>
struct loaded {
  using M = typename A::base_model;
  std::string name;
  golden_case<M> c;
  ln::packed<M, double> base = ln::pack(c.template weights<double>());
  ln::weights<A, double> adapter;

  explicit loaded(const char* folder, const char* fixture = "llama_gqa_untied")
      : name(folder), c(fixture) {
    auto made = ln::adapt<typename A::method>(base);
    LINNET_REQUIRE_OK(made);
    adapter = std::move(*made);
    LINNET_REQUIRE_OK(ln::load_peft(adapter, golden(name)));
  }
};

template <class A>
void check(const char* folder, const char* fixture = "llama_gqa_untied") {
  loaded<A> l(folder, fixture);
  auto expected = ln::read_safetensors(golden(l.name + "/expected.safetensors"));
  LINNET_REQUIRE_OK(expected);
  const auto numbers = [&](const std::string& name) {
    auto values = expected->template values<double>(name);
    LINNET_REQUIRE_OK(values);
    return *values;
  };
  auto train = ln::trainer<A, ln::adamw, double>::open(l.adapter, l.c.limits());
  LINNET_REQUIRE_OK(train);
  const auto want = numbers("logits");
  std::vector<double> logits(want.size());
  BOOST_REQUIRE(ln::is_finite(train->evaluate(l.c.view(), logits).nats));
  double worst = 0;
  for (std::size_t i = 0; i < want.size(); ++i)
    worst = (std::max)(worst, std::abs(want[i] - logits[i]));
  BOOST_TEST(worst <= 1e-11, worst);
  const ln::loss_sum sum = train->accumulate(l.c.view());
  BOOST_TEST(std::abs(sum.mean() - numbers("loss")[0]) <= 1e-12);
  const auto slopes = numbers("grad.prompt_embeddings");
  const auto* const got = static_cast<const double*>(train->gradient().data());
  double size = 0, error = 0;
  ln::detail::each_virtual_number<A>([&](index i, index place) {
    const double mine = got[i] / static_cast<double>(sum.tokens);
    error = (std::max)(error, std::abs(mine - slopes[at(place)]));
    size = (std::max)(size, std::abs(mine));
  });
  BOOST_TEST(size > 0);
  BOOST_TEST(error <= 1e-9 * size, error << " of " << size);

  // What is saved is loaded again, and PEFT's numbers are in it in PEFT's order.
  const scratch_folder saved;
  LINNET_REQUIRE_OK(ln::save_peft(l.adapter, saved.path(), "some/base"));
  auto other = ln::adapt<typename A::method>(l.base, {}, ln::seed{3});
  LINNET_REQUIRE_OK(other);
  LINNET_REQUIRE_OK(ln::load_peft(*other, saved.path()));
  BOOST_TEST(same_bytes(*other, l.adapter));
  // As a classifier (SEQ_CLS) PEFT would want one beside them.
  const std::string task = A::base_model::encodes              ? "SEQ_2_SEQ_LM"
                           : A::base_model::label_per_sequence ? "FEATURE_EXTRACTION"
                                                               : "CAUSAL_LM";
  BOOST_TEST(contents(saved.path("adapter_config.json")).find("\"task_type\": \"" + task + "\"") !=
             std::string::npos);
  const auto numbers_of = [](const ln::safetensors& file) {
    auto all = *file.template values<double>("prompt_embeddings");
    all.resize(at(A::parameters()));  // an encoder-decoder's soft tokens have as many rows again
    return all;
  };
  const auto theirs = ln::read_safetensors(golden(l.name + "/adapter_model.safetensors"));
  const auto ours = ln::read_safetensors(saved.path("adapter_model.safetensors"));
  BOOST_REQUIRE(theirs && ours && ours->tensors().size() == 1u);
  BOOST_TEST(numbers_of(*theirs) == numbers_of(*ours));

  // Another base is noticed, and may be meant.
  auto w = l.c.template weights<double>();
  static_cast<double*>(w.data())[0] += 1;
  const auto changed = ln::pack(w);
  auto elsewhere = ln::adapt<typename A::method>(changed);
  LINNET_REQUIRE_OK(elsewhere);
  const auto refused = ln::load_peft(*elsewhere, saved.path());
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().what == "linnet.base");
  LINNET_REQUIRE_OK(ln::load_peft(*elsewhere, saved.path(), ln::peft_base::any));
}

}  // namespace

BOOST_AUTO_TEST_SUITE(peft_virtual)

BOOST_AUTO_TEST_CASE(prompts) { check<prompted<llama_gqa>>("peft_prompt"); }
BOOST_AUTO_TEST_CASE(prefixes) { check<prefixed<llama_gqa>>("peft_prefix"); }
BOOST_AUTO_TEST_CASE(prefixes_with_interleaved_pairs) {
  check<prefixed<llama_gqa_interleaved>>("peft_prefix");
}

// PEFT puts an encoder-decoder's soft tokens before its source, and its prefix before the targets.
BOOST_AUTO_TEST_CASE(encoder_decoders) {
  check<prompted<t5_1_0>>("peft_prompt_t5", "t5_v1_0");
  check<prefixed<t5_1_0>>("peft_prefix_t5", "t5_v1_0");
  // Of two decoder layers PEFT has one prefix for both.
  using even = ln::t5<tiny_t5_shape>;
  ln::weights<even, double> w;
  randomize(w);
  const auto base = ln::pack(w);
  auto made = ln::adapt<ln::prefix_tuning<3>>(base);
  LINNET_REQUIRE_OK(made);
  const scratch_folder folder;
  const auto refused = ln::save_peft(*made, folder.path());
  BOOST_REQUIRE(!refused);
  BOOST_TEST(refused.error().message() ==
             "save_peft: prompt_embeddings: expected one prefix for two decoder layers, as PEFT "
             "has it of an even number; save_safetensors() keeps others, got two");
  double* const all = made->tree().prefix;
  for (index t = 0; t < 3; ++t) std::copy_n(all + t * 16, 8, all + t * 16 + 8);
  LINNET_REQUIRE_OK(ln::save_peft(*made, folder.path()));
  auto again = ln::adapt<ln::prefix_tuning<3>>(base, {}, ln::seed{3});
  LINNET_REQUIRE_OK(again);
  LINNET_REQUIRE_OK(ln::load_peft(*again, folder.path()));
  BOOST_TEST(same_bytes(*again, *made));
}
// The pooler reads the first soft token, and behind a prefix the text's first one.
BOOST_AUTO_TEST_CASE(encoders) {
  check<prompted<bert_sequence>>("peft_prompt_bert", "bert_sequence");
  check<prefixed<bert_sequence>>("peft_prefix_bert", "bert_sequence");
}

BOOST_AUTO_TEST_CASE(refusals) {
  loaded<prompted<llama_gqa>> l("peft_prompt");
  const auto before = l.adapter.clone();
  const auto prefix = ln::load_peft(l.adapter, golden("peft_prefix"));
  BOOST_REQUIRE(!prefix);
  BOOST_TEST((prefix.error().code == ln::errc::unsupported));
  const scratch_folder folder;
  LINNET_REQUIRE_OK(ln::save_peft(l.adapter, folder.path()));
  const std::string path = folder.path("adapter_config.json"), text = contents(path);
  const auto replaced = [&](std::string_view from, std::string_view to) {
    std::string changed = text;
    const auto place = changed.find(from);
    BOOST_REQUIRE(place != changed.npos);
    changed.replace(place, from.size(), to);
    LINNET_REQUIRE_OK(ln::write_file(path, bytes(changed)));
    const auto done = ln::load_peft(l.adapter, folder.path());
    BOOST_REQUIRE(!done);
    return done.error();
  };
  BOOST_TEST(replaced("virtual_tokens\": 3", "virtual_tokens\": 4").message() ==
             path + ": num_virtual_tokens: expected 3 (the adapter's type), got 4");
  BOOST_TEST(replaced("token_dim\": 24", "token_dim\": 25").what == "token_dim");
  BOOST_TEST(replaced("submodules\": 1", "submodules\": 2").what == "num_transformer_submodules");
  BOOST_TEST(replaced("\"inference_mode\": true", "\"shared\": 1").what == "shared");
  BOOST_TEST(same_bytes(before, l.adapter));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::peft_virtual_test
