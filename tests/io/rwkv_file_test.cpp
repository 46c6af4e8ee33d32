// SPDX-License-Identifier: MIT
// Model files of rwkv.cpp: the tiny models that come with it reproduce its logits; every type of
// block by hand; and files that lie.

#include "io/models.hpp"
#include "support/allocations.hpp"
#include "support/scoring.hpp"

namespace test::rwkv_file_test {

namespace {

constexpr ln::decoder_shape small4{.d_model = 32,
                                   .d_ff = 64,
                                   .heads = 1,
                                   .kv_heads = 1,
                                   .layers = 2,
                                   .vocabulary = 5,
                                   .context = 8};
constexpr ln::decoder_shape small7{.d_model = 32,
                                   .d_ff = 64,
                                   .heads = 4,
                                   .kv_heads = 4,
                                   .layers = 2,
                                   .vocabulary = 5,
                                   .context = 8};
using four = ln::rwkv4<small4>;
using seven = ln::rwkv7<small7>;

std::string word(std::uint32_t x) { return raw(x); }

/// A record: extents from the slowest to the fastest.
std::string record(const std::string& name, const std::vector<std::uint32_t>& shape,
                   std::uint32_t type, const std::string& data) {
  std::string text = word(static_cast<std::uint32_t>(shape.size())) +
                     word(static_cast<std::uint32_t>(name.size())) + word(type);
  for (std::size_t i = shape.size(); i-- > 0;) text += word(shape[i]);
  return text + name + data;
}

/// The header and the records of a file, to be changed and put together.
struct file_parts {
  std::array<std::uint32_t, 6> header{0x67676d66, 101, 5, 32, 2, 0};
  std::vector<std::string> records;
  std::string text() const {
    std::string all;
    for (const std::uint32_t n : header) all += word(n);
    for (const std::string& one : records) all += one;
    return all;
  }
};

/// Some values in f32, from 1000 * `start` on.
std::string values(index count, int start) {
  std::string data;
  for (index i = 0; i < count; ++i)
    data += raw(static_cast<float>(1000 * start) + static_cast<float>(i) / 8);
  return data;
}

/// Every tensor of a small RWKV-4 or RWKV-7 by the description of the format; tensor number n holds
/// 1000 n, 1000 n + 1/8, ... and decays their negatives.
file_parts small_file(int version) {
  file_parts f;
  int number = 0;
  const auto add = [&](const std::string& name, std::vector<std::uint32_t> shape) {
    index count = 1;
    for (const std::uint32_t n : shape) count *= n;
    std::string data = values(count, ++number);
    if (name.ends_with("time_decay"))
      for (std::size_t i = 3; i < data.size(); i += 4) data[i] = static_cast<char>(data[i] | 0x80);
    f.records.push_back(record(name, shape, 0, data));
  };
  add("emb.weight", {5, 32});
  for (const std::string block : {"blocks.0.", "blocks.1."}) {
    if (block == "blocks.0.") {
      add("blocks.0.ln0.weight", {32});
      add("blocks.0.ln0.bias", {32});
    }
    for (const char* name : {"ln1.weight", "ln1.bias", "ln2.weight", "ln2.bias"})
      add(block + name, {32});
    if (version == 4) {
      for (const char* name :
           {"time_decay", "time_first", "time_mix_k", "time_mix_v", "time_mix_r"})
        add(block + "att." + name, {32});
      for (const char* name : {"time_mix_k", "time_mix_r"}) add(block + "ffn." + name, {32});
      add(block + "ffn.receptance.weight", {32, 32});
    } else {
      add(block + "att.x_rwkvag", {6, 1, 32});
      for (const char* name : {"w0", "a0", "k_k", "k_a"}) add(block + "att." + name, {1, 1, 32});
      for (const char* name : {"w1", "a1", "g1"}) add(block + "att." + name, {32, 32});
      for (const char* name : {"w2", "a2", "g2"}) add(block + "att." + name, {32, 32});
      if (block == "blocks.1.") {
        add(block + "att.v0", {1, 1, 32});
        add(block + "att.v1", {32, 32});
        add(block + "att.v2", {32, 32});
      }
      add(block + "att.r_k", {4, 8});
      add(block + "att.ln_x.weight", {32});
      add(block + "att.ln_x.bias", {32});
      add(block + "ffn.x_k", {1, 1, 32});
    }
    for (const char* name : {"receptance", "key", "value", "output"})
      add(block + "att." + name + ".weight", {32, 32});
    add(block + "ffn.key.weight", {64, 32});
    add(block + "ffn.value.weight", {32, 64});
  }
  for (const char* name : {"ln_out.weight", "ln_out.bias"}) add(name, {32});
  add("head.weight", {5, 32});
  return f;
}
/// The first value of a record of small_file().
float first_of(const file_parts& f, const std::string& name) {
  for (const std::string& one : f.records) {
    const auto dimensions = ln::detail::load_as<std::uint32_t>(bytes(one).data());
    if (const std::size_t at = 12 + 4 * dimensions; one.compare(at, name.size(), name) == 0)
      return ln::detail::load_as<float>(bytes(one).data() + at + name.size());
  }
  return -1;
}

/// Logits after `prompt`, fed token by token, and of all positions at once.
template <class M, class T>
std::pair<std::vector<double>, std::vector<double>> both_logits(const std::string& path,
                                                                const std::vector<token>& prompt) {
  ln::weights<M, T> w;
  LINNET_REQUIRE_OK(ln::load_rwkv(w, path));
  const auto p = ln::pack(w);
  const auto length = std::ssize(prompt);
  auto run = ln::session<M, T>::open(p, {.target = length});
  LINNET_REQUIRE_OK(run);
  std::span<T> last;
  for (const token& t : prompt) last = run->feed({&t, 1});
  const auto all = logits_of(p, ln::decoder_batch{prompt.data(), prompt.data(), 1, length},
                             ln::limits{.target = length});
  const auto row = row_of<M>(all, length - 1);
  return {{last.begin(), last.end()}, {row.begin(), row.end()}};
}

/// The tiny model `name` of rwkv.cpp, and what is known about it.
struct known_model {
  std::string name;
  double at_32, at_97, at_101, at_10, rms;  ///< after 57 bytes, from an independent program
  double q_0, q_32, q_97, q_255, q_rms;     ///< of the Q5_1 file after three
};

template <class M, class T>
void check_model_file(const known_model& known, double tolerance) {
  const std::string folder = "rwkv_tiny/";
  const std::string plain = data_file(folder + "tiny-rwkv-" + known.name + "-FP32.bin");
  const std::string rounded = data_file(folder + "tiny-rwkv-" + known.name + "-Q5_1.bin");
  const std::string expected = data_file(folder + "expected-logits-" + known.name + ".bin");
  if (plain.empty()) return;
  const std::vector<token> prompt{34, 105, 110};
  const std::string want_bytes = contents(expected);
  BOOST_REQUIRE(want_bytes.size() == 1024u);
  std::vector<float> want(256);
  std::memcpy(want.data(), want_bytes.data(), want_bytes.size());
  const auto [serial, parallel] = both_logits<M, T>(plain, prompt);
  BOOST_TEST(distance(serial, want) <= tolerance);
  BOOST_TEST(distance(parallel, want) <= tolerance);

  const std::string text = "In a hole in the ground there lived a small green dragon.";
  const auto [long_serial, long_parallel] =
      both_logits<M, T>(plain, std::vector<token>(text.begin(), text.end()));
  BOOST_TEST(distance(long_serial, long_parallel) <= same_result<T> * 10);
  const auto check_few = [&](const std::vector<double>& got, std::array<std::size_t, 4> ids,
                             std::array<double, 4> values_there, double rms) {
    double square = 0;
    for (const double x : got) square += x * x / 256;
    for (std::size_t i = 0; i < 4; ++i)
      BOOST_TEST(distance_of(got[ids[i]], values_there[i]) <= tolerance);
    BOOST_TEST(distance_of(std::sqrt(square), rms) <= tolerance);
  };
  check_few(long_serial, {32, 97, 101, 10}, {known.at_32, known.at_97, known.at_101, known.at_10},
            known.rms);

  const auto [coarse, coarse_parallel] = both_logits<M, T>(rounded, prompt);
  check_few(coarse, {0, 32, 97, 255}, {known.q_0, known.q_32, known.q_97, known.q_255},
            known.q_rms);
  BOOST_TEST(distance(coarse_parallel, coarse) <= same_result<T> * 10);
  BOOST_TEST(distance(coarse, want) > 1e-3);
}

const known_model four_660k{"4v0-660K",  9.810210,     3.076617,     4.019507,
                            1.065888,    1.682638,     -0.887093093, 5.176025876,
                            3.348680205, -0.901033478, 1.563713116};
const known_model seven_834k{"7v0-834K",  4.066970,     0.104020,     0.505948,
                             1.729060,    0.574546,     -0.032187105, 2.619350550,
                             0.568805669, -0.953892807, 0.693931951};

}  // namespace

BOOST_AUTO_TEST_SUITE(rwkv_file)

BOOST_AUTO_TEST_CASE(rwkv4_660k) {
  check_model_file<ln::zoo::rwkv4_660k, double>(four_660k, 5e-6);
  check_model_file<ln::zoo::rwkv4_660k, float>(four_660k, 2e-5);
}
BOOST_AUTO_TEST_CASE(rwkv7_834k) {
  check_model_file<ln::zoo::rwkv7_834k, double>(seven_834k, 5e-6);
  check_model_file<ln::zoo::rwkv7_834k, float>(seven_834k, 2e-5);
}

// Every tensor comes from its own place.
BOOST_AUTO_TEST_CASE(names) {
  const auto check = [](auto model, const file_parts& f,
                        const std::vector<std::pair<std::string, std::string>>& pairs) {
    ln::weights<decltype(model)> w;
    LINNET_REQUIRE_OK(ln::load_rwkv(w, bytes(f.text())));
    for (const auto& [ours, theirs] : pairs)
      BOOST_TEST(floats(w, ours).front() == first_of(f, theirs), ours);
    for (const ln::detail::leaf& one : ln::detail::leaves_of(w))  // none is left out
      BOOST_TEST((one.name.ends_with("time_decay") || floats(w, one.name).front() >= 1000),
                 one.name);
  };
  const file_parts f4 = small_file(4), f7 = small_file(7);
  check(four{}, f4,
        {{"embedding.weight", "emb.weight"},
         {"embedding.norm.bias", "blocks.0.ln0.bias"},
         {"blocks.1.attention.norm.weight", "blocks.1.ln1.weight"},
         {"blocks.1.attention.time_mix_r", "blocks.1.att.time_mix_r"},
         {"blocks.0.attention.output.weight", "blocks.0.att.output.weight"},
         {"blocks.1.ffn.norm.bias", "blocks.1.ln2.bias"},
         {"blocks.0.ffn.time_mix_k", "blocks.0.ffn.time_mix_k"},
         {"blocks.1.ffn.value.weight", "blocks.1.ffn.value.weight"},
         {"norm.weight", "ln_out.weight"},
         {"head.weight", "head.weight"}});
  check(seven{}, f7,
        {{"blocks.0.attention.w1.weight", "blocks.0.att.w1"},
         {"blocks.1.attention.g2.weight", "blocks.1.att.g2"},
         {"blocks.1.attention.v0", "blocks.1.att.v0"},
         {"blocks.1.attention.r_k", "blocks.1.att.r_k"},
         {"blocks.0.attention.ln_x.bias", "blocks.0.att.ln_x.bias"},
         {"blocks.1.ffn.x_k", "blocks.1.ffn.x_k"}});
  ln::weights<seven> w;
  LINNET_REQUIRE_OK(ln::load_rwkv(w, bytes(f7.text())));
  const float start = first_of(f7, "blocks.1.att.x_rwkvag");
  const char* const stacked[] = {"x_r", "x_w", "x_k", "x_v", "x_a", "x_g"};
  for (int i = 0; i < 6; ++i)
    BOOST_TEST(floats(w, std::string("blocks.1.attention.") + stacked[i]).front() ==
               start + static_cast<float>(4 * i));
  ln::weights<four, double> exact;
  LINNET_REQUIRE_OK(ln::load_rwkv(exact, bytes(f4.text())));
  const auto decay = leaf(exact, "blocks.1.attention.time_decay");
  for (index i = 0; i < 32; ++i)
    BOOST_TEST(reinterpret_cast<const double*>(decay.data)[i] ==
               std::log(-static_cast<double>(first_of(f4, "blocks.1.att.time_decay")) +
                        static_cast<double>(i) / 8));

  // Any order will do.
  file_parts turned = f7;
  std::reverse(turned.records.begin(), turned.records.end());
  ln::weights<seven> again;
  LINNET_REQUIRE_OK(ln::load_rwkv(again, bytes(turned.text())));
  BOOST_TEST(same_bytes(w, again));
}

// Blocks of 32 by hand: value i < 16 in the low half of byte i, value i + 16 in its high half.
BOOST_AUTO_TEST_CASE(blocks) {
  const std::string half_scale = raw(std::uint16_t{0x3800}), three = raw(std::uint16_t{0x4200});
  std::string nibbles;  // value i is i % 16, then 15 - i % 16
  for (unsigned i = 0; i < 16; ++i) nibbles += static_cast<char>(i | (15 - i) << 4);
  const std::string fifth = raw(std::uint32_t{0x80000002});  // of values 1 and 31
  std::string eight_bits;
  for (int i = 0; i < 32; ++i) eight_bits += static_cast<char>(i * 8 - 128);
  const auto decoded_values = [](std::uint32_t type, const std::string& block) {
    const ln::detail::ggml_layout* const t = ln::detail::rwkv_type_of(type);
    BOOST_REQUIRE(t != nullptr);
    BOOST_REQUIRE(t->bytes == std::ssize(block));
    std::vector<float> x(32);
    ln::detail::decode_block(t->type, bytes(block).data(), x.data());
    return x;
  };
  const auto q40 = decoded_values(2, half_scale + nibbles),
             q41 = decoded_values(3, half_scale + three + nibbles),
             q50 = decoded_values(7, half_scale + fifth + nibbles),
             q51 = decoded_values(8, half_scale + three + fifth + nibbles),
             q80 = decoded_values(9, half_scale + eight_bits);
  for (int i = 0; i < 32; ++i) {
    const auto n = static_cast<std::size_t>(i);
    const int code = i < 16 ? i : 31 - i, wide = code + (i == 1 || i == 31 ? 16 : 0);
    BOOST_TEST(q40[n] == 0.5f * static_cast<float>(code - 8));
    BOOST_TEST(q41[n] == 0.5f * static_cast<float>(code) + 3);
    BOOST_TEST(q50[n] == 0.5f * static_cast<float>(wide - 16));
    BOOST_TEST(q51[n] == 0.5f * static_cast<float>(wide) + 3);
    BOOST_TEST(q80[n] == 0.5f * static_cast<float>(i * 8 - 128));
  }
  float one = 0;
  ln::detail::decode_block(ln::detail::rwkv_type_of(1)->type, bytes(three).data(), &one);
  BOOST_TEST(one == 3.f);
  for (const std::uint32_t retired : {4u, 5u, 6u, 10u})
    BOOST_TEST(ln::detail::rwkv_type_of(retired) == nullptr);
}

// One matrix of a model in each type, the vectors beside it in f32.
BOOST_AUTO_TEST_CASE(mixed_types) {
  std::string halves, blocks_of_8;
  for (int i = 0; i < 32 * 32; ++i) halves += raw(static_cast<std::uint16_t>(0x3c00 + i % 7));
  for (int i = 0; i < 32; ++i) {
    blocks_of_8 += raw(std::uint16_t{0x3c00});  // 1
    for (int j = 0; j < 32; ++j) blocks_of_8 += static_cast<char>(i);
  }
  file_parts f = small_file(4);
  f.header[5] = 9;
  for (std::string& one : f.records) {
    if (one.find("blocks.1.att.key.weight") != one.npos)
      one = record("blocks.1.att.key.weight", {32, 32}, 1, halves);
    if (one.find("blocks.1.att.value.weight") != one.npos)
      one = record("blocks.1.att.value.weight", {32, 32}, 9, blocks_of_8);
  }
  ln::weights<four> w;
  LINNET_REQUIRE_OK(ln::load_rwkv(w, bytes(f.text())));
  const auto key = floats(w, "blocks.1.attention.key.weight"),
             value = floats(w, "blocks.1.attention.value.weight");
  for (int i = 0; i < 32 * 32; ++i) {
    BOOST_REQUIRE_EQUAL(key[static_cast<std::size_t>(i)], 1 + static_cast<float>(i % 7) / 1024);
    BOOST_REQUIRE_EQUAL(value[static_cast<std::size_t>(i)], static_cast<float>(i / 32));
  }
}

BOOST_AUTO_TEST_CASE(bad_files) {
  ln::weights<four> w = distinct<four>(3.0f);
  const auto before = w.clone();
  const file_parts good = small_file(4);
  const std::string text = good.text();
  std::vector<std::pair<std::string, std::string>> table;
  const auto header = [&](std::size_t field, std::uint32_t value, const char* message) {
    file_parts f = good;
    f.header[field] = value;
    table.emplace_back(f.text(), message);
  };
  const auto change = [&](const std::string& name, const std::string& with, const char* message) {
    file_parts f = good;
    for (std::string& one : f.records)
      if (one.find(name) != one.npos) one = with;
    table.emplace_back(f.text(), message);
  };
  header(0, 0x67676d6c, "magic: expected that of an rwkv.cpp file, got other bytes");
  header(1, 102, "version: expected 100 or 101, got 102");
  header(2, 6, "n_vocab: expected 5 (the model type), got 6");
  header(3, 0xffffffff, "n_embed: expected 32 (the model type), got 4294967295");
  header(4, 1, "n_layer: expected 2 (the model type), got 1");
  header(5, 4, "data type: expected 0, 1, 2, 3, 7, 8 or 9, got 4");
  table.emplace_back(text.substr(0, 23), "file size: expected at least 24 bytes, got 23");
  table.emplace_back(text.substr(0, 24),
                     "blocks.0.att.key.weight: expected [32, 32] (the model type), got no such "
                     "tensor");
  table.emplace_back(text.substr(0, 35), "record at byte 24: expected at least 12 bytes, got 11");
  table.emplace_back(text.substr(0, 50),
                     "record at byte 24: expected a name of 10 bytes, got the "
                     "end of the file");
  table.emplace_back(text.substr(0, text.size() - 1),
                     "head.weight: expected 640 bytes of data, got 639");
  table.emplace_back(text + "x", "record at byte " + std::to_string(text.size()) +
                                     ": expected at least 12 bytes, got 1");
  table.emplace_back(text + good.records[3],
                     "blocks.0.ln1.weight: expected one tensor of this name, got two");
  change("head.weight", "", "head.weight: expected [5, 32] (the model type), got no such tensor");
  change("head.weight", record("head.weight\n", {5, 32}, 0, values(160, 1)),
         "head.weight?: expected only tensors of the model type, got this one");
  change("head.weight", record("head.weight", {32, 5}, 0, values(160, 1)),
         "head.weight: expected [5, 32] (the model type), got [32, 5]");
  change("head.weight", record("head.weight", {0x80000000, 0x80000000, 32}, 0, ""),
         "head.weight: expected [5, 32] (the model type), got [2147483648, 2147483648, 32]");
  change("head.weight", record("head.weight", {1, 1, 5, 32}, 0, values(160, 1)),
         "");  // filled in below
  change("head.weight", record("head.weight", {5, 32}, 6, values(160, 1)),
         "head.weight: expected type 0, 1, 2, 3, 7, 8 or 9, got 6");
  change("head.weight", word(1) + word(0xffffffff) + word(0) + word(32),
         "");  // likewise
  std::string zero(128, '\0');
  change("blocks.1.att.time_decay", record("blocks.1.att.time_decay", {32}, 0, zero),
         "blocks.1.att.time_decay: expected negative, finite decays, got another value");
  std::string nan = values(31, -1) + raw(std::numeric_limits<float>::quiet_NaN());
  change("blocks.0.att.time_decay", record("blocks.0.att.time_decay", {32}, 0, nan),
         "blocks.0.att.time_decay: expected negative, finite decays, got another value");
  for (const auto& [file, message] : table) {
    const std::size_t asked = bytes_asked_for();
    const std::string got = test::message(ln::load_rwkv(w, bytes(file), "f"));
    BOOST_TEST(bytes_asked_for() - asked < 65536u);
    if (message.empty())
      BOOST_TEST(got.starts_with("f: record at byte "), got);
    else
      BOOST_TEST(got == "f: " + message);
  }
  BOOST_TEST(same_bytes(w, before));

  // Blocks that do not fit the rows, a version that has none, another norm, no file.
  ln::weights<seven> s;
  file_parts odd = small_file(7);
  for (std::string& one : odd.records)
    if (one.find("blocks.0.att.r_k") != one.npos)
      one = record("blocks.0.att.r_k", {4, 8}, 9, std::string(34, '\0'));
  BOOST_TEST(test::message(ln::load_rwkv(s, bytes(odd.text()), "f")) ==
             "f: blocks.0.att.r_k: expected whole blocks of 32 values, got rows of 8");
  odd.header[1] = 100;
  odd.header[5] = 8;
  BOOST_TEST(test::message(ln::load_rwkv(s, bytes(odd.text()), "f")) ==
             "f: data type: expected 0 or 1 in version 100, got 8");
  BOOST_TEST(test::message(ln::load_rwkv(s, bytes(text), "f"))
                 .starts_with("f: blocks.0.att.time_decay: expected only tensors"));
  static constexpr ln::decoder_shape other_eps = [] {
    ln::decoder_shape o = small4;
    o.eps = 1e-6;
    return o;
  }();
  ln::weights<ln::rwkv4<other_eps>> e;
  BOOST_TEST(test::message(ln::load_rwkv(e, bytes(text), "f")) ==
             "f: norm eps: expected 1e-06 (the model type), got 1e-05, as always in RWKV");
  BOOST_TEST(test::message(ln::load_rwkv(w, "no/such/file")) ==
             "no/such/file: expected a readable file, got No such file or directory");
}

BOOST_AUTO_TEST_CASE(weights_that_are_not_finite) {
  file_parts f = small_file(4);
  ln::weights<four> w;
  LINNET_REQUIRE_OK(ln::load_rwkv(w, bytes(f.text()), "f", ln::nonfinite::refuse));
  const auto before = w.clone();
  std::string& head = f.records.back();  // its last value
  head.replace(head.size() - 4, 4, raw(std::numeric_limits<float>::infinity()));
  BOOST_TEST(message(ln::load_rwkv(w, bytes(f.text()), "f", ln::nonfinite::refuse)) ==
             "f: head.weight: expected finite numbers, got a NaN or an infinity");
  BOOST_TEST(same_bytes(w, before));
  LINNET_REQUIRE_OK(ln::load_rwkv(w, bytes(f.text()), "f"));
}

BOOST_AUTO_TEST_SUITE_END()

}  // namespace test::rwkv_file_test
