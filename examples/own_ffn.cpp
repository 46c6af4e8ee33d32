// SPDX-License-Identifier: MIT
// A feed-forward of your own, from outside the library: y = down(up(x)^2), the squared linear unit.
// It is written once, checked with the shipped gradient checker, and used in a T5 and in a decoder.

#include <cstdio>

#include <linnet/linnet.hpp>
namespace ln = linnet;

// y = x * x elementwise: a layer without parameters and without buffers. `in` and `out` are its
// widths; forward writes y, backward ADDS to dx. Every thread of the team runs this code and takes
// its share of the rows.
template <ln::index D>
struct square : ln::without_parameters, ln::without_cache {
  static constexpr ln::index in = D, out = D;

  template <class T, class S, class P, class C>
  static void forward(const P&, ln::view<const T, D> x, ln::view<T, D> y, C&, ln::context<T>& ctx) {
    ctx.on.threads.each(x.rows(), [&](ln::index i) {
      for (ln::index j = 0; j < D; ++j) y(i, j) = x(i, j) * x(i, j);
    });
  }
  template <class T, class S, class P, class G, class C>
  static void backward(const P&, G&, ln::view<const T, D> x, ln::view<const T, D> dy,
                       ln::view<T, D> dx, C&, ln::context<T>& ctx) {
    ctx.on.threads.each(x.rows(), [&](ln::index i) {
      for (ln::index j = 0; j < D; ++j) dx(i, j) += 2 * x(i, j) * dy(i, j);
    });
  }
  static constexpr ln::index flops(const ln::call_shape&) { return 0; }
};

// The policy: a layer from width D to D for a model whose shape says d_ff = F.
struct squared : ln::ffn::policy {
  template <ln::index D, ln::index F, bool Bias>
  using layer = ln::chain<ln::named<"up", ln::linear<D, F, Bias>>, ln::named<"square", square<F>>,
                          ln::named<"down", ln::linear<F, D, Bias>>>;
};

inline constexpr ln::t5_shape small_t5{.d_model = 32,
                                       .d_ff = 64,
                                       .d_kv = 8,
                                       .heads = 4,
                                       .encoder_layers = 1,
                                       .decoder_layers = 1,
                                       .vocabulary = 100};
inline constexpr ln::decoder_shape small_decoder{.d_model = 32,
                                                 .d_ff = 64,
                                                 .heads = 4,
                                                 .kv_heads = 2,
                                                 .layers = 2,
                                                 .vocabulary = 100,
                                                 .context = 64};
using T5 = ln::t5<small_t5, squared>;
using Decoder = ln::decoder<small_decoder, squared>;

int main() {
  const ln::gradient_report report = ln::check_layer_gradients<squared::layer<6, 10, true>>();
  std::printf("gradient check of the policy: %s, worst error %.1e of the tolerance, at %s\n",
              report.passed() ? "passed" : "FAILED", report.worst, report.tensor.c_str());
  std::printf("T5 with it: %td parameters; decoder with it: %td\n", T5::parameters(),
              Decoder::parameters());
  return report.passed() && std::fflush(stdout) == 0 ? 0 : 1;
}
