// SPDX-License-Identifier: MIT
// T5's stacks. Grouped queries (Ainslie et al. 2023) equal a T5 whose heads of keys and values are
// repeated, whole and through the cache, in self- and cross-attention. The bias of a distance is
// found once for each text.

#include "support/scoring.hpp"

namespace test::t5_stack_test {

namespace {

using grouped = ln::t5<grouped_t5_shape>;
constexpr ln::t5_shape full_shape = [] {
  ln::t5_shape s = grouped_t5_shape;
  s.kv_heads = 0;
  return s;
}();
using full = ln::t5<full_shape>;

// Groups say so in files; a full T5's file stays as it was.
template <class M>
std::string kv_heads_in_file() {
  for (const auto& one : ln::detail::metadata_of<M>())
    if (one.key == "kv_heads") return one.value;
  return "";
}

/// The weights of `full` that repeat each head of keys and values for all queries of its group.
ln::weights<full, double> repeated(const ln::weights<grouped, double>& w) {
  constexpr index h = full_shape.d_kv, queries = full_shape.heads / grouped_t5_shape.kv_heads;
  ln::weights<full, double> all;
  full::visit(
      [&](const ln::parameter_path& path, const ln::tensor_info& info, auto& to, const auto& from) {
        const std::string name = path.str();
        const bool shared = name.ends_with(".k.weight") || name.ends_with(".v.weight");
        for (index r = 0; r < info.rows; ++r) {
          const index row = shared ? r / h / queries * h + r % h : r;
          std::copy_n(values_of(from) + row * info.columns, info.columns,
                      values_of(to) + r * info.columns);
        }
      },
      ln::parameter_path{}, all.tree(), w.tree());
  return all;
}

}  // namespace

static_assert(full_shape.key_value_heads() == 4 && grouped_t5_shape.key_value_heads() == 2);
static_assert(grouped_t5_shape.valid() && full_shape.valid());
static_assert(ln::hf_kind_of<grouped>() == ln::hf_kind::none &&
              ln::hf_kind_of<full>() == ln::hf_kind::t5);
// Two layers of three attentions lose half of their keys and values.
static_assert(full::parameters() - grouped::parameters() == 2 * 3 * 2 * 6 * 2 * 2);

BOOST_AUTO_TEST_SUITE(t5_stacks)

BOOST_AUTO_TEST_CASE(gradients) { check_model<grouped>(t5_data<grouped>(), 0.25); }

BOOST_AUTO_TEST_CASE(equals_repeated_heads) {
  ln::weights<grouped, double> w;
  randomize(w);
  const auto p = ln::pack(w);
  const auto all = ln::pack(repeated(w));
  const auto data = t5_data<grouped>();
  const auto logits = logits_of(p, data);
  BOOST_TEST(magnitude(logits) > 0.5);
  BOOST_TEST(distance(logits, logits_of(all, data)) <= same_result<double>);

  const ln::limits l{.batch = 2, .source = 5, .target = 9, .min_flops_per_thread = 0};
  auto few = ln::session<grouped, double>::open(p, l);
  auto many = ln::session<full, double>::open(all, l);
  BOOST_REQUIRE((few && many));
  BOOST_REQUIRE(
      (few->encode(data.source, 2, data.lengths) && many->encode(data.source, 2, data.lengths)));
  for (index i = 0; i < 9; ++i) {
    const std::vector<token> next{static_cast<token>(i), static_cast<token>(10 - i)};
    BOOST_TEST(distance(few->feed(next, 2, {}), many->feed(next, 2, {})) <= same_result<double>);
  }
  // A token's keys and values in the cache: two layers, keys and values, of two heads less of 2.
  const auto state = []<class M>(index target) {
    return ln::detail::plan_for<M, double>({.batch = 1, .source = 5, .target = target},
                                           ln::purpose::decoding)
        .state;
  };
  const auto grows = [&]<class M>() {
    return state.template operator()<M>(128) - state.template operator()<M>(64);
  };
  BOOST_TEST(grows.operator()<full>() - grows.operator()<grouped>() == 64 * 2 * 2 * 4 * 8);
}

BOOST_AUTO_TEST_CASE(files_tell_groups) {
  BOOST_TEST(kv_heads_in_file<grouped>() == "2");
  BOOST_TEST(kv_heads_in_file<full>().empty());
}

// Lines of the bias in a session of up to 100 tokens: what no token is as far away from is not
// touched, and what is found stays until a text begins.
BOOST_AUTO_TEST_CASE(bias_is_found_once) {
  using stack = grouped::decoder;
  constexpr index longest = 100;
  const ln::limits l{.source = 3, .target = longest};
  const auto sizes = ln::detail::plan_for<grouped, double>(l, ln::purpose::decoding);
  const ln::memory_block memory(sizes.total());
  auto placed =
      ln::detail::place_workspace<grouped, double>(l, ln::purpose::decoding, memory.data());
  auto& w = placed.work;
  const auto p = random_packed<grouped, double>();
  const ln::ops::execution on;
  const token source[] = {1, 2, 3};
  const auto encode = [&] {
    grouped::encode<double, ln::storage::f64>(p.tree(), source, 1, 3, nullptr, w, on);
  };
  const auto feed = [&](index past, bool cached = true) {
    const token next[] = {4, 5};
    grouped::step<double, ln::storage::f64>(p.tree(),
                                            {.tokens = next,
                                             .batch = 1,
                                             .length = 2,
                                             .past = &past,
                                             .source = {.length = 3, .cached = cached}},
                                            w, on);
  };
  const auto& bias = w.decoder_stack.bias;
  const auto line = [&](index head) { return bias.lines + head * (2 * longest - 1) + longest - 1; };
  const auto table = [&](index relative, index head) {
    return p.tree()
        .decoder_stack
        .relative_bias[ln::ops::relative_bucket(relative, false, 8, 12) * stack::heads + head];
  };
  BOOST_TEST(bias.origin == longest - 1);
  encode();
  feed(0, false);
  feed(2);
  for (index head = 0; head < stack::heads; ++head) {
    for (index r = 0; r < 4; ++r) {
      BOOST_TEST(line(head)[-r] == table(-r, head));
      BOOST_TEST(line(head)[r] == table(0, head));
    }
    for (index r = 4; r < longest; ++r) BOOST_TEST((line(head)[r] == 0 && line(head)[-r] == 0));
    line(head)[-3] = 7;
  }
  feed(4);
  for (index head = 0; head < stack::heads; ++head) {
    BOOST_TEST(line(head)[-3] == 7);  // not found again
    BOOST_TEST(line(head)[-5] == table(-5, head));
    BOOST_TEST(line(head)[-6] == 0);
  }
  feed(98);  // as far as the limits go
  BOOST_TEST(line(1)[-99] == table(-99, 1));
  encode();  // writes nothing of it
  BOOST_TEST(line(1)[-99] == table(-99, 1));
  feed(0, false);
  feed(2);
  BOOST_TEST(line(1)[-3] == table(-3, 1));
}

// Kinds without scores of pairs have no table.
BOOST_AUTO_TEST_CASE(no_table_without_scores) {
  using linear = grouped::with_attention<ln::attention::linear<>>;
  using one = grouped::with_attention<ln::attention::linear<>, ln::attention::full>;
  static_assert(linear::parameters() == grouped::parameters() - 2 * 8 * 4);
  static_assert(one::parameters() == grouped::parameters() - 8 * 4);
  std::vector<std::string> tables;
  one::visit(
      [&](const ln::parameter_path& path, const ln::tensor_info&) {
        if (path.str().find("relative_bias") != std::string::npos) tables.push_back(path.str());
      },
      ln::parameter_path{});
  BOOST_TEST(tables == std::vector<std::string>{"decoder.relative_bias.weight"},
             boost::test_tools::per_element());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::t5_stack_test
