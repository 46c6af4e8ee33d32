// SPDX-License-Identifier: MIT
// A model that the library does not know: it reads letters and says which of them begin a word. It
// is built from linnet's layers, and linnet's trainer, quantize(), files and evaluator take it
// because it has what model/contract.hpp lists.

#include <cstdio>
#include <filesystem>
#include <string_view>
#include <vector>

#include <linnet/json.hpp>
#include <linnet/linnet.hpp>
namespace ln = linnet;

template <class Storage = ln::storage::f32>
struct splitter : ln::model_defaults {
  using storage = Storage;
  using batch = ln::decoder_batch;  // tokens, labels, batch, length: all that it needs
  template <class Other>
  using with_storage = splitter<Other>;
  static constexpr ln::index d = 32, letters = 26, vocabulary = 2;  // it answers yes or no

  using norm = ln::norm::rms::layer<d, ln::real{1e-6}>;
  using mixer = ln::mixer::mamba<>::layer<ln::attention_shape{.d_model = d, .causal = true}>;
  using layers = ln::chain<ln::named<"blocks", ln::repeat<ln::residual<norm, mixer>, 2>>,
                           ln::named<"norm", norm>>;

  template <class Form>
  struct params {
    typename Form::matrix table{}, head{};
    typename layers::template params<Form> stack{};
  };
  static constexpr void visit(auto&& f, const ln::parameter_path& at, auto&... p) {
    f(at / "table" / "weight", ln::tensor_info{letters, d, ln::role::table, 1}, p.table...);
    f(at / "head" / "weight", ln::tensor_info{vocabulary, d, ln::role::matrix, 0.1}, p.head...);
    layers::visit(f, at, p.stack...);
  }
  static void describe(auto&& f) { f("model", "word splitter"); }  // files say it

  template <class T>
  struct workspace {
    typename layers::template cache<T> stack{};
    T *x = nullptr, *y = nullptr, *dx = nullptr, *dy = nullptr;  // [rows, d]
    T* chunk = nullptr;                                          // logits of some rows
    double* losses = nullptr;                                    // [rows]
  };
  template <class T>
  static constexpr workspace<T> plan(ln::planner& m, const ln::limits& l, ln::purpose use) {
    const ln::call_shape e = ln::call_shape_for(l, use, l.target);
    workspace<T> w{.stack = layers::template plan<T>(m, e)};
    for (T** rows : {&w.x, &w.y, &w.dx, &w.dy}) *rows = m.saved.take<T>(e.rows() * d);
    w.chunk = m.saved.take<T>(ln::ops::head_rows(vocabulary) * vocabulary);
    w.losses = m.saved.take<double>(e.rows());
    m.product(ln::ops::head_rows(vocabulary), d, vocabulary, e);
    return w;
  }
  static bool accepts(const batch& b, const ln::limits& l) {
    return b.batch > 0 && b.batch <= l.batch && b.length > 0 && b.length <= l.target &&
           ln::tokens_fit(b.tokens, b.batch * b.length, letters, false) &&
           ln::tokens_fit(b.labels, b.batch * b.length, vocabulary, true);
  }
  template <class T, class S, class Criterion>
  static ln::loss_sum loss(const params<ln::form::packed<T, S>>& p,
                           params<ln::form::gradient<T>>* dp, const batch& b, workspace<T>& w,
                           const ln::ops::execution& on, const ln::loss_call<T>& call,
                           const Criterion& criterion) {
    ln::context<T> ctx{.on = on, .batch = b.batch, .length = b.length, .dropout = call.dropout};
    const ln::index n = ctx.rows();
    ln::ops::embed(on, n, d, b.tokens, p.table, w.x);
    layers::template forward<T, S>(p.stack, {w.x, n}, {w.y, n}, w.stack, ctx);
    ln::ops::head_call<T, S> head{n, d, vocabulary, w.y, p.head, T(1), b.labels, w.chunk, w.losses};
    head.logits = call.logits, head.z_loss = call.z_loss;
    if (dp) {
      for (T* dx : {w.dx, w.dy}) ln::ops::fill(on, n * d, T(0), dx);
      head.dy = w.dy;
      head.d_table = dp->head;
    }
    const ln::loss_sum sum = ln::ops::head_loss(on, head, criterion);
    if constexpr (ln::ops::trainable<S>)
      if (dp) {
        const ln::view<T, d> dy(w.dy, n), dx(w.dx, n);
        layers::template backward<T, S>(p.stack, dp->stack, {w.x, n}, dy, dx, w.stack, ctx);
        ln::ops::embed_backward(on, n, d, b.tokens, w.dx, dp->table);
      }
    return sum;
  }
};

int main() {
  constexpr std::string_view text = "the linnet is a small finch it sings from the tops of bushes";
  std::vector<ln::token> letters, begins;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (text[i] != ' ')
      letters.push_back(text[i] - 'a'), begins.push_back(i == 0 || text[i - 1] == ' ');
  const ln::index length = std::ssize(letters);
  const ln::decoder_batch all{letters.data(), begins.data(), 1, length};

  ln::weights<splitter<>> w;
  ln::initialize(w, ln::seed{1});
  auto train = ln::trainer<splitter<>>::open(w, {.target = length},
                                             ln::adamw{.rate = ln::schedule::constant(1e-2)});
  for (int step = 0; train && step < 100; ++step) (void)train->step(all);
  using Small = ln::quantized<splitter<>, ln::storage::int8>;
  const std::string path = std::filesystem::temp_directory_path() / "linnet_own.safetensors";
  const auto saved = ln::save_safetensors(ln::quantize<ln::storage::int8>(w), path);
  ln::weights<Small> small;
  const auto loaded = ln::load_safetensors(small, path);
  std::filesystem::remove(path);
  const auto packed = ln::pack(small);
  auto run = ln::evaluator<Small>::open(packed, {.target = length});
  if (!train || !saved || !loaded || !run) return std::puts("it was refused"), 1;

  std::vector<float> logits(letters.size() * 2);  // [letters, no and yes]
  const double loss = run->loss(all, logits).mean();
  for (std::size_t i = 0; i < letters.size(); ++i)
    std::printf(logits[2 * i + 1] > logits[2 * i] ? " %c" : "%c", 'a' + letters[i]);
  std::printf("\nloss of the int8 model: %.3f nats per letter\n", loss);
  return loss < 0.2 && std::fflush(stdout) == 0 ? 0 : 1;
}
