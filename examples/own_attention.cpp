// SPDX-License-Identifier: MIT
// Two kinds of attention from outside the library: ALiBi wraps attention::full, and talking heads
// has parameters and a key-value cache of its own. Both are checked, trained, and they write.

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include <linnet/linnet.hpp>
namespace ln = linnet;

namespace mine {
using ln::index, ln::view;

// ALiBi (Press et al. 2022): head h of H loses 2^(-8 (h + 1) / H) for each token of distance.
struct alibi : ln::attention::full {  // with its traits, and with its caches: kv::int8, paged
  // Files are compared by this name, so that one of `full`, whose weights would fit, is refused.
  static std::string name() { return "mine::alibi"; }
  static double bias(index head, index heads, index distance) {
    return -std::exp2(-8.0 * double(head + 1) / double(heads)) * std::abs(double(distance));
  }
  template <ln::attention_shape A>
  using layer = ln::attention::distance_bias_layer<A, alibi>;  // the layer of `full`, and the bias
};

// Talking heads (Shazeer et al. 2020): with scores s_f of head f, head g mixes its values v_g by
// sum_f W_gf softmax(sum_i L_fi s_i). That is attention of H queries [L_f1 q_1 ... L_fH q_H] to one
// wide key and value [v_1 ... v_H]. Rows of `talking` are [q, k, v].
template <ln::attention_shape A>
struct talking {
  static constexpr index H = A.heads, h = A.d_kv, n = A.n(), in = 3 * n, out = n;
  static_assert(A.causal && !A.cross && A.kv_heads == H, "mine::talking_heads: kv_heads is heads");
  static_assert(A.cache == ln::kv_code::exact,  // so a kind refuses caches that it does not have
                "mine::talking_heads keeps keys and values as they are: leave out kv::");

  template <class Form>
  struct params {
    typename Form::vector before{}, after{};  // L and W [H, H]
  };
  static double identity(const ln::parameter_path&, index i, ln::random_stream&) {
    return i / H == i % H ? 1 : 0;  // at first, heads do not talk
  }
  static constexpr void visit(auto&& f, const ln::parameter_path& at, auto&... p) {
    f(at / "before", ln::tensor_info{H, H, ln::role::scale, 0, identity}, p.before...);
    f(at / "after", ln::tensor_info{H, H, ln::role::scale, 0, identity}, p.after...);
  }
  template <class T>
  struct cache {
    T *kept{}, *q{}, *mixed{}, *dq{}, *d_mixed{}, *scratch{};
    index capacity = 0, size = 0;
  };
  template <class T>
  static constexpr cache<T> plan(ln::planner& m, const ln::call_shape& e) {
    const index wide = e.rows() * H * n, keys = (std::max)(e.length, e.capacity);
    const index size = ln::ops::attention_scratch(e.length, keys, n, {.after = 0}, e.training);
    cache<T> c{.capacity = e.capacity, .size = size};
    c.kept = m.state.take<T>(e.batch * e.capacity * 2 * n);  // keys and values of decoded tokens
    c.q = m.saved.take<T>(wide), c.mixed = m.saved.take<T>(wide);  // backward reads them
    const index mark = m.scratch.mark();
    if (e.training) c.dq = m.scratch.take<T>(wide), c.d_mixed = m.scratch.take<T>(wide);
    c.scratch = m.scratch.take<T>(e.threads * size);
    m.scratch.release(mark);
    return c;
  }
  template <class T>
  static ln::ops::attention_call<T> call(const T* x, const cache<T>& c, ln::context<T>& ctx) {
    ln::ops::attention_call<T> a{};
    a.batch = ctx.batch, a.queries = ctx.length, a.keys = ctx.past ? c.capacity : ctx.length;
    a.heads = H, a.kv_heads = 1, a.h = n, a.scale = T(1 / std::sqrt(double(h)));
    a.window.after = 0, a.past = ctx.past, a.query_lengths = ctx.lengths;
    a.k = {ctx.past ? c.kept : x + n, a.keys, ctx.past ? 2 * n : in, n};
    a.v = {a.k.data + n, a.keys, a.k.stride, n};
    a.q = c.q, a.out = c.mixed, a.scratch = c.scratch, a.scratch_size = c.size;
    return a;
  }
  template <class T, class S>
  static void forward(const auto& p, view<const T, in> x, view<T, out> y, cache<T>& c,
                      ln::context<T>& ctx) {
    ctx.on.threads.each(x.rows(), [&](index row) {
      for (index i = 0; i < H * n; ++i)
        c.q[row * H * n + i] = p.before[i / n * H + i % n / h] * x(row, i % n);
      const index b = row / ctx.length, t = row % ctx.length;
      if (ctx.past && t < ctx.length_of(b))  // what follows is padding
        std::copy_n(x.row(row) + n, 2 * n, c.kept + (b * c.capacity + ctx.past[b] + t) * 2 * n);
    });
    ln::ops::attention(ctx.on, call(x.data(), c, ctx));
    ctx.on.threads.each(y.size(), [&](index i) {
      T sum = 0;
      for (index f = 0; f < H; ++f)
        sum += p.after[i % n / h * H + f] * c.mixed[(i / n * H + f) * n + i % n];
      y.data()[i] = sum;
    });
  }
  template <class T, class S>
  static void backward(const auto& p, auto& dp, view<const T, in> x, view<const T, out> dy,
                       view<T, in> dx, cache<T>& c, ln::context<T>& ctx) {
    ctx.on.threads.each(x.rows() * H * n, [&](index i) {
      c.d_mixed[i] = p.after[i % n / h * H + i / n % H] * dy(i / n / H, i % n);
      c.dq[i] = 0;
    });
    ln::ops::attention_backward(ctx.on, call(x.data(), c, ctx),
                                {c.d_mixed, c.dq, dx.data() + n, dx.data() + 2 * n});
    ctx.on.threads.each(dy.size(), [&](index i) {
      for (index f = 0; f < H; ++f)
        dx(i / n, i % n) += p.before[f * H + i % n / h] * c.dq[(i / n * H + f) * n + i % n];
    });
    ctx.on.threads.each(H * H, [&](index gf) {  // outputs are split, so threads change no sum
      for (index row = 0, g = gf / H, f = gf % H; row < x.rows(); ++row)
        for (index e = 0; e < h; ++e) {
          dp.before[gf] += x(row, f * h + e) * c.dq[(row * H + g) * n + f * h + e];
          dp.after[gf] += dy(row, g * h + e) * c.mixed[(row * H + f) * n + g * h + e];
        }
    });
  }
  template <class T>  // for session::fork
  static void copy_state(cache<T>& c, index from, index to, const ln::state_part& part) {
    ln::copy_sequence(c.kept, c.capacity * 2 * n, from, to, part);
  }
  static constexpr index flops(const ln::call_shape& e) { return e.rows() * e.length * 4 * H * n; }
};
struct talking_heads : ln::attention::policy {
  static constexpr bool bidirectional = false, rotary = false, can_truncate = true;
  static std::string name() { return "mine::talking_heads"; }
  template <ln::attention_shape A>
  struct layer
      : ln::chain<ln::named<"qkv", ln::linear<A.d_model, 3 * A.n()>>,
                  ln::named<"heads", talking<A>>, ln::named<"o", ln::linear<A.n(), A.d_model>>> {
    static constexpr index state_values(index tokens) { return 2 * A.n() * tokens; }
  };
};
}  // namespace mine

template <class Kind>
bool show() {
  using layer = typename Kind::template layer<ln::attention_shape{
      .d_model = 6, .heads = 2, .kv_heads = 2, .d_kv = 3, .causal = true}>;
  const ln::layer_report checked = ln::check_layer<layer>();  // causality, threads, padding, cache
  if (!checked.passed()) return std::puts(checked.message().c_str()), false;
  if (!ln::check_layer_gradients<layer>({.lengths = {5, 3}}).passed()) return false;

  using Model = ln::decoder<ln::decoder_shape{64, 128, 4, 4, 2, 128, 64}, Kind, ln::position::none>;
  const std::string text = "the linnet is a small finch; it sings from the tops of bushes";
  const std::vector<ln::token> tokens(text.begin(), text.end());
  ln::weights<Model> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<Model>::open(w, {}, ln::adamw{.rate = ln::schedule::constant(3e-3)});
  for (int step = 0; train && step < 150; ++step)
    (void)train->step({tokens.data(), tokens.data() + 1, 1, std::ssize(tokens) - 1});
  auto run = ln::session<Model>::open(train->current(), {});
  std::string written = "the";
  if (run)
    run->generate({tokens.data(), 3}, ln::greedy{}, [&](ln::token t) { written += char(t); },
                  {.tokens = std::ssize(tokens) - 3});
  std::printf("%s writes: %s\n", Kind::name().c_str(), written.c_str());
  return written == text;
}

int main() {
  return show<mine::alibi>() && show<mine::talking_heads>() && std::fflush(stdout) == 0 ? 0 : 1;
}
