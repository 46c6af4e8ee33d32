// SPDX-License-Identifier: MIT
// One row of the table of techniques and constraints in docs/seeds.md: what a technique makes of
// stlm-10m in bytes and work. constraints.py compiles one program for each ROW.
//
//   constraints bytes          bytes of the file, of training and of inference, as JSON
//   constraints decode N       decodes N tokens behind a prompt of 64, one thread
//   constraints train N        N training steps of one window of 128 tokens, one thread
// All weights are 0, as work does not depend on them.

#include <linnet/compression.hpp>
#include <linnet/linnet.hpp>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace ln = linnet;

#ifndef ROW
#define ROW 0
#endif

inline constexpr ln::decoder_shape shape = ln::zoo::shapes::stlm_10m;
constexpr ln::decoder_shape less_of(ln::index layers, ln::index d_ff, ln::index kv_heads) {
  ln::decoder_shape s = shape;
  s.layers = layers;
  s.d_ff = d_ff;
  s.kv_heads = kv_heads;
  return s;
}
using Base = ln::decoder<shape>;

/// A row changes one thing of this: the model, its stored form, or how it learns.
struct plain {
  using Model = Base;
  using Storage = ln::storage::f32;
  using Optimizer = ln::adamw;
  using Compute = ln::compute::f32;
  static constexpr bool recompute = false, teacher = false, adapter = false;
};
template <class S, class A>
using with = ln::storage::with_compute<S, A>;

template <int Row>
struct row : plain {};
template <>
struct row<1> : plain {  // one feed-forward for all layers
  using Model = ln::zoo::stlm_10m_ffn_shared;
};
template <>
struct row<2> : plain {  // one block for all layers, a narrow embedding
  using Model = ln::zoo::stlm_10m_albert;
};
template <>
struct row<3> : plain {  // one head of keys and values, not four
  using Model = ln::decoder<less_of(18, 384, 1)>;
};
template <>
struct row<4> : plain {  // windows of 64 tokens
  using Model = ln::decoder<shape, ln::attention::sliding_window<64>>;
};
template <>
struct row<5> : plain {  // a state instead of a cache
  using Model = ln::decoder<shape, ln::attention::linear<>>;
};
template <>
struct row<6> : plain {  // products of training in bf16
  using Compute = ln::compute::bf16;
};
template <>
struct row<7> : plain {
  using Optimizer = ln::adafactor;
};
template <>
struct row<8> : plain {
  using Optimizer = ln::adamw_8bit;
};
template <>
struct row<9> : plain {
  static constexpr bool recompute = true;
};
template <>
struct row<10> : plain {  // LoRA of rank 8 on int8 weights
  using Storage = ln::storage::int8;
  static constexpr bool adapter = true;
};
template <>
struct row<11> : plain {  // two thirds of the layers, half of the neurons
  using Model = ln::decoder<less_of(12, 192, 4)>;
};
template <>
struct row<12> : plain {  // the same from the logits of the whole model
  using Model = ln::decoder<less_of(12, 192, 4)>;
  static constexpr bool teacher = true;
};
template <>
struct row<13> : plain {  // 2 of 4 numbers of the layers
  using Storage = ln::storage::per_role<ln::storage::n_of_m<ln::storage::f32, 2, 4>,
                                        ln::storage::embedding<ln::storage::f32>>;
};
template <>
struct row<14> : plain {
  using Storage = with<ln::storage::int8, ln::compute::int8>;
};
template <>
struct row<15> : plain {
  using Storage = ln::storage::int4<64>;
};
template <>
struct row<16> : plain {  // and keys and values in 8 bits
  using Model = ln::decoder<shape, ln::kv::int8>;
  using Storage = with<ln::storage::int8, ln::compute::int8>;
};

using This = row<ROW>;
using Model = This::Model;
constexpr bool as_trained = std::is_same_v<This::Storage, ln::storage::f32>;
template <class M>
struct stored_as {
  using type = ln::quantized<M, This::Storage>;
};
using Run = std::conditional_t<as_trained, std::type_identity<Model>, stored_as<Model>>::type;
template <class M>
struct adapter_of {
  using type = ln::adapted<M, ln::lora<8>>;
};
using Trained = std::conditional_t<This::adapter, adapter_of<Run>, std::type_identity<Model>>::type;
using Trainer = ln::trainer<Trained, This::Optimizer, float, This::Compute>;

constexpr ln::limits training{.target = 128, .threads = 1, .recompute = This::recompute};
constexpr ln::limits running{.target = 512, .chunk = 64, .threads = 1};

template <class T>
T take(ln::result<T> r) {
  if (r) return static_cast<T&&>(*r);
  std::fprintf(stderr, "constraints: %s\n", r.error().message().c_str());
  std::exit(1);
}
template <class M>
auto stored(const ln::weights<M>& w) {
  if constexpr (as_trained)
    return w.clone();
  else
    return ln::quantize<This::Storage>(w);
}
std::vector<ln::token> text(ln::index count) {
  std::vector<ln::token> some(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < some.size(); ++i)
    some[i] = static_cast<ln::token>(i * i * 7 % 50'000);
  return some;
}

int bytes() {
  ln::index train = Trainer::footprint(training) + ln::weight_bytes<Trained>();
  if constexpr (This::adapter) train += ln::packed<Run>::bytes();
  if constexpr (This::teacher)
    train += ln::distillation<Model, Base>::footprint(training) + ln::packed<Base>::bytes();
  std::printf(
      "{\"file\": %lld, \"train\": %lld, \"run\": %lld}\n",
      static_cast<long long>(ln::weight_bytes<Run>()), static_cast<long long>(train),
      static_cast<long long>(ln::session<Run>::footprint(running) + ln::packed<Run>::bytes()));
  return 0;
}

/// What is counted: constraints.py names this function to valgrind.
template <class F>
[[gnu::noinline]] int counted(F&& f) {
  f();
  return 0;
}

int decode(ln::index count) {
  const auto packed = ln::pack(stored(ln::weights<Model>()));
  auto run = take(ln::session<Run>::open(packed, running));
  (void)run.feed(text(64));
  const auto tokens = text(count);
  return counted([&] {
    for (const ln::token& next : tokens) (void)run.feed({&next, 1});
  });
}

template <class W>
int train_on(W& w, ln::index count) {
  auto train = take(Trainer::open(w, training));
  const auto window = text(129);
  const ln::decoder_batch batch{window.data(), window.data() + 1, 1, 128};
  if constexpr (This::teacher) {
    const auto teacher = ln::pack(ln::weights<Base>());
    auto lesson = take(ln::distillation<Model, Base>::open(teacher, training, {}));
    return counted([&] {
      for (ln::index i = 0; i < count; ++i) (void)train.step(batch, lesson);
    });
  } else {
    return counted([&] {
      for (ln::index i = 0; i < count; ++i) (void)train.step(batch);
    });
  }
}
template <bool Adapter>
int train(ln::index count) {
  auto w = ln::weights<Model>();
  if constexpr (Adapter) {
    const auto base = ln::pack(stored(w));
    auto adapter = take(ln::adapt<ln::lora<8>>(base));
    return train_on(adapter, count);
  } else {
    return train_on(w, count);
  }
}

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  const ln::index count = argc > 2 ? std::atoi(argv[2]) : 1;
  if (what == "bytes") return bytes();
  if (what == "decode") return decode(count);
  if (what == "train") return train<This::adapter>(count);
  std::fprintf(stderr, "usage: constraints bytes | decode N | train N\n");
  return 2;
}
