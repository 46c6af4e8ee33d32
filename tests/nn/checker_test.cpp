// SPDX-License-Identifier: MIT
// The gradient checker itself: a user's policy from outside the library passes it, alone and inside
// whole models; wrong derivatives of every kind are reported.

#include "support/gradients.hpp"
#include "support/models.hpp"

// --- a user's own feed-forward: a gate of its own, sqrt(1 + x^2) - 1, between two linear maps
// -------

namespace mine {

namespace ln = linnet;
using ln::index;

template <index D>
struct bowl : ln::without_parameters, ln::without_cache {
  static constexpr index in = D, out = D;
  template <class T, class S, class P, class C>
  static void forward(const P&, ln::view<const T, D> x, ln::view<T, D> y, C&, ln::context<T>& ctx) {
    ctx.on.threads.each(x.size(), [&](index i) {
      y.data()[i] = std::sqrt(T(1) + x.data()[i] * x.data()[i]) - T(1);
    });
  }
  template <class T, class S, class P, class G, class C>
  static void backward(const P&, G&, ln::view<const T, D> x, ln::view<const T, D> dy,
                       ln::view<T, D> dx, C&, ln::context<T>& ctx) {
    ctx.on.threads.each(x.size(), [&](index i) {
      dx.data()[i] += dy.data()[i] * x.data()[i] / std::sqrt(T(1) + x.data()[i] * x.data()[i]);
    });
  }
  static constexpr index flops(const ln::call_shape&) { return 0; }
};

struct bowl_ffn : ln::ffn::policy {
  template <index D, index F, bool Bias>
  using layer = ln::chain<ln::named<"wi", ln::linear<D, F, Bias>>, ln::named<"bowl", bowl<F>>,
                          ln::named<"wo", ln::linear<F, D, Bias>>>;
};

}  // namespace mine

namespace test::checker_test {

namespace {

enum class flaw { none, sign, overwrites, missing_term, off_by_a_millionth, one_entry, nan, zero };

/// y = x^2 + sin(x_0) w in every column, with one flaw in its derivative.
template <flaw Flaw>
struct flawed : ln::without_cache {
  static constexpr index in = 3, out = 3;
  template <class Form>
  struct params {
    typename Form::vector weight{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const ln::parameter_path& at, P&... p) {
    f(at / "weight", ln::tensor_info{1, 3, ln::role::bias, 0}, p.weight...);
  }
  template <class T, class S, class P, class C>
  static void forward(const P& p, ln::view<const T, 3> x, ln::view<T, 3> y, C&, ln::context<T>&) {
    for (index i = 0; i < x.rows(); ++i)
      for (index j = 0; j < 3; ++j) y(i, j) = x(i, j) * x(i, j) + std::sin(x(i, 0)) * p.weight[j];
  }
  template <class T, class S, class P, class G, class C>
  static void backward(const P& p, G& dp, ln::view<const T, 3> x, ln::view<const T, 3> dy,
                       ln::view<T, 3> dx, C&, ln::context<T>&) {
    for (index i = 0; i < x.rows(); ++i)
      for (index j = 0; j < 3; ++j) {
        T own = 2 * x(i, j) * dy(i, j);
        if (Flaw == flaw::sign) own = -own;
        if (Flaw == flaw::off_by_a_millionth) own *= T(1 + 1e-6);
        if (Flaw == flaw::one_entry && i == 4 && j == 2) own += T(1e-3);
        if (Flaw == flaw::nan && i == 4 && j == 2) own = std::numeric_limits<T>::quiet_NaN();
        if (Flaw == flaw::zero) own = 0;
        if (Flaw == flaw::overwrites)
          dx(i, j) = j == 0 ? dx(i, j) + own : own;
        else
          dx(i, j) += own;
        dx(i, 0) += Flaw == flaw::zero ? T(0) : std::cos(x(i, 0)) * p.weight[j] * dy(i, j);
        if (Flaw != flaw::missing_term && Flaw != flaw::zero)
          dp.weight[j] += std::sin(x(i, 0)) * dy(i, j);
      }
  }
};

template <flaw Flaw>
ln::gradient_report report() {
  return ln::check_layer_gradients<flawed<Flaw>>({.batch = 1, .length = 7});
}

/// A layer whose output does not depend on anything: every derivative is zero, rightly.
struct constant : ln::without_parameters, ln::without_cache {
  static constexpr index in = 2, out = 2;
  template <class T, class S, class P, class C>
  static void forward(const P&, ln::view<const T, 2>, ln::view<T, 2> y, C&, ln::context<T>&) {
    for (index i = 0; i < y.size(); ++i) y.data()[i] = 1;
  }
  template <class T, class S, class P, class G, class C>
  static void backward(const P&, G&, ln::view<const T, 2>, ln::view<const T, 2>, ln::view<T, 2>, C&,
                       ln::context<T>&) {}
};

}  // namespace

BOOST_AUTO_TEST_SUITE(checker)

BOOST_AUTO_TEST_CASE(own_policy_passes_alone_and_in_models) {
  check_layer<mine::bowl<9>>();
  check_layer<mine::bowl_ffn::layer<6, 10, true>>();

  check_model<ln::t5<tiny_t5_shape, mine::bowl_ffn>>(
      t5_data<ln::t5<tiny_t5_shape, mine::bowl_ffn>>());
  using decoder = ln::decoder<tiny_decoder_shape, mine::bowl_ffn, ln::bias::all>;
  check_model<decoder>(decoder_data<decoder>());
}

BOOST_AUTO_TEST_CASE(right_derivative_passes) {
  const auto r = report<flaw::none>();
  BOOST_TEST(r.passed(), text_of(r));
  BOOST_TEST(r.entries == 7 * 3 + 3);
}

BOOST_AUTO_TEST_CASE(wrong_derivatives_are_reported) {
  BOOST_TEST(!report<flaw::sign>().passed());
  BOOST_TEST(report<flaw::sign>().tensor == "x");
  BOOST_TEST(!report<flaw::overwrites>().passed());
  BOOST_TEST(!report<flaw::missing_term>().passed());
  BOOST_TEST(report<flaw::missing_term>().tensor == "weight");
  BOOST_TEST(!report<flaw::off_by_a_millionth>().passed());
  BOOST_TEST(!report<flaw::one_entry>().passed());
  BOOST_TEST(report<flaw::one_entry>().position == 4 * 3 + 2);
  BOOST_TEST(!report<flaw::zero>().passed());
  BOOST_TEST(!report<flaw::nan>().passed());
  BOOST_TEST(report<flaw::nan>().position == 4 * 3 + 2);
}

// A table that a layer reads and the call lacks is named; nothing is read from null.
BOOST_AUTO_TEST_CASE(missing_tables_are_named) {
  using ln::attention_shape;
  constexpr attention_shape plain{.d_model = 8, .heads = 2, .kv_heads = 2, .d_kv = 4};
  constexpr auto rotary = [=] {
    attention_shape a = plain;
    a.causal = true;
    a.rope = ln::rope_pairing::interleaved;
    return a;
  }();
  constexpr auto relative = [=] {
    attention_shape a = plain;
    a.relative = true;
    return a;
  }();
  constexpr auto cross = [=] {
    attention_shape a = plain;
    a.cross = true;
    return a;
  }();
  using ln::attention::full;
  const auto missing = [](const ln::gradient_report& r) {
    BOOST_TEST(!r.passed());
    BOOST_TEST(r.entries == 0);
    return r.tensor.substr(0, r.tensor.find(' '));
  };
  BOOST_TEST(missing(ln::check_layer_gradients<full::layer<rotary>>()) == "layer_check::d_kv");
  BOOST_TEST(missing(ln::check_layer_gradients<full::layer<relative>>()) == "layer_check::heads");
  BOOST_TEST(missing(ln::check_layer_gradients<full::layer<cross>>()) == "layer_check::memory");
  using layer = full::layer<plain>;
  BOOST_TEST(missing(ln::check_layer_gradients<layer>({.length = 0})) == "layer_check");
  BOOST_TEST(missing(ln::check_layer_gradients<layer>({.lengths = {3}})) == "layer_check");
  BOOST_TEST(missing(ln::check_layer_gradients<layer>({.lengths = {3, 9}})) == "layer_check");
  BOOST_TEST(ln::check_layer_gradients<full::layer<plain>>().passed());
  BOOST_TEST(ln::check_layer_gradients<full::layer<rotary>>({.d_kv = 4}).passed());
  BOOST_TEST(ln::check_layer_gradients<full::layer<relative>>({.heads = 2}).passed());
  BOOST_TEST(ln::check_layer_gradients<full::layer<cross>>({.memory = 3}).passed());
}

// A check of nothing but zeros proves nothing, so it does not pass.
BOOST_AUTO_TEST_CASE(zeros_do_not_pass) {
  const auto r = ln::check_layer_gradients<constant>();
  BOOST_TEST(r.worst <= 1);
  BOOST_TEST(!r.passed());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::checker_test
