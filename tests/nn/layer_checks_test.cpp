// SPDX-License-Identifier: MIT
// The checks of cached = uncached, causality, padding and threads themselves: a right layer passes,
// and for each promise a layer that breaks it is reported, with the place.

#include "support/mixing.hpp"

namespace test::layer_checks_test {

namespace {

enum class flaw {
  none,
  sees_the_next,      // token t also reads token t + 1
  sees_padding,       // the first token counts all tokens, valid or not
  feeds_padding,      // padding gets a gradient
  padding_in_weight,  // padding is part of a parameter's gradient
  nan_padding,        // padding makes outputs that are not numbers
  cache_off_by_one,   // a continued sequence counts one token too few
  keeps_old_state,    // a new sequence starts from what the last one left
  copies_nothing,     // a copied sequence has lost its state
  by_thread,          // each thread sums its own columns first: the order of a sum follows them
  races,              // every thread adds to one parameter's gradient from its own share only
  reads_unwritten,    // what was never written is added
  constant            // nothing follows the inputs
};

/// y_t = w * mean of x_0 ... x_t, with one flaw.
template <flaw Flaw>
struct flawed {
  static constexpr index in = 4, out = 4;
  template <class Form>
  struct params {
    typename Form::vector weight{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const ln::parameter_path& at, P&... p) {
    f(at / "weight", ln::tensor_info{1, in, ln::role::scale, 0}, p.weight...);
  }
  template <class T>
  struct cache {
    T* sums = nullptr;     // [batch, in] while decoding
    T* partial = nullptr;  // [threads]
  };
  template <class T>
  static constexpr cache<T> plan(ln::planner& m, const ln::call_shape& e) {
    return {m.state.take<T>(e.capacity > 0 ? e.batch * in : 0), m.saved.take<T>(e.threads)};
  }
  template <class T, class S>
  static void forward(const params<ln::form::packed<T, S>>& p, ln::view<const T, in> x,
                      ln::view<T, out> y, cache<T>& c, ln::context<T>& ctx) {
    const auto& threads = ctx.on.threads;
    threads.each(ctx.batch * in, [&](index i) {
      const index b = i / in, j = i % in, first = b * ctx.length, past = ctx.past_of(b);
      const index valid = ctx.length_of(b);
      const index counted = past - (Flaw == flaw::cache_off_by_one && past > 0 ? 1 : 0);
      T sum = past > 0 || (Flaw == flaw::keeps_old_state && ctx.past && std::isfinite(c.sums[i]))
                  ? c.sums[i]
                  : T(0);
      for (index t = 0; t < ctx.length; ++t) {
        if (t < valid) sum += x(first + t, j);
        T seen = sum;
        if (Flaw == flaw::sees_the_next && t + 1 < valid) seen += x(first + t + 1, j) / 64;
        if (Flaw == flaw::sees_padding && t == 0 && valid < ctx.length)
          seen += x(first + valid, j) / 64;
        if (Flaw == flaw::reads_unwritten && t == 0) seen += 0 * c.partial[0];
        y(first + t, j) = p.weight[j] * seen / T(counted + t + 1);
        if (t >= valid) y(first + t, j) = 0;
        if (Flaw == flaw::nan_padding && t >= valid)
          y(first + t, j) = std::numeric_limits<T>::quiet_NaN();
        if (Flaw == flaw::constant) y(first + t, j) = 1;
      }
      if (ctx.past) c.sums[i] = sum;
    });
    if constexpr (Flaw == flaw::by_thread) {
      c.partial[threads.rank()] = 0;
      for (auto [i, last] = threads.range(x.size()); i < last; ++i)
        c.partial[threads.rank()] += x.data()[i];
      threads.wait();
      threads.once([&] {
        T sum = 0;
        for (int rank = 0; rank < threads.size(); ++rank) sum += c.partial[rank];
        y(0, 2) += sum;
      });
    }
  }
  template <class T, class S>
  static void backward(const params<ln::form::packed<T, S>>& p, params<ln::form::gradient<T>>& dp,
                       ln::view<const T, in> x, ln::view<const T, out> dy, ln::view<T, in> dx,
                       cache<T>&, ln::context<T>& ctx) {
    const auto& threads = ctx.on.threads;
    threads.each(in, [&](index j) {
      for (index b = 0; b < ctx.batch; ++b) {
        const index first = b * ctx.length, valid = ctx.length_of(b);
        T sum = 0;
        for (index t = 0; t < valid; ++t)
          dp.weight[j] += dy(first + t, j) * (sum += x(first + t, j)) / T(t + 1);
        sum = 0;
        for (index t = valid; t-- > 0; dx(first + t, j) += sum)
          sum += p.weight[j] * dy(first + t, j) / T(t + 1);
        for (index t = valid; t < ctx.length; ++t) {
          if (Flaw == flaw::feeds_padding) dx(first + t, j) += sum;
          if (Flaw == flaw::padding_in_weight && j == 3) dp.weight[j] += x(first + t, j);
        }
      }
    });
    if (Flaw == flaw::races && threads.rank() == 0) {
      const auto [first, last] = threads.range(x.rows());
      for (index i = first; i < last; ++i) dp.weight[1] += x(i, 1);
    }
    threads.wait();
  }
  template <class T>
  static void copy_state(cache<T>& c, index from, index to, const ln::state_part& part) {
    if (Flaw != flaw::copies_nothing) ln::copy_sequence(c.sums, in, from, to, part);
  }
  static constexpr index flops(const ln::call_shape&) { return 0; }
};

template <flaw Flaw, class T = double>
ln::layer_report causality() {
  return ln::check_layer_causality<flawed<Flaw>, T>({.length = 20});
}
template <flaw Flaw, class T = double>
ln::layer_report padding() {
  return ln::check_layer_padding<flawed<Flaw>, T>({.length = 7, .lengths = {5, 7}});
}
template <flaw Flaw, class T = double>
ln::layer_report threads() {
  return ln::check_layer_threads<flawed<Flaw>, T>({.batch = 3});
}
template <flaw Flaw, class T = double>
ln::layer_report cached() {
  return ln::check_layer_cache<flawed<Flaw>, T>();
}

/// What the report says, or nothing if it passed.
std::string fault(const ln::layer_report& r) {
  if (r.passed()) return "";
  BOOST_TEST_MESSAGE(r.message());
  return r.what + ": " + r.tensor;
}

}  // namespace

BOOST_AUTO_TEST_SUITE(layer_checks)

BOOST_AUTO_TEST_CASE(right_layer_passes) {
  for (const auto& r :
       {causality<flaw::none>(), padding<flaw::none>(), threads<flaw::none>(), cached<flaw::none>(),
        causality<flaw::none, float>(), padding<flaw::none, float>(), threads<flaw::none, float>(),
        cached<flaw::none, float>()})
    BOOST_TEST(r.passed(), r.message());
  check_layer<flawed<flaw::none>>({.lengths = {5, 3}});
}
// All checks at once give the report of the one that fails.
BOOST_AUTO_TEST_CASE(all_at_once) {
  const auto r = ln::check_layer<flawed<flaw::none>>();
  BOOST_TEST(r.passed(), r.message());
  BOOST_TEST(r.what == cached<flaw::none>().what);
  const ln::layer_check how{.batch = 3, .length = 7, .lengths = {5, 7, 6}};
  BOOST_TEST(fault(ln::check_layer<flawed<flaw::sees_the_next>>(how)) ==
             fault(ln::check_layer_causality<flawed<flaw::sees_the_next>>(how)));
  BOOST_TEST(fault(ln::check_layer<flawed<flaw::padding_in_weight>>(how)) ==
             fault(ln::check_layer_padding<flawed<flaw::padding_in_weight>>(how)));
  BOOST_TEST(fault(ln::check_layer<flawed<flaw::races>>(how)) ==
             fault(ln::check_layer_threads<flawed<flaw::races>>(how)));
  BOOST_TEST(fault(ln::check_layer<flawed<flaw::copies_nothing>>(how)) ==
             fault(ln::check_layer_cache<flawed<flaw::copies_nothing>>(how)));
  BOOST_TEST(!ln::check_layer<flawed<flaw::copies_nothing>>(how).passed());
}
BOOST_AUTO_TEST_CASE(later_tokens) {
  const auto r = causality<flaw::sees_the_next>();
  BOOST_TEST(!r.passed());
  BOOST_TEST((r.tensor == "y" && r.difference > 1e-6 && r.allowed == 0));
  BOOST_TEST((r.token == 0 || r.token == 1 || r.token == 9 || r.token == 18), r.message());
  BOOST_TEST(r.what == "tokens from " + std::to_string(r.token + 1) + " on are not numbers");
  BOOST_TEST(r.message().find("are not numbers: y[") != std::string::npos, r.message());
  BOOST_TEST(fault(causality<flaw::sees_padding>()) == "");  // that is another promise
}
BOOST_AUTO_TEST_CASE(what_stands_in_padding) {
  const auto r = padding<flaw::sees_padding>();
  BOOST_TEST((!r.passed() && r.tensor == "y" && r.sequence == 0 && r.token == 0), r.message());
  BOOST_TEST(fault(padding<flaw::feeds_padding>()) == "padding has no gradient: dx");
  BOOST_TEST(fault(padding<flaw::padding_in_weight>()) ==
             "the padding changed: gradient of weight");
  BOOST_TEST(padding<flaw::padding_in_weight>().column == 3);
  BOOST_TEST(fault(padding<flaw::nan_padding>()) == "outputs of padding are finite: y");
  BOOST_TEST(fault(padding<flaw::sees_the_next>()) == "");
}
BOOST_AUTO_TEST_CASE(continued_sequences) {
  const auto r = cached<flaw::cache_off_by_one>();
  BOOST_TEST((!r.passed() && r.tensor == "y" && r.token > 0 && r.difference > 1e-3), r.message());
  BOOST_TEST(fault(cached<flaw::keeps_old_state>()) != "");
  BOOST_TEST(fault(cached<flaw::copies_nothing>()) ==
             "sequence 1 continues where sequence 0 is: y");
  BOOST_TEST(cached<flaw::copies_nothing>().sequence == 1);
  // A token that a piece does not hold yet cannot be seen.
  BOOST_TEST(fault(cached<flaw::sees_the_next>()) != "");
}
BOOST_AUTO_TEST_CASE(numbers_of_threads) {
  const auto r = threads<flaw::by_thread>();
  BOOST_TEST((!r.passed() && r.tensor == "y" && r.sequence == 0 && r.token == 0 && r.column == 2),
             r.message());
  BOOST_TEST(r.difference < 1e-12);  // the order of a sum is all
  const auto g = threads<flaw::races>();
  BOOST_TEST((!g.passed() && g.tensor == "gradient of weight" && g.column == 1), g.message());
}
BOOST_AUTO_TEST_CASE(unwritten_and_constant) {
  BOOST_TEST(fault(padding<flaw::reads_unwritten>()) != "");
  BOOST_TEST(fault(cached<flaw::reads_unwritten>()) != "");
  for (const auto& r :
       {causality<flaw::constant>(), threads<flaw::constant>(), cached<flaw::constant>()}) {
    BOOST_TEST((!r.passed() && r.sensitive == 0));
    BOOST_TEST(r.message() == "proves nothing: no output follows its inputs");
  }
}
// A call that cannot be made is named; nothing is read from null.
BOOST_AUTO_TEST_CASE(what_cannot_be_checked) {
  using layer = flawed<flaw::none>;
  const auto why = [](const ln::layer_report& r) {
    BOOST_TEST((!r.passed() && r.entries == 0));
    return r.message();
  };
  const auto begins = [](const std::string& text, const char* with) {
    BOOST_TEST(text.starts_with(with), text);
  };
  begins(why(ln::check_layer_threads<layer>({.length = 0})), "not checked: layer_check needs");
  begins(why(ln::check_layer_padding<layer>({.lengths = {3, 9}})),
         "not checked: layer_check needs");
  begins(why(ln::check_layer_padding<layer>({.lengths = {5, 5}})), "not checked: padding needs");
  begins(why(ln::check_layer_causality<layer>({.length = 1})), "not checked: causality needs");
  begins(why(ln::check_layer_cache<layer>({.length = 3})), "not checked: layer_check::pieces");
  for (const auto& pieces : std::vector<std::vector<std::vector<index>>>{
           {{5}}, {{4, 4}, {1, 2}}, {{4, 5}, {1, 0}}, {{9, 9}, {-4, -4}}})
    begins(why(ln::check_layer_cache<layer>({.pieces = pieces})), "not checked: layer_check::piec");
  constexpr ln::attention_shape rotary{.d_model = 8,
                                       .heads = 2,
                                       .kv_heads = 2,
                                       .d_kv = 4,
                                       .causal = true,
                                       .rope = ln::rope_pairing::half};
  using rotating = ln::attention::full::layer<rotary>;
  begins(why(ln::check_layer_cache<rotating>()), "not checked: layer_check::d_kv is 0");
  BOOST_TEST(ln::check_layer_cache<rotating>({.d_kv = 4}).passed());
  const ln::layer_report biased = ln::check_layer_threads<ln::linear<3, 5, true>>();
  BOOST_TEST(biased.passed(), biased.message());  // other widths, no tokens that meet
}
// What a layer's forward leaves in the context, its backward finds there.
BOOST_AUTO_TEST_CASE(values_of_the_first_layer) {
  constexpr auto shape = [](bool first) {
    return ln::attention_shape{
        .d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3, .causal = true, .first = first};
  };
  using layer = ln::chain<ln::named<"0", ln::mixer::rwkv7::layer<shape(true)>>,
                          ln::named<"1", ln::mixer::rwkv7::layer<shape(false)>>>;
  for (const auto& r : {ln::check_layer_cache<layer>(), ln::check_layer_padding<layer>(),
                        ln::check_layer_threads<layer>({.length = 20})})
    BOOST_TEST(r.passed(), r.message());
}
// Cross-attention reads the encoder's output, which a copied sequence takes with it.
BOOST_AUTO_TEST_CASE(cross_attention) {
  constexpr ln::attention_shape cross{
      .d_model = 8, .heads = 2, .kv_heads = 2, .d_kv = 4, .cross = true};
  using layer = ln::attention::full::layer<cross>;
  for (const auto& r :
       {ln::check_layer_cache<layer>({.memory = 3}), ln::check_layer_padding<layer>({.memory = 3}),
        ln::check_layer_threads<layer>({.memory = 3, .dropout = 0.2})})
    BOOST_TEST(r.passed(), r.message());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::layer_checks_test
