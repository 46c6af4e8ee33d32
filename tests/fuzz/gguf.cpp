// SPDX-License-Identifier: MIT
// GGUF files: any bytes as one; and the good file of a small model, edited field by field as the
// input says, so that what is behind the header is reached, too. All that is read is used.

#include <linnet/gguf.hpp>
#include <linnet/linnet.hpp>

#include <algorithm>
#include <string>
#include <vector>

#include "fuzz/afterwards.hpp"

namespace ln = linnet;

namespace fuzz::gguf {

namespace {

constexpr ln::decoder_shape shape{.d_model = 32,
                                  .d_ff = 32,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 5,
                                  .context = 8};
using llama = ln::decoder<shape>;

/// Takes numbers from the input; zeros behind its end.
struct choices {
  const std::uint8_t* at;
  std::size_t left;
  std::uint8_t byte() { return left > 0 ? (--left, *at++) : std::uint8_t{0}; }
  /// Small, near a power of two, or anything.
  std::uint64_t number() {
    const std::uint8_t how = byte();
    if (how < 64) return how;
    if (how < 192) return (std::uint64_t{1} << (how & 63)) + byte() % 3 - 1;
    std::uint64_t x = 0;
    for (int i = 0; i < 8; ++i) x = x << 8 | byte();
    return x;
  }
};

/// A file as a list of fields: numbers of a size, or texts behind their lengths.
struct field {
  std::uint64_t number = 0;
  int size = 0;  ///< bytes; of texts, that of the length
  std::string text{};
};

std::vector<field> good_fields() {
  std::vector<field> all{{0x46554747, 4}, {3, 4}, {0, 8}, {0, 8}};
  const auto text = [&](std::string_view x) { all.push_back({x.size(), 8, std::string(x)}); };
  const auto key = [&](std::string_view name, std::uint32_t kind) {
    text(name);
    all.push_back({kind, 4});
    ++all[3].number;
  };
  key("general.architecture", 8);
  text("llama");
  for (const ln::detail::gguf_fact& fact : ln::detail::gguf_facts<llama>()) {
    key(fact.key, static_cast<std::uint32_t>(fact.kind));
    const auto real = static_cast<float>(fact.number);
    all.push_back({fact.kind == ln::gguf_kind::f32 ? ln::detail::load_as<std::uint32_t>(
                                                         reinterpret_cast<const std::byte*>(&real))
                                                   : static_cast<std::uint64_t>(fact.number),
                   4});
  }
  key("general.alignment", 4);
  all.push_back({32, 4});
  key("tokens", 9);
  all.push_back({8, 4});
  all.push_back({2, 8});
  text("a");
  text("bc");
  std::uint64_t offset = 0;
  static const ln::weights<llama> w;
  for (const ln::detail::file_part& part : ln::detail::gguf_parts(w)) {
    const ln::detail::placement& at = part.at;
    text(at.name);
    all.push_back({at.vector ? 1u : 2u, 4});
    if (!at.vector) all.push_back({static_cast<std::uint64_t>(at.columns), 8});
    all.push_back({static_cast<std::uint64_t>(at.rows), 8});
    all.push_back({at.vector ? 0u : 8u, 4});
    all.push_back({offset, 8});
    offset += static_cast<std::uint64_t>(at.vector ? 4 * at.rows : at.rows * at.columns / 32 * 34);
    offset = (offset + 31) / 32 * 32;
    ++all[2].number;
  }
  return all;
}

std::vector<std::byte> edited(choices from) {
  static const std::vector<field> good = good_fields();
  std::vector<field> all = good;
  for (int edits = from.byte() % 8; edits > 0 && !all.empty(); --edits) {
    const std::size_t at = (from.byte() + 256u * from.byte()) % all.size();
    switch (from.byte() % 6) {
      case 0:
        all[at].number = from.number();
        break;
      case 1:
        all[at].number += from.byte() % 3;
        break;
      case 2:
        all.insert(all.begin() + static_cast<std::ptrdiff_t>(at), all[from.byte() % all.size()]);
        break;
      case 3:
        all.erase(all.begin() + static_cast<std::ptrdiff_t>(at));
        break;
      case 4:
        all[at] = all[from.byte() % all.size()];
        break;
      default:
        if (!all[at].text.empty())
          all[at].text[from.byte() % all[at].text.size()] = static_cast<char>(from.byte());
    }
  }
  std::vector<std::byte> file;
  for (const field& one : all) {
    for (int i = 0; i < one.size; ++i) file.push_back(static_cast<std::byte>(one.number >> 8 * i));
    for (const char c : one.text) file.push_back(static_cast<std::byte>(c));
  }
  std::size_t data = (std::size_t{from.byte()} << 8) % 12000 + 8000;
  file.resize((file.size() + 31) / 32 * 32);
  while (data-- > 0) file.push_back(static_cast<std::byte>(from.byte()));
  return file;
}

/// Whether a file is read into weights. Tensor by tensor it is packed to the same bits, or refused
/// in the same words.
template <class M>
bool loads(ln::weights<M>& w, const ln::gguf& file, ln::nonfinite values = ln::nonfinite::keep) {
  const auto loaded = ln::load_gguf(w, file, values);
  const auto packed = ln::pack_gguf<M>(file, values);
  if (bool(loaded) != bool(packed)) __builtin_trap();
  if (!loaded) {
    if (loaded.error().message() != packed.error().message()) __builtin_trap();
    return false;
  }
  const auto all = ln::pack(w);
  if (!std::ranges::equal(all.block(), packed->block())) __builtin_trap();
  return true;
}

void use(std::span<const std::byte> bytes) {
  const auto file = ln::parse_gguf(bytes);
  if (!file) {
    if (file.error().message().empty()) __builtin_trap();
    return;
  }
  for (const ln::gguf_value& value : file->metadata()) {
    if (file->value(value.key) != &value || value.description().empty()) __builtin_trap();
    (void)file->get<std::int32_t>(value.key);
    (void)file->get<double>(value.key);
    (void)file->get<bool>(value.key);
    (void)file->get<std::string_view>(value.key);
    (void)file->array<std::int64_t>(value.key);
    (void)file->array<float>(value.key);
    if (const auto texts = file->strings(value.key)) {
      ln::index count = 0;
      for (const std::string_view text : *texts) count += text.data() != nullptr;
      if (count != value.count) __builtin_trap();
    }
  }
  for (const ln::gguf_tensor& tensor : file->tensors()) {
    if (file->find(tensor.name) != &tensor || tensor.description().empty()) __builtin_trap();
    if (const auto values = file->values(tensor.name);
        values && std::ssize(*values) != tensor.size())
      __builtin_trap();
  }
  static ln::weights<llama> w;
  static ln::weights<ln::quantized<llama, ln::storage::q8_0>> kept;
  if (loads(w, *file)) fuzz::generate(ln::pack(w));
  if (loads(kept, *file)) fuzz::generate(ln::pack(kept));
  (void)loads(kept, *file, ln::nonfinite::refuse);
  if (loads(w, *file, ln::nonfinite::refuse))
    for (const auto& leaf : ln::detail::leaves_of(w))
      if (!ln::detail::all_finite(leaf.type, leaf.data, leaf.size())) __builtin_trap();
}

/// What is edited was good.
void check_edited() {
  ln::weights<llama> w;
  ln::weights<ln::quantized<llama, ln::storage::q8_0>> kept;
  const std::vector<std::byte> file = edited({nullptr, 0});
  if (!ln::load_gguf(w, file) || !ln::load_gguf(kept, file)) __builtin_trap();
}

}  // namespace

int one_input(const std::uint8_t* data, std::size_t size) {
  [[maybe_unused]] static const bool checked = (check_edited(), true);
  if (size == 0) return 0;
  if (data[0] % 2 == 0)
    use({reinterpret_cast<const std::byte*>(data + 1), size - 1});
  else
    use(edited({data + 1, size - 1}));
  return 0;
}

}  // namespace fuzz::gguf
