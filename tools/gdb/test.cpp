// SPDX-License-Identifier: MIT
// What tools/gdb/test lets gdb print at stop(), and what it must print.

#include <linnet/linnet.hpp>

namespace ln = linnet;

constexpr ln::decoder_shape shape{
    .d_model = 8, .d_ff = 8, .heads = 2, .kv_heads = 2, .layers = 2, .vocabulary = 4, .context = 4};
using model = ln::decoder<shape>;

void stop() { asm volatile(""); }

int main() {
  float values[] = {1, 2, 3, 4, 5, 6};
  [[maybe_unused]] const ln::view<const float, 3> matrix(values, 2);
  // gdb: print matrix
  // expect: = view \[2, 3\] = \{\{1, 2, 3\}, \{4, 5, 6\}\}

  [[maybe_unused]] const ln::view<float, 3> nothing;
  // gdb: print nothing
  // expect: = view \[0, 3\]$

  [[maybe_unused]] const ln::result<int> seven = 7;
  // gdb: print seven
  // expect: = success = \{value = 7\}

  const ln::error why{ln::errc::malformed, "model.bin", "heads", "2", "3"};
  // gdb: print why
  // expect: = malformed: model.bin: heads: expected 2, got 3$

  [[maybe_unused]] const ln::result<std::string> none = why;
  // gdb: print none
  // expect: = failure, malformed: model.bin: heads: expected 2, got 3$

  [[maybe_unused]] const ln::result<void> done,
      undone = ln::error{ln::errc::io, "disk", "", "", ""};
  // gdb: print done
  // expect: = success$
  // gdb: print undone
  // expect: = failure, io: disk$

  ln::weights<model> first;
  const auto set = [&](const ln::parameter_path& at, const ln::tensor_info&, const auto& leaf) {
    if constexpr (requires { leaf.data; })
      for (int i = 0; i < 4; ++i)
        if (at.str() == "blocks.1.attention.k.weight") leaf.data[i] = 0.5f * static_cast<float>(i);
  };
  first.visit(set);
  [[maybe_unused]] const ln::weights<model> w = std::move(first);
  // gdb: print w
  // expect: = weights of decoder_model<.*, 4032 bytes = \{embedding = .*
  // expect: stack\[1\]\[0\]\.k\.weight = float \{0, 0.5, 1, 1.5, ...\}
  // gdb: print first
  // expect: = weights of decoder_model<.*, invalid: moved from$

  [[maybe_unused]] const auto codes = ln::quantize<ln::storage::int8>(w);
  // gdb: print codes
  // expect: stack\[1\]\[0\]\.k\.weight = signed char \{0, 42, 85, 127, ...\}
  // expect: stack\[1\]\[0\]\.k\.weight.scales = float \{0\.0118

  [[maybe_unused]] const auto packed = ln::pack(w);
  // gdb: print packed
  // expect: = packed of decoder_model<
  // gdb: bt
  // expect: ^#0 +stop
  // expect: ^#[0-9]+ .{0,40}decoder_model<\.\.\.>::visit<\.\.\.>.{1,250}$
  packed.visit([](const ln::parameter_path& at, const ln::tensor_info&, const auto&) {
    if (at.str() == "blocks.1.attention.k.weight") stop();
  });
}
