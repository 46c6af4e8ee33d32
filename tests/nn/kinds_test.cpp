// SPDX-License-Identifier: MIT
// One harness over every kind of attention and mixer: gradients, causality to the bit, decoding in
// pieces, padding, threads. And a kind of a user's own, which has to pass it like any other.

#include "support/mixing.hpp"
#include "support/models.hpp"

// Somebody else's kind, in fewer than 40 lines: the mean of all tokens that a token sees.
namespace mine {
using linnet::index, linnet::view, linnet::context;
struct mean : linnet::attention::policy {
  static std::string name() { return "mean"; }
  template <linnet::attention_shape A>
  struct layer : linnet::without_parameters {
    static constexpr index in = A.d_model, out = A.d_model;
    template <class T>
    using cache = std::array<T*, 1>;  // sums [batch, in] while decoding
    template <class T>
    static constexpr cache<T> plan(linnet::planner& m, const linnet::call_shape& e) {
      return {m.state.take<T>(e.capacity > 0 ? e.batch * in : 0)};
    }
    template <class T, class S, class P>
    static void forward(const P&, view<const T, in> x, view<T, in> y, cache<T>& c,
                        context<T>& ctx) {
      ctx.on.threads.each(ctx.batch * in, [&](index i) {
        const index b = i / in, j = i % in, first = b * ctx.length, past = ctx.past_of(b);
        T sum = past > 0 ? c[0][i] : T(0);
        for (index t = 0; t < ctx.length_of(b); ++t)
          y(first + t, j) = (sum += x(first + t, j)) / T(past + t + 1);
        for (index t = 0; t < ctx.length && !A.causal; ++t)
          y(first + t, j) = sum / T(ctx.length_of(b));
        if (ctx.past) c[0][i] = sum;
      });
    }
    template <class T, class S, class P, class G, class C>
    static void backward(const P&, G&, view<const T, in>, view<const T, in> dy, view<T, in> dx, C&,
                         context<T>& ctx) {
      ctx.on.threads.each(ctx.batch * in, [&](index i) {
        const index b = i / in, j = i % in, first = b * ctx.length, n = ctx.length_of(b);
        T sum = 0;
        for (index t = A.causal ? n : ctx.length; t-- > 0; dx(first + t, j) += A.causal ? sum : 0)
          sum += dy(first + t, j) / T(A.causal ? t + 1 : n);
        for (index t = 0; t < n && !A.causal; ++t) dx(first + t, j) += sum;
      });
    }
    static constexpr index flops(const linnet::call_shape&) { return 0; }
    static constexpr index state_values(index) { return in; }
  };
};
}  // namespace mine

namespace test::kinds_test {

namespace {

constexpr ln::attention_shape plain{.d_model = 8, .heads = 2, .kv_heads = 2, .d_kv = 4};
constexpr ln::attention_shape causal = [] {
  ln::attention_shape a = plain;
  a.causal = true;
  return a;
}();
constexpr index all = 8 * 8 * 4;  // the four maps of attention

/// A NaN in a token is in what the token becomes: nothing on the way makes it a number.
template <class Layer>
void check_nan_stays() {
#if !defined(__FAST_MATH__)  // which lets the compiler assume that there are none
  constexpr index length = 12, d = Layer::in;
  for (const index place : {index{0}, index{5}, length - 1}) {
    mixing<Layer, float> layer({.batch = 2, .length = length});
    auto x = normal<float>(2 * length * d, 1);
    x[at((length + place) * d + 2)] = std::numeric_limits<float>::quiet_NaN();
    const auto y = layer.forward(x, length);
    BOOST_TEST(magnitude(rows_of(y, d, length, 1, place, 1)) == hopeless);
    BOOST_TEST(magnitude(rows_of(y, d, length, 0, 0, length)) < hopeless);
  }
#endif
}

/// A NaN in a parameter is in some output, of whole sequences and of sessions.
template <class Layer, bool Continues>
void check_nan_parameters() {
#if !defined(__FAST_MATH__)
  constexpr index length = 12, d = Layer::in;
  const auto x = normal<float>(length * d, 1);
  mixing<Layer, float> whole({.batch = 1, .length = length});
  mixing<Layer, float> session({.batch = 1, .length = length, .capacity = Continues ? length : 0});
  whole.w.visit([&](const ln::parameter_path& where, const ln::tensor_info& info, auto& leaf) {
    for (index row = 0; row < info.rows; ++row) {
      float& value = values_of(leaf)[row * info.columns + row % info.columns];
      const float before = std::exchange(value, std::numeric_limits<float>::quiet_NaN());
      for (auto* const layer : {&whole, &session}) {
        if (layer == &session && !Continues) continue;
        layer->take(whole.w);
        const auto y = layer->forward(
            x, length, {}, layer == &session ? std::vector<index>{0} : std::vector<index>{});
        BOOST_TEST(magnitude(y) == hopeless,
                   where.str() << ", row " << row << (layer == &session ? ", session" : ""));
      }
      value = before;
    }
  });
#endif
}

/// What a kind says of itself, and all that every kind has to keep.
template <class Kind>
void check_kind(index parameters) {
  BOOST_TEST_CONTEXT(Kind::name()) {
    if constexpr (Kind::causal) {
      using layer = typename Kind::template layer<causal>;
      BOOST_TEST(ln::count_parameters<layer>() == parameters);
      check_threads<layer, float>(41, {41, 41});
      if constexpr (Kind::supports_cache) {
        const std::vector<std::vector<index>> pieces{{3, 1}, {1, 1}, {35, 2}, {1, 36}};
        if constexpr (Kind::noncausal_grouping) {  // who sees whom depends on later tokens, but in
                                                   // sessions
          check_pieces<layer, double, typename Kind::online::template layer<causal>>(40, pieces,
                                                                                     1e-12);
        } else {
          check_causality<layer>(60);
          check_pieces<layer>(40, pieces, 1e-12);
        }
        const auto state = [](index batch) {
          return state_bytes_of<layer>({.batch = batch, .length = 40, .capacity = 40});
        };
        const index values = layer::state_values(40), bytes = (state(32) - state(16)) / 16;
        BOOST_TEST(bytes >= values * 4);
        if (!Kind::evicts) BOOST_TEST(bytes <= values * 4 + 8 * ln::alignment);
      }
    }
    if constexpr (Kind::bidirectional) {
      using layer = typename Kind::template layer<plain>;
      if constexpr (!Kind::causal) BOOST_TEST(ln::count_parameters<layer>() == parameters);
      check_padding<layer>(37, {37, 20, 3});
      check_threads<layer, float>(41, {41, 17});
    }
    check_nan_stays<typename Kind::template layer<Kind::causal ? causal : plain>>();
    check_nan_parameters<typename Kind::template layer<Kind::causal ? causal : plain>,
                         Kind::causal && Kind::supports_cache>();
    check_layer<typename Kind::template layer<Kind::causal ? causal : plain>>({.length = 9});
  }
}

}  // namespace

BOOST_AUTO_TEST_SUITE(kinds)

namespace a = ln::attention;

BOOST_AUTO_TEST_CASE(exact_and_near) {
  check_kind<a::full>(all);
  check_kind<a::prefix>(all);
  check_kind<a::sliding_window<5>>(all);
  check_kind<a::sinks<2, 6>>(all);
}
// Rings hold what the first token of a piece sees beside the whole piece, a token more than a whole
// number of blocks here; every row of a piece is compared.
BOOST_AUTO_TEST_CASE(rings) {
  const std::vector<std::vector<index>> pieces{{27, 20}, {27, 27}, {27, 27},
                                               {27, 27}, {27, 27}, {2, 9}};
  check_pieces<a::sliding_window<7>::layer<causal>>(137, pieces, 1e-12);
  check_pieces<a::sinks<3, 7>::layer<causal>>(137, pieces, 1e-12);
}
BOOST_AUTO_TEST_CASE(sparse) {
  check_kind<a::longformer<6, 2>>(all + 3 * 8 * 8);
  check_kind<a::lsh<4, 2>>(all - 8 * 8);
  check_kind<a::lsh<4, 2>::online>(all - 8 * 8);
  check_kind<a::routing<3, 8>>(all - 8 * 8 + 3 * 8);
  check_kind<a::routing<3, 8>::online>(all - 8 * 8 + 3 * 8);
}
BOOST_AUTO_TEST_CASE(low_rank) {
  check_kind<a::linformer<5, 64>>(all + 2 * 5 * 64);
  check_kind<a::nystrom<4, 3>>(all + 2 * 3);
  check_kind<a::linear<>>(all);
}
BOOST_AUTO_TEST_CASE(mixers) {
  check_kind<ln::mixer::fnet>(0);
  check_kind<ln::mixer::mamba<4, 3>>(8 * 32 + 16 * 4 + 16 * 9 + 16 + 16 + 16 * 4 + 16 + 16 * 8);
  check_kind<ln::mixer::rwkv4>(4 * 8 * 8 + 5 * 8);
}
BOOST_AUTO_TEST_CASE(of_a_users_own) {
  check_kind<mine::mean>(0);
  using t5 = ln::t5<tiny_t5_shape, mine::mean>;
  using decoder = ln::decoder<tiny_decoder_shape, mine::mean>;
  check_model<t5>(t5_data<t5>());
  check_model<decoder>(decoder_data<decoder>());
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::kinds_test
