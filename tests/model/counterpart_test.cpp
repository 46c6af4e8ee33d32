// SPDX-License-Identifier: MIT
// Own layers whose matrices stand for others take part in collapse(), factorise() and unshare().

#include <linnet/low_rank.hpp>

#include "support/scoring.hpp"
#include "support/singular_values.hpp"

namespace test::counterpart_test {

namespace {

/// y = x W^T for W = M M / 2: a map with one matrix of its own, outside the library.
template <index D>
struct half_square : ln::without_cache {
  static constexpr index in = D, out = D;
  using map = ln::linear<D, D>;
  template <class Form>
  struct params {
    typename map::template params<Form> root{};
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const ln::parameter_path& at, P&... p) {
    map::visit(f, at / "root", p.root...);
  }
  template <class F, class P, class Q>
  requires requires(Q& q) { q.weight; }
  static constexpr void visit(F&& f, const ln::parameter_path& at, P& p, Q& q) {
    const auto m = p.root.weight;
    ln::matrix_expression<std::remove_cv_t<decltype(m)>, 2> w{{m, m}, {D, D, D}, {}, 0.5};
    f(at / "weight", map::weight_info, w, q.weight);
  }
  template <class T>
  struct cache {
    T* inner = nullptr;  ///< [rows, D] x M^T
  };
  template <class T>
  static constexpr cache<T> plan(ln::planner& m, const ln::call_shape& e) {
    (void)map::template plan<T>(m, e);
    return {m.saved.take<T>(e.rows() * D)};
  }
  template <class T, class S>
  static void forward(const params<ln::form::packed<T, S>>& p, ln::view<const T, D> x,
                      ln::view<T, D> y, cache<T>& c, ln::context<T>& ctx) {
    ln::without_cache::cache<T> none;
    map::template forward<T, S>(p.root, x, {c.inner, x.rows()}, none, ctx);
    map::template forward<T, S>(p.root, {c.inner, x.rows()}, y, none, ctx);
    ctx.on.threads.each(x.rows(), [&](index i) {
      for (index j = 0; j < D; ++j) y(i, j) /= 2;
    });
  }
  template <class T, class S>  // not trained here
  static void backward(const params<ln::form::packed<T, S>>&, params<ln::form::gradient<T>>&,
                       ln::view<const T, D>, ln::view<const T, D>, ln::view<T, D>, cache<T>&,
                       ln::context<T>&) {}
  static constexpr index flops(const ln::call_shape& e) { return 2 * map::flops(e); }
};
struct squared : ln::ffn::policy {
  using collapsed = ln::ffn::linear;
  static std::string name() { return "squared"; }
  template <index D, index, bool>
  using layer = ln::chain<ln::named<"w", half_square<D>>>;
};

/// Put together from the library's layers: W + 4 / 2 B A in every place of a ReLU feed-forward.
struct with_delta : ln::ffn::policy {
  using collapsed = ln::ffn::relu;
  template <index D, index F, bool Bias>
  using layer =
      ln::ffn::relu::layer<D, F, Bias, ln::projection_kind{.rank = 2, .delta = true, .alpha = 4}>;
};
/// Two factors with the library's names, for factorise() of one matrix.
struct thin : ln::ffn::policy {
  using dense = ln::ffn::linear;
  template <index D, index, bool Bias>
  using layer = ln::chain<ln::named<"w", ln::low_rank_linear<D, D, 8, Bias>>>;
};
/// Blocks share the second factor of a product and not the first.
struct torn : ln::sharing::policy {
  using kind = torn;
  static std::string name() { return "torn"; }
  static constexpr bool shares(const ln::parameter_path& at) {
    return at.parent && at.parent->name == "w2";
  }
};

template <class M>
void check_collapse() {
  ln::weights<M, double> w;
  randomize(w);
  const auto data = decoder_data<M>();
  const auto before = logits_of(ln::pack(w), data);
  BOOST_TEST(magnitude(before) > 0.5);
  BOOST_TEST(distance(before, logits_of(ln::pack(ln::collapse(w)), data)) < 1e-12);
}

}  // namespace

BOOST_AUTO_TEST_SUITE(counterpart)

BOOST_AUTO_TEST_CASE(own_layers_collapse) {
  check_collapse<ln::decoder<tiny_decoder_shape, squared>>();
  check_collapse<ln::decoder<tiny_decoder_shape, with_delta, ln::bias::all>>();
}

// At full rank, so that the function stays.
BOOST_AUTO_TEST_CASE(own_layers_factorise) {
  using M = ln::decoder<tiny_decoder_shape, thin, ln::bias::all>;
  ln::weights<ln::dense_counterpart<M>, double> w;
  randomize(w);
  const auto data = decoder_data<M>();
  BOOST_TEST(distance(logits_of(ln::pack(w), data),
                      logits_of(ln::pack(ln::factorise<M>(w)), data)) < 1e-12);
}

BOOST_AUTO_TEST_CASE(factors_torn_apart) {
  ln::weights<ln::decoder<tiny_decoder_shape, ln::ffn::reparam<2>, torn>> w;
  randomize(w);
  const auto none = ln::collapse(w);
  BOOST_TEST(!none.valid());
  BOOST_TEST(none.error().message() ==
             "collapse: the sharing:: policy: expected factors of a matrix that are all shared or "
             "all each block's own, got some of either");
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::counterpart_test
